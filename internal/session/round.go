package session

import (
	"context"
	"iter"
	"time"

	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/reconcile"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
)

// round is one reconciliation of one set.
type round struct {
	n       uint32
	control bool
	s       *reconcile.Session
	done    bool // the session ended on our side
	caught  bool // the peer pushed all its surplus
	bulk    bool
	gave    bool  // something goes to the peer
	short   bool  // not all that the peer lacks had room in the outbox
	records int64 // stored when the round began
	over    bool
	moved   time.Time // when something of it came last
	nextID  func() (record.ID, error, bool)
	stop    func()
}

func (r *round) end() {
	if r.stop != nil {
		r.stop()
	}
	r.stop, r.nextID, r.s, r.over = nil, nil, nil, true
}

// page reads the next ids of a scan, going on from the last page where it can.
func (r *round) page(ctx context.Context, rep *replica.Replica, view filter.View, want reconcile.Scan) (ids []reconcile.ID, end bool, err error) {
	if want.From == (reconcile.ID{}) || r.nextID == nil {
		if r.stop != nil {
			r.stop()
		}
		r.nextID, r.stop = iter.Pull2(rep.IDs(ctx, r.control, view))
	}
	for len(ids) < want.Limit {
		id, err, ok := r.nextID()
		if err != nil {
			return nil, false, err
		}
		if !ok {
			return ids, true, nil
		}
		if id.Compare(record.ID(want.From)) >= 0 {
			ids = append(ids, id)
		}
	}
	return ids, false, nil
}
