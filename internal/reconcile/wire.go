package reconcile

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

func compare(a, b ID) int { return bytes.Compare(a[:], b[:]) }

// Kinds of messages. Each message is the version, the kind, and what follows here.
const (
	kindHello   = 1  // see hello
	kindEqual   = 2  // nothing: the digests are equal
	kindBulk    = 3  // see bulk
	kindSymbols = 4  // see symbolsMsg
	kindMore    = 5  // see moreMsg
	kindRequest = 6  // see requestMsg
	kindRekey   = 7  // nonce, estimate: the first attempt failed
	kindRekeyed = 8  // nonce
	kindAbort   = 9  // attempt: the responder serves no more symbols of it
	kindList    = 10 // nothing: list your ids
	kindPage    = 11 // see pageMsg
	kindWant    = 12 // see wantMsg
)

type message interface{ encode() []byte }

// hello opens a session: what the responder needs to choose the way.
type hello struct {
	digest [32]byte
	counts []int64 // of the first helloCounts symbols; the first is the size of the set
	resume *ID     // set: push me everything from this id on
}

type equalMsg struct{}

// bulk says who pushes everything, in order of ids.
type bulk struct {
	size uint64 // of the responder's set
	push bool   // the responder pushes, from the id that the initiator named or the first
	want *ID    // set: the responder wants everything from this id on
}

// symbolsMsg is a portion of a run of coded symbols.
type symbolsMsg struct {
	attempt int // 0: keyed by the library; 1: by the session
	from    int // index of the first
	left    int // how many of the run are still to come
	size    int64
	symbols []symbol
}

// moreMsg asks for the next run.
type moreMsg struct{ attempt, from, n, estimate int }

// requestMsg names ids that the initiator lacks.
type requestMsg struct {
	ids    []ID
	last   bool
	pushed uint64 // in the last: how many records the initiator will push
}

type rekeyMsg struct {
	nonce    [16]byte
	estimate int
}
type rekeyedMsg struct{ nonce [16]byte }
type abortMsg struct{ attempt int }
type listMsg struct{}

// pageMsg is a page of a listing: full, unless it is the last.
type pageMsg struct {
	ids  []ID
	last bool
}

// wantMsg answers a page: one bit per id, the first id's the lowest of the first byte.
type wantMsg struct {
	n    int
	bits []byte
}

func head(kind byte) []byte { return []byte{version, kind} }

func (m hello) encode() []byte {
	b := make([]byte, 0, 160)
	b = append(b, version, kindHello, bit(m.resume != nil))
	b = append(b, m.digest[:]...)
	n := m.counts[0]
	b = binary.AppendUvarint(b, uint64(n))
	for i := 1; i < len(m.counts); i++ {
		b = appendCount(b, m.counts[i], n, i)
	}
	if m.resume != nil {
		b = append(b, m.resume[:]...)
	}
	return b
}

func (equalMsg) encode() []byte { return head(kindEqual) }
func (listMsg) encode() []byte  { return head(kindList) }

func (m bulk) encode() []byte {
	b := append(head(kindBulk), bit(m.push)|bit(m.want != nil)<<1)
	b = binary.AppendUvarint(b, m.size)
	if m.want != nil {
		b = append(b, m.want[:]...)
	}
	return b
}

func (m symbolsMsg) encode() []byte {
	b := make([]byte, 0, 32+len(m.symbols)*(fixedSize+3))
	b = append(b, version, kindSymbols, byte(m.attempt))
	b = binary.AppendUvarint(b, uint64(m.from))
	b = binary.AppendUvarint(b, uint64(m.left))
	b = binary.AppendUvarint(b, uint64(m.size))
	b = binary.AppendUvarint(b, uint64(len(m.symbols)))
	for i := range m.symbols {
		b = m.symbols[i].appendFixed(b)
		b = appendCount(b, m.symbols[i].count, m.size, m.from+i)
	}
	return b
}

func (m moreMsg) encode() []byte {
	b := append(head(kindMore), byte(m.attempt))
	b = binary.AppendUvarint(b, uint64(m.from))
	b = binary.AppendUvarint(b, uint64(m.n))
	return binary.AppendUvarint(b, uint64(m.estimate))
}

func (m requestMsg) encode() []byte {
	b := make([]byte, 0, 16+len(m.ids)*len(ID{}))
	b = append(b, version, kindRequest, bit(m.last))
	if m.last {
		b = binary.AppendUvarint(b, m.pushed)
	}
	return appendIDs(b, m.ids)
}

func (m rekeyMsg) encode() []byte {
	return binary.AppendUvarint(append(head(kindRekey), m.nonce[:]...), uint64(m.estimate))
}
func (m rekeyedMsg) encode() []byte { return append(head(kindRekeyed), m.nonce[:]...) }
func (m abortMsg) encode() []byte   { return append(head(kindAbort), byte(m.attempt)) }

