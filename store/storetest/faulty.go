package storetest

import (
	"context"
	"sync"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"

	"github.com/cansync/cansync/store"
)

// Faulty is a store that fails when it is told to. A write is a Put or Delete
// outside of transactions and batches, or the Commit of one; a read is a Get,
// Has, GetSize or Query anywhere. A write that fails leaves nothing behind, and a
// transaction whose Commit failed has ended. It is safe for concurrent use.
type Faulty struct {
	store.Store

	mu            sync.Mutex
	writes, reads counter
	noSpace       bool
	delay         time.Duration
	faults        int
}

type counter struct {
	n    int
	fail map[int]error // by number, counted from 1
}

var (
	_ store.Store         = (*Faulty)(nil)
	_ store.SpaceReporter = (*Faulty)(nil)
)

// NewFaulty returns a store that hands everything on to inner, which it closes.
func NewFaulty(inner store.Store) *Faulty {
	return &Faulty{
		Store: inner, writes: counter{fail: make(map[int]error)}, reads: counter{fail: make(map[int]error)},
	}
}

// FailWrite lets the k-th write from now on fail with err, once; 1 is the next.
func (f *Faulty) FailWrite(k int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes.fail[f.writes.n+k] = err
}

// FailRead lets the k-th read from now on fail with err, once; 1 is the next.
func (f *Faulty) FailRead(k int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads.fail[f.reads.n+k] = err
}

// SetNoSpace lets every write fail with [store.ErrNoSpace] until it is called
// with false.
func (f *Faulty) SetNoSpace(full bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.noSpace = full
}

// SetDelay makes every read and write wait first, or until its context ends.
func (f *Faulty) SetDelay(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delay = d
}

// Faults returns how many calls were made to fail.
func (f *Faulty) Faults() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.faults
}

// Writes returns how many writes there were, failed ones included.
func (f *Faulty) Writes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.writes.n
}

// Reads returns how many reads there were, failed ones included.
func (f *Faulty) Reads() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reads.n
}

// Space implements [store.SpaceReporter]: no free byte while SetNoSpace holds,
// else what the inner store says, or a tebibyte.
func (f *Faulty) Space() (free, reserve uint64, err error) {
	f.mu.Lock()
	full := f.noSpace
	f.mu.Unlock()
	free, reserve = 1<<40, 1<<29
	if r, ok := f.Store.(store.SpaceReporter); ok {
		free, reserve, err = r.Space()
	}
	if full {
		free = 0
	}
	return free, reserve, err
}

// hit counts a call and returns the error it must fail with.
func (f *Faulty) hit(ctx context.Context, c *counter) error {
	f.mu.Lock()
	c.n++
	err := c.fail[c.n]
	delete(c.fail, c.n)
	if err == nil && f.noSpace && c == &f.writes {
		err = store.ErrNoSpace
	}
	if err != nil {
		f.faults++
	}
	delay := f.delay
	f.mu.Unlock()
	if delay > 0 {
		t := time.NewTimer(delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

// Put implements go-datastore's Write.
func (f *Faulty) Put(ctx context.Context, key ds.Key, value []byte) error {
	if err := f.hit(ctx, &f.writes); err != nil {
		return err
	}
	return f.Store.Put(ctx, key, value)
}

// Delete implements go-datastore's Write.
func (f *Faulty) Delete(ctx context.Context, key ds.Key) error {
	if err := f.hit(ctx, &f.writes); err != nil {
		return err
	}
	return f.Store.Delete(ctx, key)
}

// Get implements go-datastore's Read.
func (f *Faulty) Get(ctx context.Context, key ds.Key) ([]byte, error) {
	return faultyReads{f.Store, f}.Get(ctx, key)
}

// Has implements go-datastore's Read.
func (f *Faulty) Has(ctx context.Context, key ds.Key) (bool, error) {
	return faultyReads{f.Store, f}.Has(ctx, key)
}

// GetSize implements go-datastore's Read.
func (f *Faulty) GetSize(ctx context.Context, key ds.Key) (int, error) {
	return faultyReads{f.Store, f}.GetSize(ctx, key)
}

// Query implements go-datastore's Read.
func (f *Faulty) Query(ctx context.Context, q query.Query) (query.Results, error) {
	return faultyReads{f.Store, f}.Query(ctx, q)
}

// Batch implements go-datastore's Batching.
func (f *Faulty) Batch(ctx context.Context) (ds.Batch, error) {
	b, err := f.Store.Batch(ctx)
	if err != nil {
		return nil, err
	}
	return &faultyBatch{b, f}, nil
}

// NewTransaction implements go-datastore's TxnDatastore.
func (f *Faulty) NewTransaction(ctx context.Context, readOnly bool) (ds.Txn, error) {
	x, err := f.Store.NewTransaction(ctx, readOnly)
	if err != nil {
		return nil, err
	}
	return &faultyTxn{faultyReads{x, f}, x, f, readOnly}, nil
}

type faultyReads struct {
	r ds.Read
	f *Faulty
}

func (r faultyReads) Get(ctx context.Context, key ds.Key) ([]byte, error) {
	if err := r.f.hit(ctx, &r.f.reads); err != nil {
		return nil, err
	}
	return r.r.Get(ctx, key)
}

func (r faultyReads) Has(ctx context.Context, key ds.Key) (bool, error) {
	if err := r.f.hit(ctx, &r.f.reads); err != nil {
		return false, err
	}
	return r.r.Has(ctx, key)
}

func (r faultyReads) GetSize(ctx context.Context, key ds.Key) (int, error) {
	if err := r.f.hit(ctx, &r.f.reads); err != nil {
		return -1, err
	}
	return r.r.GetSize(ctx, key)
}

func (r faultyReads) Query(ctx context.Context, q query.Query) (query.Results, error) {
	if err := r.f.hit(ctx, &r.f.reads); err != nil {
		return nil, err
	}
	return r.r.Query(ctx, q)
}

type faultyBatch struct {
	ds.Batch
	f *Faulty
}

func (b *faultyBatch) Commit(ctx context.Context) error {
	if err := b.f.hit(ctx, &b.f.writes); err != nil {
		return err
	}
	return b.Batch.Commit(ctx)
}

type faultyTxn struct {
	faultyReads
	x        ds.Txn
	f        *Faulty
	readOnly bool
}

func (x *faultyTxn) Put(ctx context.Context, key ds.Key, value []byte) error {
	return x.x.Put(ctx, key, value)
}
func (x *faultyTxn) Delete(ctx context.Context, key ds.Key) error { return x.x.Delete(ctx, key) }
func (x *faultyTxn) Discard(ctx context.Context)                  { x.x.Discard(ctx) }

func (x *faultyTxn) Commit(ctx context.Context) error { return x.commit(ctx, x.x.Commit) }

// CommitEarly implements [store.EarlyTxn], as far as the inner store does.
func (x *faultyTxn) CommitEarly(ctx context.Context) error {
	if e, ok := x.x.(store.EarlyTxn); ok {
		return x.commit(ctx, e.CommitEarly)
	}
	return x.commit(ctx, x.x.Commit)
}

func (x *faultyTxn) commit(ctx context.Context, do func(context.Context) error) error {
	if !x.readOnly {
		if err := x.f.hit(ctx, &x.f.writes); err != nil {
			x.x.Discard(ctx)
			return err
		}
	}
	return do(ctx)
}
