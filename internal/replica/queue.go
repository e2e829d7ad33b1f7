package replica

import (
	"context"
	"iter"

	ds "github.com/ipfs/go-datastore"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/kv"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/store"
)

// State says how far an asset of the queue has come, or what the node made of it.
type State uint8

// The states in the order in which an asset passes them.
const (
	// Wanted: the content is not here yet, or its metadata has to be looked at.
	Wanted State = iota + 1
	// Partial: part of the content is staged.
	Partial
	// Verified: the whole content is staged and its digest was checked.
	Verified
	// Ingesting: the content is being given to the CAN Service.
	Ingesting
	// Have: the CAN Service holds the asset as the live record says.
	Have
	// TrashedHere: the user trashed the asset here and may not, or chose not to,
	// remove it for all; it is not fetched again.
	TrashedHere
	// Gone: the asset left the library; what the CAN Service holds stays there.
	Gone
)

// Cause says why an asset has not come further.
type Cause uint8

// The causes.
const (
	// NoCause: it is waiting for its turn.
	NoCause Cause = iota
	// NoPeer: no connected peer has the content.
	NoPeer
	// ServiceDown: the CAN Service can't be reached or is failing.
	ServiceDown
	// NotAllowed: the peers that have it do not serve it to this node.
	NotAllowed
	// NoSpace: there is too little disk space, or the quota is used up.
	NoSpace
	// BadContent: the content does not have the digest that the record promises.
	BadContent
	// Rejected: the CAN Service refuses the asset.
	Rejected
	// SourceOffline: the member that announced it is not connected.
	SourceOffline
	// Held: the host must confirm first.
	Held
)

// Work is one row of the durable queue: an asset that the node has to look at,
// because its live record changed or its content is missing. What is to be done
// follows from the entry and from what the CAN Service holds, never from the row.
type Work struct {
	Asset    can.Digest
	State    State
	Cause    Cause
	Attempts uint32
	// Next is the earliest time of the next attempt and Since the time at which
	// the asset was queued, both in Unix milliseconds.
	Next  int64
	Since int64
	// Detail says more about the cause, for people; at most 200 bytes.
	Detail string
}

const maxDetail = 200

func (w Work) encode() []byte {
	b := []byte{1, byte(w.State), byte(w.Cause)}
	b = wire.AppendU32(b, w.Attempts)
	b = wire.AppendU64(b, uint64(w.Next))
	b = wire.AppendU64(b, uint64(w.Since))
	d := w.Detail
	if len(d) > maxDetail {
		d = string([]rune(d[:maxDetail])) // cut runes decode to U+FFFD
		d = d[:min(len(d), maxDetail+8)]
	}
	return wire.AppendString(b, d)
}

func decodeWork(asset can.Digest, b []byte) (Work, error) {
	rd := wire.NewReader(b)
	if v := rd.U8(); v != 1 {
		rd.Fail("queue row of version %d", v)
	}
	w := Work{Asset: asset, State: State(rd.U8()), Cause: Cause(rd.U8()), Attempts: rd.U32(), Next: rd.I64(), Since: rd.I64(), Detail: rd.String(maxDetail + 8)}
	return w, rd.End()
}

// Local says what the node made of an asset that is not, or no longer, queued.
type Local struct {
	// Applied is the live record that was last brought into the CAN Service or
	// published from it.
	Applied record.ID
	State   State

	size int64 // of the content, with TrashedHere
}

// sized reports whether the content's size is kept, since it is counted.
func (l Local) sized() bool { return l.State == TrashedHere }

func (l Local) encode() []byte {
	b := append([]byte{1, byte(l.State)}, l.Applied[:]...)
	if l.sized() {
		b = wire.AppendU64(b, uint64(l.size))
	}
	return b
}

// Local returns what the node made of the asset; the zero value when nothing.
func (r *Replica) Local(ctx context.Context, asset can.Digest) (Local, error) {
	return r.local(ctx, r.opts.Store, asset)
}

func (r *Replica) local(ctx context.Context, from ds.Read, asset can.Digest) (Local, error) {
	b, err := kv.Get(ctx, from, r.assetKey("p", asset))
	if err != nil || b == nil {
		return Local{}, err
	}
	return decodeLocal(b)
}

func decodeLocal(b []byte) (Local, error) {
	rd := wire.NewReader(b)
	if v := rd.U8(); rd.Err() == nil && v != 1 {
		rd.Fail("local row of version %d", v)
	}
	l := Local{State: State(rd.U8()), Applied: rd.B32()}
	if l.sized() && rd.Len() > 0 { // what was written before these were counted has none
		l.size = rd.I64()
	}
	return l, rd.End()
}

// Work returns the asset's row of the queue, if it has one.
func (r *Replica) Work(ctx context.Context, asset can.Digest) (Work, bool, error) {
	b, err := kv.Get(ctx, r.opts.Store, r.assetKey("q", asset))
	if err != nil || b == nil {
		return Work{}, false, err
	}
	w, err := decodeWork(asset, b)
	return w, err == nil, err
}

// Queue yields the rows of the queue in ascending order of digests, as of one
// moment.
func (r *Replica) Queue(ctx context.Context) iter.Seq2[Work, error] {
	return func(yield func(Work, error) bool) {
		for e, err := range kv.Scan(ctx, r.opts.Store, r.key("q"), false) {
			var w Work
			if err == nil {
				var asset can.Digest
				if asset, err = kv.Last32(e.Key); err == nil {
					w, err = decodeWork(asset, e.Value)
				}
			}
			if !yield(w, err) || err != nil {
				return
			}
		}
	}
}

// queued reads the asset's row of the queue. One that was not known until now has none.
func (t *tx) queued(ctx context.Context, key ds.Key, known bool) ([]byte, error) {
	if !known {
		return nil, nil
	}
	return kv.Get(ctx, t.txn, key)
}

