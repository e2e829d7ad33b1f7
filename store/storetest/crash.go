package storetest

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"

	ds "github.com/ipfs/go-datastore"

	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/store/memory"
)

// Crashable is a store in memory that can lose power. What a transaction
// committed is kept then. What was written without one since the last Sync may
// be there or not, each write for itself, as drawn from the seed; of the early
// commits that no other commit followed the first ones are there. It is safe for
// concurrent use.
type Crashable struct {
	*memory.Store

	mu   sync.Mutex
	rng  *rand.Rand
	off  bool
	left int               // commits until the power goes, or -1
	kept map[string][]byte // what is certain
	log  []change          // what came after, in order
	soon int               // number of the last early commit
}

type change struct {
	key   string
	value []byte // nil: deleted
	sure  bool
	early int // number of the early commit, 0 for other changes and what is certain
}

var _ store.Store = (*Crashable)(nil)

// NewCrashable returns an empty store; the seed decides what a crash loses.
func NewCrashable(seed uint64) *Crashable {
	return newCrashable(rand.New(rand.NewPCG(seed, 0x6372617368)), make(map[string][]byte))
}

func newCrashable(rng *rand.Rand, kept map[string][]byte) *Crashable {
	c := &Crashable{Store: memory.New(), rng: rng, left: -1, kept: kept}
	for k, v := range kept {
		// A store that was just made takes what one of its kind held.
		_ = c.Store.Put(context.Background(), ds.RawKey(k), v)
	}
	return c
}

// CrashAfter cuts the power in the middle of the commit that follows k more: that
// one fails with [store.ErrClosed], as does everything after it, and whether it
// is kept is drawn from the seed.
func (c *Crashable) CrashAfter(k int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = k
}

// Crashed says whether the power is off.
func (c *Crashable) Crashed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.off
}

// Crash cuts the power, if that has not happened yet, and returns the store as
// it comes up again. The old one fails with [store.ErrClosed] from now on.
func (c *Crashable) Crash() *Crashable {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut()
	kept := make(map[string][]byte, len(c.kept))
	for k, v := range c.kept {
		kept[k] = v
	}
	return newCrashable(c.rng, kept)
}

// cut turns the power off. Callers hold mu.
func (c *Crashable) cut() {
	if c.off {
		return
	}
	c.off = true
	_ = c.Store.Close()
	last := c.soon // of the early commits that are there
	if first := slices.IndexFunc(c.log, func(ch change) bool { return ch.early > 0 }); first >= 0 {
		last -= c.rng.IntN(c.soon - c.log[first].early + 2)
	}
	c.settle(func(ch change) bool {
		if ch.sure {
			return ch.early <= last
		}
		return c.rng.IntN(2) == 0
	})
}

// settle makes the changes for which keep holds certain, and forgets the rest.
func (c *Crashable) settle(keep func(change) bool) {
	for _, ch := range c.log {
		switch {
		case !keep(ch):
		case ch.value == nil:
			delete(c.kept, ch.key)
		default:
			c.kept[ch.key] = ch.value
		}
	}
	c.log = nil
}

// do runs one write on the store and notes what it changed.
func (c *Crashable) do(changes []change, run func() error) error {
	return c.note(changes, false, run)
}

// note is do; after a write that is not early the early ones before it are certain.
func (c *Crashable) note(changes []change, early bool, run func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.off {
		return store.ErrClosed
	}
	add := func() {
		if early {
			c.soon++
			for i := range changes {
				changes[i].early = c.soon
			}
		} else if slices.ContainsFunc(changes, func(ch change) bool { return ch.sure }) {
			for i := range c.log {
				c.log[i].early = 0
			}
		}
		c.log = append(c.log, changes...)
	}
	if c.left == 0 {
		err := run()
		if err != nil { // a conflict, say: nothing was about to be written
			return err
		}
		if c.rng.IntN(2) == 0 {
			add()
		}
		c.cut()
		return store.ErrClosed
	}
	if err := run(); err != nil {
		return err
	}
	if c.left > 0 {
		c.left--
	}
	add()
	if !slices.ContainsFunc(c.log, func(ch change) bool { return !ch.sure || ch.early > 0 }) {
		c.settle(func(change) bool { return true })
	}
	return nil
}

