package replica

import (
	"context"
	"errors"
	"slices"
	"time"

	ds "github.com/ipfs/go-datastore"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/kv"
	"github.com/cansync/cansync/internal/record"
)

// A membership counts no longer once its record gives way in a full control set, and
// neither does what its holder said of assets: who hears of that now would refuse it.
// So that the sets of all members agree, such records are taken out. It needs a look
// at every asset, so that a mark in the store says that it is due, and the next
// takes place a while after it.

// lapseAfter is how long memberships may be lost before the next look at all assets.
const lapseAfter = time.Minute

// maxRefused bounds the ids of refused records that are remembered.
const maxRefused = 16384

// refuseLocked remembers that a record is refused as long as the control set stays as it
// is. It is called with mu held.
func (r *Replica) refuseLocked(id record.ID, err error) {
	if len(r.refused) < maxRefused {
		r.refused[id] = err
	}
}

// Refuses reports whether the record came before and would be refused again, so that it
// need not be asked for.
func (r *Replica) Refuses(id record.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refused[id] != nil
}

// lapseSoon sees to it that the records of lost memberships are taken out. It is called
// with the writer held, or before anybody else knows the replica.
func (r *Replica) lapseSoon() {
	r.mu.Lock()
	begun := r.lapsing
	r.lapsing = true
	r.mu.Unlock()
	if begun {
		return
	}
	r.wg.Go(func() {
		for {
			wait := time.NewTimer(lapseAfter)
			select {
			case <-r.closed:
				wait.Stop()
				return
			case <-wait.C:
			}
			if r.lapseNow() {
				return
			}
		}
	})
}

func (r *Replica) lapseNow() (over bool) {
	if r.lock(context.Background()) != nil {
		return true // closed
	}
	defer r.unlock()
	ctx, done := r.whole(context.Background())
	defer done()
	if err := r.lapse(ctx); err != nil {
		r.log.Warn("records of lost memberships not yet taken out", "error", err)
		return false
	}
	r.mu.Lock()
	r.lapsing = false
	r.mu.Unlock()
	return true
}

// lapse takes out all asset records whose certificate does not count. It is called with
// the writer held. Done again after an error, it does what is left.
func (r *Replica) lapse(ctx context.Context) error {
	var page []can.Digest
	for e, err := range kv.Scan(ctx, r.opts.Store, r.key("a"), false) {
		if err != nil {
			return err
		}
		asset, err := kv.Last32(e.Key)
		if err != nil {
			return err
		}
		rows, err := decodeRows(e.Value)
		if err != nil {
			return err
		}
		if len(r.standing(rows)) == len(rows) {
			continue
		}
		if page = append(page, asset); len(page) == txnRecords {
			if err := r.strip(ctx, page); err != nil {
				return err
			}
			page = page[:0]
		}
	}
	if err := r.strip(ctx, page); err != nil {
		return err
	}
	return r.opts.Store.Delete(ctx, r.key("x"))
}

// standing returns those of the records whose certificate counts.
func (r *Replica) standing(rows []record.Record) []record.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]record.Record, 0, len(rows))
	for _, rec := range rows {
		if !errors.Is(r.control.Check(rec.Header), control.ErrUnknownCert) {
			out = append(out, rec)
		}
	}
	return out
}

// strip takes the records that no longer count from the assets.
func (r *Replica) strip(ctx context.Context, assets []can.Digest) error {
	r.mu.Lock()
	lens, counts, clock := r.lensLocked(), r.counts, r.clock
	r.mu.Unlock()
	t := &tx{r: r, lens: lens, now: r.opts.Now().UnixMilli()}
	err := kv.Update(ctx, r.opts.Store, func(txn ds.Txn) error {
		t.reset(txn, counts, clock)
		for _, asset := range assets {
			rows, err := r.rows(ctx, txn, asset)
			if err != nil {
				return err
			}
			c := &change{had: slices.Clone(rows), rows: r.standing(rows), before: lens.entry(asset, rows), news: true}
			for _, rec := range rows {
				if slices.ContainsFunc(c.rows, func(k record.Record) bool { return k.Header == rec.Header && complete(k) == complete(rec) }) {
					continue
				}
				if err := t.drop(ctx, rec); err != nil {
					return err
				}
				if complete(rec) {
					t.counts.Records--
				}
			}
			t.changes[asset], t.order = c, append(t.order, asset)
		}
		return t.finish(ctx)
	})
	if err != nil || len(assets) == 0 {
		return err
	}
	r.committed(t)
	ap := Applied{}
	ap.Touched, ap.Changes = t.touched()
	r.notify(ap)
	return nil
}
