package session

import (
	"context"
	"errors"
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
	maxAsk  = 1024             // digests in one question
	askWait = 10 * time.Second // for its answer
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

// asks is the question of a link that waits for an answer, one at a time.
type asks struct {
	turn chan struct{} // holds who asks

	mu     sync.Mutex
	seq    uint32
	answer chan []byte // nil when nothing is open
}

func newAsks() asks { return asks{turn: make(chan struct{}, 1)} }

func (a *asks) begin() (seq uint32, answer chan []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seq++
	a.answer = make(chan []byte, 1)
	return a.seq, a.answer
}

func (a *asks) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = nil
}

// answered takes an answer, of which there is one at most to a question.
func (a *asks) answered(seq uint32, bits []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.answer != nil && a.seq == seq {
		a.answer <- bits
		a.answer = nil
	}
}

// said is what a member said about a content.
type said uint8

const (
	saidNothing said = iota // it was not asked, or did not answer
	saidNo
	saidYes
)

// Have asks every member that the library is shared with now which of the contents
// it holds, and returns who said so for each. A member that leaves a question
// without an answer for 10 seconds is asked no more; neither is one that takes twice
// as long as the pace of the protocol allows.
func (m *Manager) Have(ctx context.Context, lib [32]byte, ds []can.Digest) ([][]transport.PeerID, error) {
	ctx, cancel := context.WithTimeout(ctx, askingWait(len(ds)))
	defer cancel()
	out := make([][]transport.PeerID, len(ds))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, p := range m.places(lib) {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			defer context.AfterFunc(p.ctx, cancel)() // who is gone does not answer
			have, _ := p.link.ask(ctx, ds)
			mu.Lock()
			defer mu.Unlock()
			for i, h := range have {
				if h == saidYes {
					out[i] = append(out[i], p.s.peer)
				}
			}
		})
	}
	wg.Wait()
	return out, context.Cause(m.ctx)
}

// askingWait is how long to ask a member about so many contents at most.
func askingWait(n int) time.Duration {
	return askWait + 2*time.Duration(n)*(time.Second/askRate)
}

// hear waits until the peer told its view.
func (l *link) hear(ctx context.Context) bool {
	select {
	case <-l.heard:
		return true
	case <-ctx.Done():
		return false
	}
}

// ask returns what the peer says of each content, and false if it left a question
// without an answer, ctx ended, or the store failed: then the rest was not asked.
func (l *link) ask(ctx context.Context, ds []can.Digest) (have []said, ok bool) {
	have = make([]said, len(ds))
	if !l.hear(ctx) {
		return have, false
	}
	for at := 0; at < len(ds); {
		// Only what is asked next is looked up.
		part, indices, err := l.askable(ctx, ds, &at)
		if err != nil {
			return have, false
		}
		if len(part) == 0 {
			continue
		}
		bits := l.askPart(ctx, part)
		if bits == nil {
			return have, false
		}
		for k, i := range indices {
			have[i] = saidNo
			if bits[k/8]&(1<<(k%8)) != 0 {
				have[i] = saidYes
			}
		}
	}
	return have, true
}

// askable returns the contents from at on that may be asked about in one question,
// and where they stand. A peer with a narrower view is asked about what lies in it,
// and what it announced itself: it did not want to hear of anything else.
func (l *link) askable(ctx context.Context, ds []can.Digest, at *int) (part []can.Digest, indices []int, err error) {
	s, _ := l.view()
	theirs := s.Theirs()
	for ; *at < len(ds) && len(part) < maxAsk; *at++ {
		d := ds[*at]
		if len(theirs) > 0 {
			e, err := l.lib.Replica.Entry(ctx, d)
			if err != nil && !errors.Is(err, replica.ErrNoRecord) {
				return nil, nil, err
			}
			if (err != nil || !e.In(theirs)) && !l.announced(ctx, d) {
				continue
			}
		}
		part, indices = append(part, d), append(indices, *at)
	}
	return part, indices, nil
}

// announced reports whether the live record of an asset is the peer's own.
func (l *link) announced(ctx context.Context, d can.Digest) bool {
	if l.lib.Author == nil {
		return false
	}
	id, in, err := l.lib.Author(ctx, d)
	return err == nil && in && id == l.peer
}

// askPart asks one question and returns the answer, nil if none came in time.
func (l *link) askPart(ctx context.Context, ds []can.Digest) []byte {
	select {
	case l.asks.turn <- struct{}{}:
		defer func() { <-l.asks.turn }()
	case <-ctx.Done():
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	seq, answer := l.asks.begin()
	defer l.asks.end()
	if !l.out.frame(encodeAsk(seq, ds)) {
		return nil
	}
	select {
	case bits := <-answer:
		if len(bits) != (len(ds)+7)/8 {
			return nil // of another question
		}
		return bits
	case <-ctx.Done():
		return nil
	}
}

// query is a question of the peer about contents that waits for its answer.
type query struct {
	seq uint32
	ds  []can.Digest
}

// questioned takes a question of the peer. One that asks for more than is looked up
// at a time waits, as long as it is the last: a no would be untrue.
func (l *link) questioned(ctx context.Context, payload []byte) error {
	seq, ds, err := decodeAsk(payload)
	if err != nil {
		return foreign(err)
	}
	q := query{seq, ds}
	if l.query == nil && l.pace.asks.AllowN(time.Now(), len(ds)) {
		return l.reply(ctx, q)
	}
	l.query = &q
	if l.queryC == nil {
		l.queryC = time.After(askLater)
	}
	return nil
}

// replyWaiting answers the question that waits, if that may be now.
func (l *link) replyWaiting(ctx context.Context) error {
	q := *l.query
	if !l.pace.asks.AllowN(time.Now(), len(q.ds)) {
		l.queryC = time.After(askLater)
		return nil
	}
	l.query, l.queryC = nil, nil
	return l.reply(ctx, q)
}

// reply answers a question.
func (l *link) reply(ctx context.Context, q query) error {
	have := make([]bool, len(q.ds))
	var err error
	for i, d := range q.ds {
		if have[i], err = l.lib.Have(ctx, d); err != nil {
			return err
		}
	}
	return l.send(encodeHave(q.seq, have))
}