func (m pageMsg) encode() []byte {
	b := make([]byte, 0, 16+len(m.ids)*len(ID{}))
	return appendIDs(append(b, version, kindPage, bit(m.last)), m.ids)
}

func (m wantMsg) encode() []byte {
	return append(binary.AppendUvarint(head(kindWant), uint64(m.n)), m.bits...)
}

func appendIDs(b []byte, ids []ID) []byte {
	b = binary.AppendUvarint(b, uint64(len(ids)))
	for i := range ids {
		b = append(b, ids[i][:]...)
	}
	return b
}

func bit(set bool) byte {
	if set {
		return 1
	}
	return 0
}

func (r *reader) flags(limit byte) byte {
	f := r.byte()
	if f > limit {
		r.fail("unknown flags")
		return 0
	}
	return f
}

// decode reads a message. Only what encode makes is accepted, byte for byte.
func decode(b []byte) (message, error) {
	if len(b) > MaxMessage {
		return nil, fmt.Errorf("%w: message of %d bytes", ErrProtocol, len(b))
	}
	if len(b) < 2 {
		return nil, fmt.Errorf("%w: message too short", ErrProtocol)
	}
	if b[0] != version {
		return nil, fmt.Errorf("%w: %d", ErrVersion, b[0])
	}
	r := &reader{b: b[2:]}
	m := r.body(b[1])
	if err := r.end(); err != nil {
		return nil, err
	}
	return m, nil
}

func (r *reader) body(kind byte) message {
	switch kind {
	case kindHello:
		m := hello{}
		resume := r.flags(1) == 1
		copy(m.digest[:], r.bytes(len(m.digest)))
		n := int64(r.uvarint(maxSet))
		m.counts = make([]int64, helloCounts)
		m.counts[0] = n
		for i := 1; i < helloCounts; i++ {
			m.counts[i] = r.count(n, i)
		}
		if resume {
			id := r.id()
			m.resume = &id
		}
		return m
	case kindEqual:
		return equalMsg{}
	case kindBulk:
		f := r.flags(3)
		if f == 0 {
			r.fail("bulk to nobody")
		}
		m := bulk{push: f&1 != 0, size: r.uvarint(maxSet)}
		if f&2 != 0 {
			id := r.id()
			m.want = &id
		}
		return m
	case kindSymbols:
		return r.symbols()
	case kindMore:
		return moreMsg{attempt: int(r.flags(1)), from: int(r.uvarint(MaxPrefix)), n: int(r.uvarint(maxRun)), estimate: int(r.uvarint(MaxPrefix))}
	case kindRequest:
		m := requestMsg{last: r.flags(1) == 1}
		if m.last {
			m.pushed = r.uvarint(maxSet)
		}
		m.ids = r.ids(int(r.uvarint(pageIDs)))
		return m
	case kindRekey:
		m := rekeyMsg{}
		copy(m.nonce[:], r.bytes(len(m.nonce)))
		m.estimate = int(r.uvarint(MaxPrefix))
		return m
	case kindRekeyed:
		m := rekeyedMsg{}
		copy(m.nonce[:], r.bytes(len(m.nonce)))
		return m
	case kindAbort:
		return abortMsg{attempt: int(r.flags(1))}
	case kindList:
		return listMsg{}
	case kindPage:
		m := pageMsg{last: r.flags(1) == 1}
		m.ids = r.ids(int(r.uvarint(pageIDs)))
		return m
	case kindWant:
		m := wantMsg{n: int(r.uvarint(pageIDs))}
		m.bits = bytes.Clone(r.bytes((m.n + 7) / 8))
		if rest := m.n % 8; r.err == nil && rest != 0 && m.bits[len(m.bits)-1]>>rest != 0 {
			r.fail("bits beyond the page")
		}
		return m
	}
	r.fail(fmt.Sprintf("unknown kind %d", kind))
	return nil
}

func (r *reader) symbols() message {
	m := symbolsMsg{attempt: int(r.flags(1)), from: int(r.uvarint(MaxPrefix)), left: int(r.uvarint(maxRun))}
	m.size = int64(r.uvarint(maxSet))
	n := int(r.uvarint(chunkSymbols))
	if n*(fixedSize+1) > len(r.b) {
		r.fail("message too short")
		return nil
	}
	m.symbols = make([]symbol, n)
	for i := range m.symbols {
		b := r.bytes(fixedSize)
		if b == nil {
			return nil
		}
		m.symbols[i].setFixed(b)
		m.symbols[i].count = r.count(m.size, m.from+i)
	}
	return m
}
