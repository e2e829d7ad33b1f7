// Package inventory remembers what the local CAN Service holds: which content
// stands behind each of the service's handles, how its metadata looked when the
// node last agreed with it, the BLAKE3 trees of large content, and the ingests
// whose outcome is not known yet.
//
// It is one per node, since several libraries may share an asset.
package inventory

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"slices"

	ds "github.com/ipfs/go-datastore"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/kv"
	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/store"
)

// maxHandle bounds the length of a service's handle in bytes.
const maxHandle = 1024

// maxHandles bounds the handles that are remembered for one content.
const maxHandles = 256

// ErrHandle says that a handle is empty or too long to be remembered.
var ErrHandle = errors.New("inventory: unusable handle")

// Fingerprint stands for the metadata of an asset as the service reports it. The
// zero value stands for none.
type Fingerprint [16]byte

// FingerprintOf returns the fingerprint of what the service says about an asset.
// The order of tags counts: a service that changes it is noticed, and D4 keeps
// that from echoing.
func FingerprintOf(m can.Metadata) Fingerprint {
	var room [512]byte // usually enough, since this is done for all that a service lists
	b := room[:0]
	for _, s := range [...]string{m.MIMEType, m.Application, m.User, m.Description, m.Filename, m.Path} {
		b = append(wire.AppendU32(b, uint32(len(s))), s...)
	}
	for _, s := range m.Tags {
		b = append(wire.AppendU32(b, uint32(len(s))), s...)
	}
	sum := sha256.Sum256(b)
	return Fingerprint(sum[:16])
}

// Flags of an item.
type Flags uint8

const (
	// Trashed: the service says that the asset is trashed.
	Trashed Flags = 1 << iota
	// TrashedByUs: the node trashed it on behalf of a library, so that it is never
	// taken for the user's own wish.
	TrashedByUs
	// Ingested: the node brought it there.
	Ingested
	// Bad: the service's bytes no longer have the digest.
	Bad
	// Missing: the service no longer knows the handle.
	Missing
)

// Item is one asset of the service.
type Item struct {
	Handle string
	Digest can.Digest
	// Root is the BLAKE3 hash of the content.
	Root [32]byte
	Size int64
	// Timestamp is the service's time of ingest in Unix milliseconds.
	Timestamp int64
	// Baseline is the metadata that the service reported when the node last agreed
	// with it: after it published the asset, or applied a record to it. Only a
	// difference from the baseline is an edit by the user.
	Baseline Fingerprint
	Flags    Flags
}

// Is reports whether all the flags are set.
func (i Item) Is(f Flags) bool { return i.Flags&f == f }

// Present says that the service serves the content as far as the node knows.
func (i Item) Present() bool { return i.Flags&(Trashed|Bad|Missing) == 0 }

func (i Item) encode() []byte {
	b := []byte{1, byte(i.Flags)}
	b = append(b, i.Digest[:]...)
	b = append(b, i.Root[:]...)
	b = wire.AppendU64(b, uint64(i.Size))
	b = wire.AppendU64(b, uint64(i.Timestamp))
	return append(b, i.Baseline[:]...)
}

func decodeItem(handle string, b []byte) (Item, error) {
	rd := wire.NewReader(b)
	if v := rd.U8(); v != 1 {
		rd.Fail("item of version %d", v)
	}
	i := Item{Handle: handle, Flags: Flags(rd.U8()), Digest: rd.B32(), Root: rd.B32(), Size: rd.I64(), Timestamp: rd.I64()}
	copy(i.Baseline[:], rd.Take(len(i.Baseline)))
	return i, rd.End()
}

// Inventory is safe for concurrent use; it keeps everything in the store but the
// ingests in flight.
type Inventory struct {
	s        store.Store
	expected expected
}

// New returns the inventory kept in s.
func New(s store.Store) *Inventory { return &Inventory{s: s} }

func handleKey(h string) ds.Key     { return kv.Key("n", "h", kv.Bin([]byte(h))) }
func digestKey(d can.Digest) ds.Key { return kv.Key("n", "d", kv.Bin(d[:])) }
func intentKey(d can.Digest) ds.Key { return kv.Key("n", "i", kv.Bin(d[:])) }

// ByHandle returns the item of a handle, if it is known.
func (v *Inventory) ByHandle(ctx context.Context, handle string) (Item, bool, error) {
	return byHandle(ctx, v.s, handle)
}

