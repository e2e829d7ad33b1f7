package session

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/wire"
)

// A member whose view is narrower than the library reconciles within the
// intersection of both sides' views, and what lies outside does not cross the
// wire. What the peer has to hear of assets that move between views is for
// [replica.Sight] to say.

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
	l.theirs, l.told = v, true
	return l.intersect()
}

// intersect computes the view of the link. What was begun under an older one is given
// up.
func (l *link) intersect() error {
	s := replica.NewSight(l.own, l.theirs)
	enc, err := s.Link().Encode()
	if err != nil {
		return err
	}
	sum := sha256.Sum256(enc)
	l.round.end()
	l.handing.end()
	copy(l.viewID[:], sum[:])
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sight, l.sees = s, l.told
	return nil
}

// view returns what the peer may see, and whether it has said so yet.
func (l *link) view() (replica.Sight, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sight, l.sees
}

// push sends what is new live; what does not fit is left to a reconciliation. Before
// the peer told its view it is sent no assets: the first round is yet to come.
func (l *link) push(ap replica.Applied) {
	s, told := l.view()
	if !told && !ap.Control {
		return
	}
	if recs := s.Push(ap); len(recs) > 0 && !l.out.live(recs, false) {
		l.resync()
	}
}

// visible returns a record as the peer may see it.
func (l *link) visible(ctx context.Context, r record.Record) (record.Record, error) {
	s, _ := l.view()
	if len(s.Link()) == 0 {
		return r, nil
	}
	e, err := l.lib.Replica.Entry(ctx, can.Digest(r.Subject))
	if err != nil {
		return record.Record{}, err
	}
	return s.Show(r, e), nil
}

// correct answers records with what the peer, having sent them, can't know.
func (l *link) correct(ctx context.Context, recs []record.Record, touched []replica.Change) error {
	s, _ := l.view()
	out, err := s.Answer(recs, touched, func(d can.Digest) (replica.Entry, error) {
		return l.lib.Replica.Entry(ctx, d)
	})
	if err == nil && len(out) > 0 && !l.out.live(out, true) {
		l.resync()
	}
	return err
}