// enqueue makes the asset due now. It is called with the writer held.
func (t *tx) enqueue(ctx context.Context, asset can.Digest, known bool) error {
	key := t.r.assetKey("q", asset)
	b, err := t.queued(ctx, key, known)
	if err != nil {
		return err
	}
	w := Work{Asset: asset, State: Wanted, Since: t.now}
	if b == nil {
		t.counts.Queued++
		if err := t.recall(ctx, asset, known); err != nil {
			return err
		}
	} else if old, err := decodeWork(asset, b); err == nil {
		w = old
		w.Next, w.Attempts, w.Cause, w.Detail = 0, 0, NoCause, ""
	}
	return t.txn.Put(ctx, key, w.encode())
}

// settle records that the node's own CAN Service agrees with the entry.
func (t *tx) settle(ctx context.Context, asset can.Digest, known bool, e Entry) error {
	state := Have
	if e.Tombstone() || !e.Member {
		state = Gone
	}
	return t.settleAs(ctx, asset, known, Local{Applied: e.ID(), State: state})
}

func (t *tx) settleAs(ctx context.Context, asset can.Digest, known bool, l Local) error {
	key := t.r.assetKey("q", asset)
	b, err := t.queued(ctx, key, known)
	if err != nil {
		return err
	}
	if b != nil {
		t.counts.Queued--
		if err := t.txn.Delete(ctx, key); err != nil {
			return err
		}
	} else if err := t.recall(ctx, asset, known); err != nil {
		return err
	}
	if l.State == TrashedHere {
		t.counts.Trashed++
		t.counts.TrashedBytes += l.size
	}
	return t.txn.Put(ctx, t.r.assetKey("p", asset), l.encode())
}

// recall takes an asset that does not wait out of the count of what is trashed here.
func (t *tx) recall(ctx context.Context, asset can.Digest, known bool) error {
	if !known || t.counts.Trashed == 0 {
		return nil
	}
	l, err := t.r.local(ctx, t.txn, asset)
	if err == nil && l.State == TrashedHere {
		t.counts.Trashed--
		t.counts.TrashedBytes -= l.size
	}
	return err
}

// Settled is an asset with which the node is done for now.
type Settled struct {
	Asset can.Digest
	Local
}

// Settle takes assets off the queue. An asset whose live record is no longer the
// one that was applied stays queued. It returns how many were taken off.
func (r *Replica) Settle(ctx context.Context, done []Settled) (int, error) {
	settled := 0
	err := r.update(ctx, func(t *tx) error {
		settled = 0
		for _, s := range done {
			rows, err := r.rows(ctx, t.txn, s.Asset)
			if err != nil {
				return err
			}
			e := t.lens.entry(s.Asset, rows)
			s.size = e.Bytes()
			if e.ID() != s.Applied {
				if err := t.enqueue(ctx, s.Asset, true); err != nil {
					return err
				}
				if err := t.txn.Put(ctx, r.assetKey("p", s.Asset), s.Local.encode()); err != nil {
					return err
				}
				continue
			}
			if err := t.settleAs(ctx, s.Asset, true, s.Local); err != nil {
				return err
			}
			settled++
		}
		return nil
	})
	return settled, err
}

// Enqueue puts assets into the queue, or makes them due now. Those that the library
// does not know are left out.
func (r *Replica) Enqueue(ctx context.Context, assets ...can.Digest) error {
	return r.update(ctx, func(t *tx) error {
		for _, a := range assets {
			known, err := t.txn.Has(ctx, r.assetKey("a", a))
			if err == nil && known {
				err = t.enqueue(ctx, a, true)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Progress writes rows back whose state, cause or next attempt changed. Rows that
// left the queue meanwhile are not put back.
func (r *Replica) Progress(ctx context.Context, rows ...Work) error {
	return r.update(ctx, func(t *tx) error {
		for _, w := range rows {
			key := r.assetKey("q", w.Asset)
			if ok, err := t.txn.Has(ctx, key); err != nil {
				return err
			} else if !ok {
				continue
			}
			if err := t.txn.Put(ctx, key, w.encode()); err != nil {
				return err
			}
		}
		return nil
	})
}

// update runs fn in one transaction as the only writer.
func (r *Replica) update(ctx context.Context, fn func(*tx) error) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer r.unlock()
	return r.updateLocked(ctx, fn)
}

func (r *Replica) updateLocked(ctx context.Context, fn func(*tx) error) error {
	r.mu.Lock()
	lens, counts, clock := r.lensLocked(), r.counts, r.clock
	r.mu.Unlock()
	t := &tx{r: r, lens: lens, now: r.opts.Now().UnixMilli()}
	err := kv.Update(ctx, r.opts.Store, func(txn ds.Txn) error {
		t.reset(txn, counts, clock)
		if err := fn(t); err != nil {
			return err
		}
		if t.counts == counts {
			return nil
		}
		return t.txn.Put(ctx, r.key("c"), t.counts.encode(t.clock))
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.counts = t.counts
	if t.owed {
		r.debts++
	}
	r.mu.Unlock()
	return nil
}

// Drop deletes everything that the store holds of the library. No replica of it
// may be open. Called again after an error, it goes on where it was.
func Drop(ctx context.Context, st store.Store, library [32]byte) error {
	batch, err := st.Batch(ctx)
	if err != nil {
		return err
	}
	for e, err := range kv.Scan(ctx, st, roomKey(library), true) {
		if err != nil {
			return err
		}
		if err := batch.Delete(ctx, ds.RawKey(e.Key)); err != nil {
			return err
		}
	}
	return batch.Commit(ctx)
}