func byHandle(ctx context.Context, r ds.Read, handle string) (Item, bool, error) {
	if handle == "" || len(handle) > maxHandle {
		return Item{}, false, fmt.Errorf("%w: %d bytes", ErrHandle, len(handle))
	}
	b, err := kv.Get(ctx, r, handleKey(handle))
	if err != nil || b == nil {
		return Item{}, false, err
	}
	i, err := decodeItem(handle, b)
	return i, err == nil, err
}

// ByDigest returns the items with the content, the one that speaks for it first:
// the first present one in the order in which the handles became known.
func (v *Inventory) ByDigest(ctx context.Context, d can.Digest) ([]Item, error) {
	handles, err := handlesOf(ctx, v.s, d)
	if err != nil {
		return nil, err
	}
	items := make([]Item, 0, len(handles))
	for _, h := range handles {
		i, ok, err := byHandle(ctx, v.s, h)
		if err != nil {
			return nil, err
		}
		if ok && i.Digest == d {
			items = append(items, i)
		}
	}
	slices.SortStableFunc(items, func(a, b Item) int {
		switch {
		case a.Present() == b.Present():
			return 0
		case a.Present():
			return -1
		}
		return 1
	})
	return items, nil
}

// Present returns the item that speaks for the content, if the service serves it.
func (v *Inventory) Present(ctx context.Context, d can.Digest) (Item, bool, error) {
	items, err := v.ByDigest(ctx, d)
	if err != nil || len(items) == 0 || !items[0].Present() {
		return Item{}, false, err
	}
	return items[0], true, nil
}

func handlesOf(ctx context.Context, r ds.Read, d can.Digest) ([]string, error) {
	b, err := kv.Get(ctx, r, digestKey(d))
	if err != nil || b == nil {
		return nil, err
	}
	return decodeHandles(b)
}

func decodeHandles(b []byte) (hs []string, err error) {
	rd := wire.NewReader(b)
	for rd.Err() == nil && rd.Len() > 0 {
		hs = append(hs, rd.String(maxHandle))
	}
	if err := rd.End(); err != nil {
		return nil, err
	}
	return hs, nil
}

