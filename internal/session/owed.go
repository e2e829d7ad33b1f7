package session

import (
	"context"
	"errors"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/reconcile"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/wire"
)

// What a node with a narrower view owes (see [replica.Replica.Owed]) it offers by
// ids after each reconciliation of the assets, if the peer sees the whole library.
// The peer answers with what it keeps, is sent the rest, and is asked about that once
// more. There is one offer at a time; one that comes before the last was answered takes
// its place.

// maxOffer is how many ids an offer has.
const maxOffer = 1024

func encodeOffer(seq uint32, ids []record.ID) []byte {
	b := wire.AppendU16(wire.AppendU32(nil, seq), uint16(len(ids)))
	for i := range ids {
		b = append(b, ids[i][:]...)
	}
	return wire.AppendFrame(nil, frameOffer, b)
}

func decodeOffer(b []byte) (seq uint32, ids []record.ID, err error) {
	seq, ds, err := decodeAsk(b)
	for _, d := range ds {
		ids = append(ids, record.ID(d))
	}
	return seq, ids, err
}

// handing is what the node offers of what it owes, one question at a time. Between
// questions it holds the place it has come to and nothing of the store.
type handing struct {
	debts uint64 // what is owed when the pass began, as Debts tells
	retry bool   // the peer did not take everything
	busy  bool   // a pass is on its way
	last  record.ID
	seq   uint32
	ids   []record.ID // asked about
	sent  bool        // they were sent, and are asked about again
	asked time.Time   // when the last question was made
}

// end gives up the pass; the next begins anew.
func (h *handing) end() { h.busy, h.ids, h.debts = false, nil, 0 }

// offer begins to offer what is owed, unless that was done since it changed.
func (l *link) offer(ctx context.Context) error {
	h := &l.handing
	debts := l.lib.Replica.Debts()
	if !l.told || h.busy || debts == h.debts && !h.retry {
		return nil
	}
	h.debts, h.retry, h.last = debts, false, record.ID{}
	return l.offerMore(ctx)
}

// offerMore asks about the next ids of the pass. What begins to be owed meanwhile below
// those changes Debts, and so is offered by another pass.
func (l *link) offerMore(ctx context.Context) error {
	h := &l.handing
	h.busy, h.ids, h.sent = false, nil, false
	s, _ := l.view()
	for id, err := range l.lib.Replica.Owed(ctx, s.Theirs(), h.last) {
		if err != nil {
			return err
		}
		if id == h.last {
			continue
		}
		if h.ids = append(h.ids, id); len(h.ids) == maxOffer {
			break
		}
	}
	if len(h.ids) == 0 {
		return nil
	}
	h.busy, h.last, h.asked = true, h.ids[len(h.ids)-1], time.Now()
	h.seq++
	return l.send(encodeOffer(h.seq, h.ids))
}

// unanswered reports whether the peer owes an answer to an offer for too long. Records
// that go out before the offer is made again count as what is waited for.
func (l *link) unanswered() bool {
	h := &l.handing
	return h.busy && time.Since(h.asked) > roundStall && time.Since(time.Unix(0, l.handed.Load())) > roundStall
}

// learnKept goes on with what the peer keeps of an offer.
func (l *link) learnKept(ctx context.Context, payload []byte) error {
	seq, bits, err := decodeHave(payload)
	if err != nil {
		return foreign(err)
	}
	h := &l.handing
	if seq != h.seq || !h.busy {
		return nil // of a pass given up
	}
	var kept, rest []record.ID
	for i, id := range h.ids {
		if i/8 < len(bits) && bits[i/8]&(1<<(i%8)) != 0 {
			kept = append(kept, id)
		} else {
			rest = append(rest, id)
		}
	}
	if len(kept) > 0 {
		if err := l.lib.Replica.Paid(ctx, kept); err != nil {
			return err
		}
	}
	if len(rest) == 0 || h.sent {
		h.retry = h.retry || len(rest) > 0
		return l.offerMore(ctx)
	}
	h.seq++
	h.ids, h.sent, h.asked = rest, true, time.Now()
	ids := make([]reconcile.ID, len(rest))
	for i := range rest {
		ids[i] = reconcile.ID(rest[i])
	}
	if !l.out.order(order{hand: true, ids: ids, then: encodeOffer(h.seq, rest)}) {
		return errPeer
	}
	return nil
}

// hand returns what to send for an owed record.
func (l *link) hand(ctx context.Context, id record.ID) ([]record.Record, error) {
	r, err := l.lib.Replica.Record(ctx, id, false)
	if errors.Is(err, replica.ErrNoRecord) {
		return nil, nil // replaced since
	}
	if err != nil {
		return nil, err
	}
	e, err := l.lib.Replica.Entry(ctx, can.Digest(r.Subject))
	if err != nil {
		return nil, err
	}
	s, _ := l.view()
	return s.Hand(r, e), nil
}

// asked takes an offer of the peer. One that asks for more than is looked up at a time
// waits, as long as it is the last.
func (l *link) asked(ctx context.Context, payload []byte) error {
	seq, ids, err := decodeOffer(payload)
	if err != nil {
		return foreign(err)
	}
	if l.asking == nil && l.pace.offers.AllowN(time.Now(), len(ids)) {
		return l.keep(ctx, seq, ids)
	}
	l.asking = &question{seq, ids}
	if l.askingC == nil {
		l.askingC = time.After(offerWait)
	}
	return nil
}

// question is an offer of the peer that waits for its answer.
type question struct {
	seq uint32
	ids []record.ID
}

// keepWaiting answers the offer that waits, if that may be now.
func (l *link) keepWaiting(ctx context.Context) error {
	q := l.asking
	if !l.pace.offers.AllowN(time.Now(), len(q.ids)) {
		l.askingC = time.After(offerWait)
		return nil
	}
	l.asking, l.askingC = nil, nil
	return l.keep(ctx, q.seq, q.ids)
}

// keep answers the peer's offer: what is kept, and what came of the last offer, since
// what is not here of that was replaced by its author, or is nobody's to keep.
func (l *link) keep(ctx context.Context, seq uint32, ids []record.ID) error {
	kept, err := l.lib.Replica.Keeps(ctx, ids)
	if err == nil {
		err = l.lib.Replica.Durable(ctx) // the peer forgets what it owes
	}
	if err != nil {
		return err
	}
	offered := make(map[record.ID]bool)
	for i, id := range ids {
		if !kept[i] {
			kept[i] = l.offered[id]
			offered[id] = false
		}
	}
	l.offered = offered
	return l.send(encodeBits(frameKept, seq, kept))
}

// took notes which of the offered records came and need not come again: all but those
// that are too early or whose author is not known yet.
func (l *link) took(recs []record.Record, refused []replica.Refused) {
	if len(l.offered) == 0 {
		return
	}
	again := make(map[record.ID]bool, len(refused))
	for _, r := range refused {
		again[r.ID] = errors.Is(r.Err, control.ErrUnknownCert) || errors.Is(r.Err, replica.ErrDeferred)
	}
	for _, r := range recs {
		id := r.ID()
		if _, ok := l.offered[id]; ok && !again[id] && !bare(r) {
			l.offered[id] = true
		}
	}
}
