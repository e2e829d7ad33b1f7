package session

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/wire"
)

// A member whose view is narrower than the library reconciles within the
// intersection of both sides' views, and what lies outside does not cross the
// wire. Where it still holds an asset that an edit moved out of its view, it gets
// the header of the record alone: enough to see that its own is no longer the
// live one.

// tellView sends the node's view and puts the intersection in force.
func (l *link) tellView() error {
	enc, err := l.own.Encode()
	if err != nil {
		return err
	}
	if err := l.send(wire.AppendFrame(nil, frameView, enc)); err != nil {
		return err
	}
	return l.intersect()
}

func (l *link) learnView(enc []byte) error {
	v, err := filter.DecodeView(enc)
	if err != nil {
		return fmt.Errorf("%w: %w", errPeer, err)
	}
	l.mu.Lock()
	l.theirs = v
	l.mu.Unlock()
	l.told = true
	return l.intersect()
}

// intersect computes the view of the link. A round under an older one is given up.
func (l *link) intersect() error {
	v := append(append(filter.View(nil), l.own...), l.theirs...).Normalize()
	enc, err := v.Encode()
	if err != nil {
		return err
	}
	sum := sha256.Sum256(enc)
	l.round.end()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.view = v
	copy(l.viewID[:], sum[:])
	return nil
}

// current returns the view of the link, for goroutines other than its own.
func (l *link) current() filter.View {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.view
}

// push sends what is new live; what does not fit is left to a reconciliation.
func (l *link) push(ap replica.Applied) {
	recs := ap.Records
	if v := l.current(); len(v) > 0 && !ap.Control {
		recs = l.within(v, ap)
	}
	if len(recs) > 0 && !l.out.live(recs, false) {
		l.resync()
	}
}

// bare returns the live record of an asset that does not lie in the view of the
// link as the peer may see it: without its body, unless only the node's own view
// leaves it out. Who moves an asset out of its own view would else be the only one
// to know where to.
func (l *link) bare(e replica.Entry) record.Record {
	l.mu.Lock()
	theirs := l.theirs
	l.mu.Unlock()
	if e.Live.HasBody() && e.In(theirs) {
		return e.Live
	}
	return e.Live.WithoutBody()
}

// within returns what a peer with the view has to hear of: the new records of
// assets that lie in it, and the bare live record of those that left it.
func (l *link) within(v filter.View, ap replica.Applied) []record.Record {
	inside := make(map[[32]byte]bool)
	var out []record.Record
	for _, c := range ap.Changes {
		switch {
		case c.Entry.In(v):
			inside[c.Asset] = true
		case c.Before.In(v):
			out = append(out, l.bare(c.Entry))
		}
	}
	for _, r := range ap.Records {
		if inside[r.Subject] {
			out = append(out, r)
		}
	}
	return out
}

// visible returns a record as the peer may see it.
func (l *link) visible(ctx context.Context, r record.Record) (record.Record, error) {
	v := l.current()
	if len(v) == 0 {
		return r, nil
	}
	e, err := l.lib.Replica.Entry(ctx, can.Digest(r.Subject))
	if err != nil || e.In(v) {
		return r, err
	}
	return r.WithoutBody(), nil
}

// correct answers records of assets that do not lie in the peer's view any more,
// which it can't know, with the bare live record.
func (l *link) correct(ctx context.Context, recs []record.Record) error {
	v := l.view
	if len(v) == 0 {
		return nil
	}
	var out []record.Record
	done := make(map[[32]byte]bool)
	for _, r := range recs {
		if r.Kind.Control() || done[r.Subject] {
			continue
		}
		done[r.Subject] = true
		e, err := l.lib.Replica.Entry(ctx, can.Digest(r.Subject))
		if err != nil {
			if errors.Is(err, replica.ErrNoRecord) {
				continue
			}
			return err
		}
		if e.Known() && !e.In(v) && e.ID() != r.ID() {
			out = append(out, l.bare(e))
		}
	}
	if len(out) > 0 && !l.out.live(out, true) {
		l.resync()
	}
	return nil
}