func changeOf(key ds.Key, value []byte) change {
	return change{key: key.String(), value: append([]byte{}, value...)}
}

// Put implements go-datastore's Write.
func (c *Crashable) Put(ctx context.Context, key ds.Key, value []byte) error {
	return c.do([]change{changeOf(key, value)}, func() error { return c.Store.Put(ctx, key, value) })
}

// Delete implements go-datastore's Write.
func (c *Crashable) Delete(ctx context.Context, key ds.Key) error {
	return c.do([]change{{key: key.String()}}, func() error { return c.Store.Delete(ctx, key) })
}

// Sync implements go-datastore's Datastore: all that was written is kept.
func (c *Crashable) Sync(ctx context.Context, prefix ds.Key) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.Store.Sync(ctx, prefix); err != nil {
		return err
	}
	c.settle(func(change) bool { return true })
	return nil
}

// Close implements go-datastore's Datastore. A store that was closed in good
// order has lost nothing; Crash opens it again.
func (c *Crashable) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.off {
		c.off = true
		c.settle(func(change) bool { return true })
	}
	return c.Store.Close()
}

// Batch implements go-datastore's Batching.
func (c *Crashable) Batch(ctx context.Context) (ds.Batch, error) {
	b, err := c.Store.Batch(ctx)
	if err != nil {
		return nil, err
	}
	return &crashBatch{Batch: b, c: c}, nil
}

// NewTransaction implements go-datastore's TxnDatastore.
func (c *Crashable) NewTransaction(ctx context.Context, readOnly bool) (ds.Txn, error) {
	x, err := c.Store.NewTransaction(ctx, readOnly)
	if err != nil {
		return nil, err
	}
	return &crashTxn{Txn: x, c: c}, nil
}

type crashBatch struct {
	ds.Batch
	c   *Crashable
	log []change
}

func (b *crashBatch) Put(ctx context.Context, key ds.Key, value []byte) error {
	err := b.Batch.Put(ctx, key, value)
	if err == nil {
		b.log = append(b.log, changeOf(key, value))
	}
	return err
}

func (b *crashBatch) Delete(ctx context.Context, key ds.Key) error {
	err := b.Batch.Delete(ctx, key)
	if err == nil {
		b.log = append(b.log, change{key: key.String()})
	}
	return err
}

func (b *crashBatch) Commit(ctx context.Context) error {
	err := b.c.do(b.log, func() error { return b.Batch.Commit(ctx) })
	if err == nil {
		b.log = nil
	}
	return err
}

type crashTxn struct {
	ds.Txn
	c   *Crashable
	log []change
}

func (x *crashTxn) Put(ctx context.Context, key ds.Key, value []byte) error {
	err := x.Txn.Put(ctx, key, value)
	if err == nil {
		ch := changeOf(key, value)
		ch.sure = true
		x.log = append(x.log, ch)
	}
	return err
}

func (x *crashTxn) Delete(ctx context.Context, key ds.Key) error {
	err := x.Txn.Delete(ctx, key)
	if err == nil {
		x.log = append(x.log, change{key: key.String(), sure: true})
	}
	return err
}

func (x *crashTxn) Commit(ctx context.Context) error { return x.commit(ctx, false) }

// CommitEarly implements [store.EarlyTxn].
func (x *crashTxn) CommitEarly(ctx context.Context) error { return x.commit(ctx, true) }

func (x *crashTxn) commit(ctx context.Context, early bool) error {
	if len(x.log) == 0 {
		return x.Txn.Commit(ctx)
	}
	err := x.c.note(x.log, early, func() error { return x.Txn.Commit(ctx) })
	if errors.Is(err, store.ErrClosed) {
		x.Txn.Discard(ctx)
	}
	return err
}
