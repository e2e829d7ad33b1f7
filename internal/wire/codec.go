// Package wire holds the byte codec shared by everything that is signed, stored
// or sent: fixed-width big-endian integers, length-prefixed strings, and frames.
//
// There is one encoding of each value. A decoder bounds every length before it
// takes memory, and [Reader.End] refuses trailing bytes, so that what decodes
// encodes back to the same bytes.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

// ErrMalformed says that bytes are not a valid encoding.
var ErrMalformed = errors.New("wire: malformed")

// Reader takes values off a byte slice. The first failure sticks: later reads
// return zero values, and Err tells what went wrong. The zero value reads
// nothing.
type Reader struct {
	b   []byte
	err error
}

// NewReader returns a reader of b. It does not copy b, and the slices it returns
// alias it.
func NewReader(b []byte) *Reader { return &Reader{b: b} }

// Err returns the first failure, an [ErrMalformed].
func (r *Reader) Err() error { return r.err }

// Len returns how many bytes are left.
func (r *Reader) Len() int { return len(r.b) }

// End fails when bytes are left, and returns the first failure.
func (r *Reader) End() error {
	if r.err == nil && len(r.b) > 0 {
		r.Fail("%d trailing bytes", len(r.b))
	}
	return r.err
}

// Fail records a failure found by the caller; the first one sticks.
func (r *Reader) Fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
	}
	r.b = nil
}

// Take returns the next n bytes without copying them.
func (r *Reader) Take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n < 0 || n > len(r.b) {
		r.Fail("want %d bytes, have %d", n, len(r.b))
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

// Rest returns all bytes that are left.
func (r *Reader) Rest() []byte { return r.Take(len(r.b)) }

// U8 reads one byte.
func (r *Reader) U8() uint8 {
	if p := r.Take(1); p != nil {
		return p[0]
	}
	return 0
}

// U16 reads two bytes.
func (r *Reader) U16() uint16 {
	if p := r.Take(2); p != nil {
		return binary.BigEndian.Uint16(p)
	}
	return 0
}

// U32 reads four bytes.
func (r *Reader) U32() uint32 {
	if p := r.Take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

// U64 reads eight bytes.
func (r *Reader) U64() uint64 {
	if p := r.Take(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

// I64 reads eight bytes as a signed number.
func (r *Reader) I64() int64 { return int64(r.U64()) }

// Bool reads one byte that must be 0 or 1.
func (r *Reader) Bool() bool {
	switch r.U8() {
	case 0:
		return false
	case 1:
		return true
	}
	r.Fail("a flag is neither 0 nor 1")
	return false
}

// B32 reads 32 bytes.
func (r *Reader) B32() (v [32]byte) {
	copy(v[:], r.Take(32))
	return v
}

// B64 reads 64 bytes.
func (r *Reader) B64() (v [64]byte) {
	copy(v[:], r.Take(64))
	return v
}

// Bytes reads a four-byte length of at most limit, then that many bytes, without
// copying them.
func (r *Reader) Bytes(limit int) []byte {
	n := r.U32()
	if r.err == nil && uint64(n) > uint64(limit) {
		r.Fail("length %d exceeds %d", n, limit)
	}
	return r.Take(int(n))
}

// String reads a two-byte length of at most limit, then that many bytes, which
// must be valid UTF-8.
func (r *Reader) String(limit int) string {
	n := int(r.U16())
	if r.err == nil && n > limit {
		r.Fail("length %d exceeds %d", n, limit)
	}
	p := r.Take(n)
	if !utf8.Valid(p) {
		r.Fail("text is not UTF-8")
		return ""
	}
	return string(p)
}

// Count reads a two-byte number of items of at most limit.
func (r *Reader) Count(limit int) int {
	n := int(r.U16())
	if n > limit {
		r.Fail("%d items exceed %d", n, limit)
		return 0
	}
	return n
}

// AppendU16 appends two bytes.
func AppendU16(dst []byte, v uint16) []byte { return binary.BigEndian.AppendUint16(dst, v) }

// AppendU32 appends four bytes.
func AppendU32(dst []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(dst, v) }

// AppendU64 appends eight bytes.
func AppendU64(dst []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(dst, v) }

// AppendBool appends one byte, 0 or 1.
func AppendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// AppendBytes appends a four-byte length and b.
func AppendBytes(dst, b []byte) []byte {
	return append(AppendU32(dst, uint32(len(b))), b...)
}

// AppendString appends a two-byte length and s. The caller has checked that s is
// valid UTF-8 of at most 65,535 bytes.
func AppendString(dst []byte, s string) []byte {
	return append(AppendU16(dst, uint16(len(s))), s...)
}
