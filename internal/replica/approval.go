package replica

import (
	"context"
	"iter"

	ds "github.com/ipfs/go-datastore"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/kv"
)

// Approval is what the host decided about announcing a local asset.
type Approval uint8

// The decisions.
const (
	// Unseen: the asset was not up for announcing yet.
	Unseen Approval = iota
	// Pending: it waits for the host.
	Pending
	// Approved: it may be announced.
	Approved
	// Declined: it is not announced.
	Declined
)

// Approval returns what was decided about an asset.
func (r *Replica) Approval(ctx context.Context, d can.Digest) (Approval, error) {
	b, err := kv.Get(ctx, r.opts.Store, r.assetKey("g", d))
	if err != nil || len(b) != 1 {
		return Unseen, err
	}
	return Approval(b[0]), nil
}

// SetApproval keeps a decision about assets.
func (r *Replica) SetApproval(ctx context.Context, a Approval, assets ...can.Digest) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer r.unlock()
	for len(assets) > 0 {
		n := min(len(assets), txnRecords)
		err := kv.Update(ctx, r.opts.Store, func(txn ds.Txn) error {
			for _, d := range assets[:n] {
				if err := txn.Put(ctx, r.assetKey("g", d), []byte{byte(a)}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		assets = assets[n:]
	}
	return nil
}

// Approvals yields the assets about which this was decided, ordered by digest.
func (r *Replica) Approvals(ctx context.Context, want Approval) iter.Seq2[can.Digest, error] {
	return func(yield func(can.Digest, error) bool) {
		for e, err := range kv.Scan(ctx, r.opts.Store, r.key("g"), false) {
			var d can.Digest
			if err == nil {
				if len(e.Value) != 1 || Approval(e.Value[0]) != want {
					continue
				}
				d, err = kv.Last32(e.Key)
			}
			if !yield(d, err) || err != nil {
				return
			}
		}
	}
}
