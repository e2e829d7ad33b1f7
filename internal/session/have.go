package session

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/transport"
)

// Members say in their sessions which contents their CAN Services hold, when they
// are asked. It is nothing to be replicated: it changes without anybody's doing,
// and only who is connected can serve it.

const (
	maxAsk  = 1024 // digests in one question
	askWait = 10 * time.Second
)

func encodeAsk(seq uint32, ds []can.Digest) []byte {
	b := wire.AppendU16(wire.AppendU32(nil, seq), uint16(len(ds)))
	for i := range ds {
		b = append(b, ds[i][:]...)
	}
	return wire.AppendFrame(nil, frameAsk, b)
}

func decodeAsk(b []byte) (seq uint32, ds []can.Digest, err error) {
	rd := wire.NewReader(b)
	seq = rd.U32()
	n := rd.Count(maxAsk)
	if rd.Err() == nil && rd.Len() != 32*n {
		rd.Fail("%d bytes for %d digests", rd.Len(), n)
	}
	for range n {
		if rd.Err() != nil {
			break
		}
		ds = append(ds, rd.B32())
	}
	return seq, ds, rd.End()
}

// An answer has a bit for each digest, the first in the lowest bit of the first
// byte.
func encodeHave(seq uint32, have []bool) []byte { return encodeBits(frameHave, seq, have) }

func encodeBits(typ uint8, seq uint32, have []bool) []byte {
	bits := make([]byte, (len(have)+7)/8)
	for i, h := range have {
		if h {
			bits[i/8] |= 1 << (i % 8)
		}
	}
	return wire.AppendFrame(nil, typ, append(wire.AppendU32(nil, seq), bits...))
}

func decodeHave(b []byte) (seq uint32, bits []byte, err error) {
	rd := wire.NewReader(b)
	seq, bits = rd.U32(), append([]byte(nil), rd.Rest()...)
	if len(bits) > maxAsk/8 {
		rd.Fail("%d bytes of answer", len(bits))
	}
	return seq, bits, rd.End()
}

// asks are the questions of a link that wait for an answer.
type asks struct {
	mu   sync.Mutex
	seq  uint32
	open map[uint32]chan []byte
}

func (a *asks) begin() (seq uint32, answer chan []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open == nil {
		a.open = make(map[uint32]chan []byte)
	}
	a.seq++
	answer = make(chan []byte, 1)
	a.open[a.seq] = answer
	return a.seq, answer
}

func (a *asks) end(seq uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, seq)
}

func (a *asks) answer(seq uint32, bits []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.open[seq]; c != nil {
		c <- bits
		delete(a.open, seq)
	}
}

// Have asks every member that the library is shared with now which of the contents
// it holds, and returns who said so for each. Members that do not answer within
// some seconds count as not having them.
func (m *Manager) Have(ctx context.Context, lib [32]byte, ds []can.Digest) ([][]transport.PeerID, error) {
	out := make([][]transport.PeerID, len(ds))
	var mu sync.Mutex
	err := m.each(ctx, lib, ds, func(peer transport.PeerID, have []bool) {
		mu.Lock()
		defer mu.Unlock()
		for i, h := range have {
			if h {
				out[i] = append(out[i], peer)
			}
		}
	})
	return out, err
}

// each asks every member that the library is shared with now, and calls fn, from
// several goroutines, with what each said; nil if it did not answer.
func (m *Manager) each(ctx context.Context, lib [32]byte, ds []can.Digest, fn func(transport.PeerID, []bool)) error {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	var wg sync.WaitGroup
	for _, p := range m.places(lib) {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			defer context.AfterFunc(p.ctx, cancel)() // who is gone does not answer
			fn(p.s.peer, p.link.ask(ctx, ds))
		})
	}
	wg.Wait()
	return context.Cause(m.ctx)
}

// ask returns which of the contents the peer says that it holds, nil if it does not
// answer in time or there is nothing to ask. What lies outside the view of the link is not asked for.
func (l *link) ask(ctx context.Context, ds []can.Digest) []bool {
	select {
	case <-l.heard: // the peer's view
	case <-ctx.Done():
		return nil
	}
	out := make([]bool, len(ds))
	at, err := l.inView(ctx, ds)
	if err != nil || len(at) == 0 {
		return nil
	}
	for part := range slices.Chunk(at, maxAsk) {
		asked := make([]can.Digest, len(part))
		for i, k := range part {
			asked[i] = ds[k]
		}
		bits := l.askPart(ctx, asked)
		if bits == nil {
			return nil
		}
		for i, k := range part {
			out[k] = i/8 < len(bits) && bits[i/8]&(1<<(i%8)) != 0
		}
	}
	return out
}

// inView returns the indices of the contents that lie in the view of the link.
func (l *link) inView(ctx context.Context, ds []can.Digest) (at []int, err error) {
	s, _ := l.view()
	v := s.Link()
	for i, d := range ds {
		if len(v) > 0 {
			e, err := l.lib.Replica.Entry(ctx, d)
			if err != nil || !e.In(v) {
				if err != nil && !errors.Is(err, replica.ErrNoRecord) {
					return nil, err
				}
				continue
			}
		}
		at = append(at, i)
	}
	return at, nil
}

func (l *link) askPart(ctx context.Context, ds []can.Digest) []byte {
	seq, answer := l.asks.begin()
	defer l.asks.end(seq)
	if !l.out.frame(encodeAsk(seq, ds)) {
		return nil
	}
	select {
	case bits := <-answer:
		return bits
	case <-ctx.Done():
		return nil
	}
}

// reply answers a question.
func (l *link) reply(ctx context.Context, payload []byte) error {
	seq, ds, err := decodeAsk(payload)
	if err != nil {
		return foreign(err)
	}
	have := make([]bool, len(ds))
	if !l.pace.asks.AllowN(time.Now(), len(ds)) {
		return l.send(encodeHave(seq, have))
	}
	for i, d := range ds {
		if have[i], err = l.lib.Have(ctx, d); err != nil {
			return err
		}
	}
	return l.send(encodeHave(seq, have))
}
