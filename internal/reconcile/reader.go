package reconcile

import (
	"encoding/binary"
	"fmt"
)

// reader takes a message apart. After the first failure all results are zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrProtocol, what)
	}
	r.b = nil
}

func (r *reader) bytes(n int) []byte {
	if n > len(r.b) {
		r.fail("message too short")
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) id() (id ID) {
	copy(id[:], r.bytes(len(id)))
	return id
}

// uvarint reads a number of at most limit in its shortest form.
func (r *reader) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || n > 1 && r.b[n-1] == 0 {
		r.fail("invalid number")
		return 0
	}
	if v > limit {
		r.fail("number out of range")
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count reads a symbol's count, sent as its distance from what is expected of
// symbol i of a set of n ids.
func (r *reader) count(n int64, i int) int64 {
	u := r.uvarint(4 * maxSet)
	c := int64(u>>1) ^ -int64(u&1) + expected(n, i)
	if c < 0 || c > n {
		r.fail("count out of range")
		return 0
	}
	return c
}

func appendCount(b []byte, count, n int64, i int) []byte {
	v := count - expected(n, i)
	return binary.AppendUvarint(b, uint64(v<<1)^uint64(v>>63))
}

// ids reads n ids in strictly ascending order.
func (r *reader) ids(n int) []ID {
	b := r.bytes(n * len(ID{}))
	if r.err != nil || n == 0 {
		return nil
	}
	ids := make([]ID, n)
	for i := range ids {
		copy(ids[i][:], b[i*len(ID{}):])
		if i > 0 && compare(ids[i-1], ids[i]) >= 0 {
			r.fail("ids out of order")
			return nil
		}
	}
	return ids
}

func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail("bytes after the end of the message")
	}
	return r.err
}
