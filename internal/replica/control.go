package replica

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	ds "github.com/ipfs/go-datastore"

	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/kv"
	"github.com/cansync/cansync/internal/reconcile"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/transport"
)

// applyControl stores control records, also those whose certificate is not known
// yet: they begin to count when it arrives. It is called with the writer held.
func (r *Replica) applyControl(ctx context.Context, recs []record.Record, from transport.PeerID, res *Result) error {
	now := r.opts.Now()
	var fresh []record.Record
	r.mu.Lock()
	for _, rec := range recs {
		id := rec.ID()
		if r.control.Has(id) {
			continue
		}
		if err := r.refused[id]; err != nil {
			res.Refused = append(res.Refused, Refused{id, err})
			continue
		}
		if record.Deferred(rec.Header, now) {
			res.Refused = append(res.Refused, Refused{id, ErrDeferred})
			continue
		}
		fresh = append(fresh, rec)
	}
	r.mu.Unlock()
	if len(fresh) == 0 {
		return nil
	}
	// The state is changed first, since only it can tell what is acceptable; what
	// it accepted and the store did not keep is taken back.
	var added []record.Record
	var refused []Refused
	removed := make(map[record.ID]bool)
	r.mu.Lock()
	for _, rec := range fresh {
		ch, err := r.control.Apply(rec)
		if err != nil {
			refused = append(refused, Refused{rec.ID(), err})
			continue
		}
		added = append(added, ch.Added...)
		for _, id := range ch.Removed {
			removed[id] = true
		}
	}
	res.Refused = append(res.Refused, refused...)
	if len(added) > 0 {
		clear(r.refused) // what was refused may count now
	} else {
		for _, f := range refused {
			r.refuseLocked(f.ID, f.Err)
		}
	}
	r.mu.Unlock()
	if len(added) == 0 {
		return nil
	}
	clock := record.Clock(0)
	err := kv.Update(ctx, r.opts.Store, func(txn ds.Txn) error {
		for id := range removed {
			if err := txn.Delete(ctx, r.key("k", kv.Bin(id[:]))); err != nil {
				return err
			}
		}
		for _, rec := range added {
			clock = max(clock, rec.Clock)
			id := rec.ID()
			if removed[id] {
				continue
			}
			if err := txn.Put(ctx, r.key("k", kv.Bin(id[:])), rec.Encode()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		r.reloadControl(ctx)
		return fmt.Errorf("replica: store control records: %w", err)
	}
	res.New += len(added)
	r.mu.Lock()
	r.clock = max(r.clock, clock)
	for _, rec := range added {
		r.controlID.Insert(rec.ID())
	}
	for id := range removed {
		r.controlID.Remove(id)
	}
	r.mu.Unlock()
	// Not with the caller's context: the peer that sent the description may go, and
	// the filter that it ends may not stay in force.
	whole, done := r.whole(ctx)
	defer done()
	_, err = r.catchUp(whole)
	if err != nil {
		r.again()
	}
	r.notify(Applied{Records: added, Control: true, From: from})
	return err
}

// readControl rebuilds the state and its coded symbols from what the store holds.
func (r *Replica) readControl(ctx context.Context) (*control.State, *reconcile.Set, error) {
	state := control.New(r.opts.Library)
	set := reconcile.NewSet(r.opts.ReconcileKey, controlPrefix)
	var recs []record.Record
	for e, err := range kv.Scan(ctx, r.opts.Store, r.key("k"), false) {
		if err != nil {
			return nil, nil, fmt.Errorf("replica: read control records: %w", err)
		}
		rec, err := record.Decode(e.Value)
		if err != nil {
			r.log.Warn("control record unreadable, to be fetched again", "key", e.Key, "error", err)
			continue
		}
		recs = append(recs, rec)
	}
	// By their clocks, so that hardly any comes before one that it rests on: of those
	// that have to wait, the state keeps a few only. Clocks may be wrong.
	slices.SortStableFunc(recs, func(a, b record.Record) int { return cmp.Compare(a.Clock, b.Clock) })
	for before := -1; state.Len() > before; {
		before = state.Len()
		for _, rec := range recs {
			if _, err := state.Apply(rec); err != nil && before > 0 {
				r.log.Warn("control record no longer counts", "record", rec.ID().String(), "error", err)
			}
		}
	}
	for rec := range state.Records() {
		set.Insert(rec.ID())
	}
	return state, set, nil
}

func (r *Replica) loadControl(ctx context.Context) error {
	state, set, err := r.readControl(ctx)
	if err != nil {
		return err
	}
	r.control, r.controlID = state, set
	clear(r.refused)
	b, err := kv.Get(ctx, r.opts.Store, r.key("f"))
	if err == nil && b != nil {
		r.filter, err = filter.DecodeView(b)
	}
	if err != nil {
		return err
	}
	b, err = kv.Get(ctx, r.opts.Store, r.key("v"))
	if err == nil && b != nil {
		r.own, err = filter.Decode(b)
	}
	return err
}

// wanted returns the filter that follows from the description and an own view. It
// is called with mu held.
func (r *Replica) wanted(own filter.Filter) filter.View {
	v := filter.View{own}
	if d, _, ok := r.control.Description(); ok {
		v = append(v, d.Filter)
	}
	return v.Normalize()
}

// reloadControl brings the state back to what the store holds.
func (r *Replica) reloadControl(ctx context.Context) {
	state, set, err := r.readControl(context.WithoutCancel(ctx))
	if err != nil {
		r.log.Error("control set not read again", "error", err)
		return
	}
	r.mu.Lock()
	r.control, r.controlID = state, set
	r.mu.Unlock()
}

// whole returns a context for what has to be done to its end once it was begun; it
// ends with the replica only, which takes it up again when it is opened.
func (r *Replica) whole(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		select {
		case <-r.closed:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
