package replica

import (
	"context"
	"iter"

	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/kv"
	"github.com/cansync/cansync/internal/record"
)

// A member with a narrower view reconciles what lies in it. A whole record of an
// asset outside, which it signed itself or held before its view changed, is in no
// set of its links, and others may not have it: the member owes it, until somebody who
// sees the whole library says to have it. Owed records are kept in the
// room o by their ids and written in the transactions that make them so.

// settleDebt brings what is owed of an asset up to date with what was stored of it.
func (t *tx) settleDebt(ctx context.Context, c *change) error {
	if len(t.lens.own) == 0 {
		return nil // nothing lies outside
	}
	was, is := c.before.In(t.lens.own), c.entry.In(t.lens.own)
	switch {
	case is && was:
	case is && c.before.Known():
		for _, rec := range whole(c.rows) {
			if err := t.unowe(ctx, rec); err != nil {
				return err
			}
		}
	case !is && (was || c.gain):
		had := make(map[record.ID]bool, len(c.had))
		for _, rec := range whole(c.had) {
			had[rec.ID()] = true
		}
		for _, rec := range whole(c.rows) {
			if was || !had[rec.ID()] {
				if err := t.owe(ctx, rec); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (t *tx) owe(ctx context.Context, rec record.Record) error {
	id := rec.ID()
	t.owed = true
	return t.txn.Put(ctx, t.r.key("o", kv.Bin(id[:])), rec.Subject[:])
}

func (t *tx) unowe(ctx context.Context, rec record.Record) error {
	id := rec.ID()
	return t.txn.Delete(ctx, t.r.key("o", kv.Bin(id[:])))
}

// forgive ends what was owed of a record that is replaced.
func (t *tx) forgive(ctx context.Context, rec record.Record) error {
	if len(t.lens.own) == 0 {
		return nil
	}
	return t.unowe(ctx, rec)
}

// Debts changes when records begin to be owed, so that what was offered to a peer
// need not be gone through again as long as it stays the same.
func (r *Replica) Debts() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.debts
}

// Owed yields, as of one moment and in ascending order from an id on, the ids of the
// owed records that go to a peer which told that view: all if it sees the whole library,
// else none. Of two with narrower views each could find that the other should keep a
// record. The loop holds a transaction of the store, so it must not wait for a peer.
func (r *Replica) Owed(ctx context.Context, theirs filter.View, from record.ID) iter.Seq2[record.ID, error] {
	return func(yield func(record.ID, error) bool) {
		if len(theirs) > 0 {
			return
		}
		for e, err := range kv.ScanFrom(ctx, r.opts.Store, r.key("o"), r.key("o", kv.Bin(from[:]))) {
			var id record.ID
			if err == nil {
				id, err = kv.Last32(e.Key)
			}
			if !yield(id, err) || err != nil {
				return
			}
		}
	}
}

// Keeps reports for each id whether the replica has the whole record. Should the node
// get a narrower view later, what it has outside of that is owed in turn.
func (r *Replica) Keeps(ctx context.Context, ids []record.ID) ([]bool, error) {
	out := make([]bool, len(ids))
	for i, id := range ids {
		var err error
		if out[i], err = r.opts.Store.Has(ctx, r.key("i", kv.Bin(id[:]))); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Paid says that a peer keeps these records: they are owed no longer.
func (r *Replica) Paid(ctx context.Context, ids []record.ID) error {
	return r.update(ctx, func(t *tx) error {
		for _, id := range ids {
			if err := t.txn.Delete(ctx, r.key("o", kv.Bin(id[:]))); err != nil {
				return err
			}
		}
		return nil
	})
}
