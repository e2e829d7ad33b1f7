package replica

import (
	"context"
	"fmt"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/kv"
	"github.com/cansync/cansync/internal/record"
)

// move is an asset that a new filter or view brings elsewhere.
type move struct {
	asset can.Digest
	queue bool // it enters or leaves the library as the node sees it
	owe   []record.Record
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
	counts, widens, err := r.moveAll(ctx, was, is)
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
		counts.Queued, counts.Trashed, counts.TrashedBytes = t.counts.Queued, t.counts.Trashed, t.counts.TrashedBytes
		t.counts = counts
		if err := t.txn.Put(ctx, r.key("f"), enc); err != nil {
			return err
		}
		if err := t.txn.Put(ctx, r.key("v"), view); err != nil {
			return err
		}
		if widens {
			if err := t.txn.Put(ctx, r.key("w"), []byte{1}); err != nil {
				return err
			}
		}
		return t.txn.Put(ctx, r.key("c"), t.counts.encode(t.clock))
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.filter, r.own = next, own
	r.mu.Unlock()
	// Only now: under the old view, had it stayed, these were still owed. To owe too
	// many for a while is harmless, so a failure here does not undo what is in force.
	if err := r.settle(ctx); err != nil {
		r.log.Warn("records still owed that the view now holds", "error", err)
		r.again()
	}
	return nil
}

// settle ends what is owed of assets that lie in the own view, as a view that was widened
// has it. The row w says that it has yet to be done. It is called with the writer held.
func (r *Replica) settle(ctx context.Context) error {
	due, err := r.opts.Store.Has(ctx, r.key("w"))
	if err != nil || !due {
		return err
	}
	is := r.look()
	var paid []record.ID
	flush := func(last bool) error {
		err := r.updateLocked(ctx, func(t *tx) error {
			for _, id := range paid {
				if err := t.txn.Delete(ctx, r.key("o", kv.Bin(id[:]))); err != nil {
					return err
				}
			}
			if last {
				return t.txn.Delete(ctx, r.key("w"))
			}
			return nil
		})
		paid = paid[:0]
		return err
	}
	for e, err := range kv.Scan(ctx, r.opts.Store, r.key("o"), false) {
		if err != nil {
			return err
		}
		id, err := kv.Last32(e.Key)
		if err != nil {
			return err
		}
		if len(is.own) > 0 {
			if len(e.Value) != len(can.Digest{}) {
				return fmt.Errorf("replica: row of what is owed has %d bytes", len(e.Value))
			}
			rows, err := r.rows(ctx, r.opts.Store, can.Digest(e.Value))
			if err != nil {
				return err
			}
			if !is.entry(can.Digest(e.Value), rows).In(is.own) {
				continue
			}
		}
		if paid = append(paid, id); len(paid) >= txnRecords {
			if err := flush(false); err != nil {
				return err
			}
		}
	}
	return flush(true)
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
	if err == nil {
		err = r.settle(ctx)
	}
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

// moveAll goes through all assets before the new lens is in force, and writes down
// what moves. It returns the counts under the new lens, of which Queued is not set,
// and whether assets enter the view.
func (r *Replica) moveAll(ctx context.Context, was, is lens) (counts Counts, widens bool, err error) {
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
		m := move{asset: asset, queue: before.Member != after.Member}
		switch in, stays := before.In(was.own), after.In(is.own); {
		case in && !stays:
			m.owe = whole
		case !in && stays:
			widens = true
		}
		if !m.queue && len(m.owe) == 0 {
			continue
		}
		moves = append(moves, m)
		if size += 1 + len(m.owe); size >= txnRecords {
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
	}
	return nil
}
