package replica

import (
	"context"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/kv"
	"github.com/cansync/cansync/internal/record"
)

// move is an asset that a new filter or view brings elsewhere.
type move struct {
	asset       can.Digest
	queue       bool // it enters or leaves the library as the node sees it
	owe, cancel []record.Record
}

// refilter puts a new filter and a new own view in force: it counts again, queues
// every asset that enters or leaves the library, and owes the records of those that
// leave the view. It is called with the writer held. Done again after an error, it
// does what is left.
func (r *Replica) refilter(ctx context.Context, own filter.Filter, next filter.View) error {
	was, is := r.look(), lens{filter: next}
	if !own.IsZero() {
		is.own = filter.View{own}
	}
	counts, widens, err := r.moveAll(ctx, was, is, false)
	if err != nil {
		return err
	}
	enc, err := next.Encode()
	if err != nil {
		return err
	}
	view, err := own.Encode()
	if err != nil {
		return err
	}
	err = r.updateLocked(ctx, func(t *tx) error {
		counts.Queued = t.counts.Queued
		t.counts = counts
		if err := t.txn.Put(ctx, r.key("f"), enc); err != nil {
			return err
		}
		if err := t.txn.Put(ctx, r.key("v"), view); err != nil {
			return err
		}
		return t.txn.Put(ctx, r.key("c"), t.counts.encode(t.clock))
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.filter, r.own = next, own
	r.mu.Unlock()
	if !widens {
		return nil
	}
	// Only now: under the old view, had it stayed, these were still owed. To owe too
	// many is harmless, so a failure here does not undo what is in force.
	if _, _, err := r.moveAll(ctx, was, is, true); err != nil {
		r.log.Warn("records still owed that the view now holds", "error", err)
	}
	return nil
}

// refilterAgain is how long a filter that could not be put in force waits, as for space.
const refilterAgain = time.Minute

// catchUp puts the filter in force that follows from the control state, if that is
// another. It is called with the writer held.
func (r *Replica) catchUp(ctx context.Context) (changed bool, err error) {
	r.mu.Lock()
	own, next := r.own, r.wanted(r.own)
	changed = !next.Equal(r.filter)
	r.mu.Unlock()
	if !changed {
		return false, nil
	}
	return true, r.refilter(ctx, own, next)
}

// again has what failed tried again until it is done or the replica closes. It is
// called with the writer held.
func (r *Replica) again() {
	r.mu.Lock()
	begun := r.retrying
	r.retrying = true
	r.mu.Unlock()
	if begun {
		return
	}
	r.wg.Go(func() {
		for {
			wait := time.NewTimer(refilterAgain)
			select {
			case <-r.closed:
				wait.Stop()
				return
			case <-wait.C:
			}
			if r.tryAgain() {
				return
			}
		}
	})
}

func (r *Replica) tryAgain() (over bool) {
	if r.lock(context.Background()) != nil {
		return true // closed
	}
	defer r.unlock()
	ctx, done := r.whole(context.Background())
	defer done()
	changed, err := r.catchUp(ctx)
	if err != nil {
		r.log.Warn("filter not yet in force", "error", err)
		return false
	}
	r.mu.Lock()
	r.retrying = false
	r.mu.Unlock()
	if changed {
		r.notify(Applied{Control: true})
	}
	return true
}

// moveAll goes through all assets and writes down what moves: before the new lens is
// in force what is queued and owed, and once it is, what is owed no more. It returns
// the counts under the new lens, of which Queued is not set, and whether assets
// enter the view.
func (r *Replica) moveAll(ctx context.Context, was, is lens, inForce bool) (counts Counts, widens bool, err error) {
	var moves []move
	size := 0
	flush := func() error {
		err := r.updateLocked(ctx, func(t *tx) error { return t.move(ctx, moves) })
		moves, size = moves[:0], 0
		return err
	}
	for e, err := range kv.Scan(ctx, r.opts.Store, r.key("a"), false) {
		if err != nil {
			return counts, widens, err
		}
		asset, err := kv.Last32(e.Key)
		if err != nil {
			return counts, widens, err
		}
		rows, err := decodeRows(e.Value)
		if err != nil {
			return counts, widens, err
		}
		whole := whole(rows)
		before, after := was.entry(asset, rows), is.entry(asset, rows)
		counts.Records += int64(len(whole))
		counts.replace(Entry{}, after)
		m := move{asset: asset, queue: !inForce && before.Member != after.Member}
		switch in, stays := before.In(was.own), after.In(is.own); {
		case in && !stays && !inForce:
			m.owe = whole
		case !in && stays:
			widens = true
			if inForce {
				m.cancel = whole
			}
		}
		if !m.queue && len(m.owe)+len(m.cancel) == 0 {
			continue
		}
		moves = append(moves, m)
		if size += 1 + len(m.owe) + len(m.cancel); size >= txnRecords {
			if err := flush(); err != nil {
				return counts, widens, err
			}
		}
	}
	return counts, widens, flush()
}

func (t *tx) move(ctx context.Context, moves []move) error {
	for _, m := range moves {
		if m.queue {
			if err := t.enqueue(ctx, m.asset, true); err != nil {
				return err
			}
		}
		for _, rec := range m.owe {
			if err := t.owe(ctx, rec); err != nil {
				return err
			}
		}
		for _, rec := range m.cancel {
			if err := t.unowe(ctx, rec); err != nil {
				return err
			}
		}
	}
	return nil
}