// Put stores items, replacing what was known of their handles, in one
// transaction; the intents of their contents are deleted with it. It does not wait
// until that is durable, which it is before anything that is written later: a power
// cut that takes an item leaves its intent, and the service is searched again.
func (v *Inventory) Put(ctx context.Context, items ...Item) error {
	_, err := kv.UpdateEarly(ctx, v.s, func(txn ds.Txn) error {
		for _, i := range items {
			if err := put(ctx, txn, i); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

func put(ctx context.Context, txn ds.Txn, i Item) error {
	old, known, err := byHandle(ctx, txn, i.Handle)
	if err != nil {
		return err
	}
	if known && old.Digest != i.Digest {
		if err := unlink(ctx, txn, old); err != nil {
			return err
		}
	}
	if err := txn.Put(ctx, handleKey(i.Handle), i.encode()); err != nil {
		return err
	}
	hs, err := handlesOf(ctx, txn, i.Digest)
	if err != nil {
		return err
	}
	if !slices.Contains(hs, i.Handle) && len(hs) < maxHandles {
		if err := txn.Put(ctx, digestKey(i.Digest), encodeHandles(append(hs, i.Handle))); err != nil {
			return err
		}
	}
	if has, err := txn.Has(ctx, intentKey(i.Digest)); err != nil || !has {
		return err
	}
	return txn.Delete(ctx, intentKey(i.Digest))
}

func unlink(ctx context.Context, txn ds.Txn, i Item) error {
	hs, err := handlesOf(ctx, txn, i.Digest)
	if err != nil {
		return err
	}
	hs = slices.DeleteFunc(hs, func(h string) bool { return h == i.Handle })
	if len(hs) == 0 {
		return txn.Delete(ctx, digestKey(i.Digest))
	}
	return txn.Put(ctx, digestKey(i.Digest), encodeHandles(hs))
}

func encodeHandles(hs []string) (b []byte) {
	for _, h := range hs {
		b = wire.AppendString(b, h)
	}
	return b
}

// Insert stores the items whose handles are not known, as Put does, in one
// transaction, and returns the others as they are known. It does not wait until they
// are durable, which they are before anything that is written later: what a power cut
// takes is listed by the service, and read once more.
func (v *Inventory) Insert(ctx context.Context, items ...Item) (known []Item, err error) {
	_, err = kv.UpdateEarly(ctx, v.s, func(txn ds.Txn) error {
		known = nil
		for _, i := range items {
			old, ok, err := byHandle(ctx, txn, i.Handle)
			if err != nil {
				return err
			}
			if ok {
				known = append(known, old)
				continue
			}
			if err := put(ctx, txn, i); err != nil {
				return err
			}
		}
		return nil
	})
	return known, err
}

// Modify calls fn with the item of each handle that is known, in one transaction,
// and stores those for which it reports a change. fn must not change handle or
// digest; it is called again after a conflict.
func (v *Inventory) Modify(ctx context.Context, handles []string, fn func(*Item) bool) error {
	return kv.Update(ctx, v.s, func(txn ds.Txn) error {
		for _, h := range handles {
			i, ok, err := byHandle(ctx, txn, h)
			if err != nil {
				return err
			}
			if !ok || !fn(&i) {
				continue
			}
			if err := txn.Put(ctx, handleKey(h), i.encode()); err != nil {
				return err
			}
		}
		return nil
	})
}

// Forget removes a handle, for one that the service no longer knows.
func (v *Inventory) Forget(ctx context.Context, handle string) error {
	return kv.Update(ctx, v.s, func(txn ds.Txn) error {
		i, ok, err := byHandle(ctx, txn, handle)
		if err != nil || !ok {
			return err
		}
		if err := unlink(ctx, txn, i); err != nil {
			return err
		}
		return txn.Delete(ctx, handleKey(handle))
	})
}

// Items yields all items as of one moment.
func (v *Inventory) Items(ctx context.Context) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for e, err := range kv.Scan(ctx, v.s, kv.Key("n", "h"), false) {
			var i Item
			if err == nil {
				var h []byte
				if h, err = kv.ParseBin(e.Key[len("/n/h/"):]); err == nil {
					i, err = decodeItem(string(h), e.Value)
				}
			}
			if !yield(i, err) || err != nil {
				return
			}
		}
	}
}

// Intent is an ingest that was begun. It is written before the content is sent
// and goes away when its outcome is known.
type Intent struct {
	Digest can.Digest
	Size   int64
	// Begun is when the ingest began, and Timestamp the original time of the asset
	// that was sent with it, both in Unix milliseconds.
	Begun     int64
	Timestamp int64
	// Ambiguous says that an attempt ended without a clear answer, so that the
	// service must be searched for the content before the next attempt.
	Ambiguous bool
}

func (in Intent) encode() []byte {
	b := wire.AppendBool([]byte{1}, in.Ambiguous)
	b = wire.AppendU64(b, uint64(in.Size))
	b = wire.AppendU64(b, uint64(in.Begun))
	return wire.AppendU64(b, uint64(in.Timestamp))
}

// Begin writes an intent. With it all is durable that could be seen before, such as
// the record for which the content is wanted.
func (v *Inventory) Begin(ctx context.Context, in Intent) error {
	return kv.Update(ctx, v.s, func(txn ds.Txn) error {
		return txn.Put(ctx, intentKey(in.Digest), in.encode())
	})
}

// Intent returns the content's intent, if there is one.
func (v *Inventory) Intent(ctx context.Context, d can.Digest) (Intent, bool, error) {
	b, err := kv.Get(ctx, v.s, intentKey(d))
	if err != nil || b == nil {
		return Intent{}, false, err
	}
	in, err := decodeIntent(d, b)
	return in, err == nil, err
}

func decodeIntent(d can.Digest, b []byte) (Intent, error) {
	rd := wire.NewReader(b)
	if v := rd.U8(); v != 1 {
		rd.Fail("intent of version %d", v)
	}
	in := Intent{Digest: d, Ambiguous: rd.Bool(), Size: rd.I64(), Begun: rd.I64(), Timestamp: rd.I64()}
	return in, rd.End()
}

// Abandon deletes an intent whose ingest certainly did not happen.
func (v *Inventory) Abandon(ctx context.Context, d can.Digest) error {
	return v.s.Delete(ctx, intentKey(d))
}

// Intents yields all intents as of one moment.
func (v *Inventory) Intents(ctx context.Context) iter.Seq2[Intent, error] {
	return func(yield func(Intent, error) bool) {
		for e, err := range kv.Scan(ctx, v.s, kv.Key("n", "i"), false) {
			var in Intent
			if err == nil {
				var d can.Digest
				if d, err = kv.Last32(e.Key); err == nil {
					in, err = decodeIntent(d, e.Value)
				}
			}
			if !yield(in, err) || err != nil {
				return
			}
		}
	}
}
