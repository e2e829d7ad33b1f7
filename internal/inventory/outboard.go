package inventory

import (
	"context"
	"strconv"

	ds "github.com/ipfs/go-datastore"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/kv"
)

// outboardChunk is how much of a tree one value holds: a store takes only a
// little over a megabyte in a transaction.
const outboardChunk = 256 << 10

func outboardKey(d can.Digest, n int) ds.Key {
	return kv.Key("n", "o", kv.Bin(d[:]), strconv.Itoa(n))
}

// PutOutboard stores the BLAKE3 tree of a content. It is written before the item
// that it belongs to; a tree cut short by a crash is written again.
func (v *Inventory) PutOutboard(ctx context.Context, d can.Digest, tree []byte) error {
	for n := 0; len(tree) > 0; n++ {
		size := min(len(tree), outboardChunk)
		if err := v.s.Put(ctx, outboardKey(d, n), tree[:size]); err != nil {
			return err
		}
		tree = tree[size:]
	}
	return nil
}

// Outboard returns the stored tree of a content, or nil when there is none.
func (v *Inventory) Outboard(ctx context.Context, d can.Digest) ([]byte, error) {
	var tree []byte
	for n := 0; ; n++ {
		b, err := kv.Get(ctx, v.s, outboardKey(d, n))
		if err != nil {
			return nil, err
		}
		tree = append(tree, b...)
		if len(b) < outboardChunk {
			return tree, nil
		}
	}
}

// DropOutboard deletes the tree of a content.
func (v *Inventory) DropOutboard(ctx context.Context, d can.Digest) error {
	for n := 0; ; n++ {
		ok, err := v.s.Has(ctx, outboardKey(d, n))
		if err != nil || !ok {
			return err
		}
		if err := v.s.Delete(ctx, outboardKey(d, n)); err != nil {
			return err
		}
	}
}

// Mark returns a small value kept under a name, such as a cursor of changes; nil
// when there is none.
func (v *Inventory) Mark(ctx context.Context, name string) ([]byte, error) {
	return kv.Get(ctx, v.s, kv.Key("n", "m", name))
}

// SetMark keeps a small value under a name.
func (v *Inventory) SetMark(ctx context.Context, name string, value []byte) error {
	return v.s.Put(ctx, kv.Key("n", "m", name), value)
}
