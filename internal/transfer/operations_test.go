package transfer

import (
	"context"
	"maps"
	"sync"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"

	"github.com/cansync/cansync/store"
)

// operations counts what is done with a store.
type operations struct {
	mu   sync.Mutex
	done map[string]int
}

func (o *operations) around(s store.Store) store.Store { return talliedStore{tallied{s, o}, s} }

func (o *operations) count(what string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.done == nil {
		o.done = make(map[string]int)
	}
	o.done[what]++
}

// reset returns the counts and starts from none.
func (o *operations) reset() map[string]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	done := maps.Clone(o.done)
	clear(o.done)
	if done == nil {
		done = make(map[string]int)
	}
	return done
}

// tallied counts reads and single writes.
type tallied struct {
	rw interface {
		ds.Read
		ds.Write
	}
	o *operations
}

func (c tallied) Get(ctx context.Context, k ds.Key) ([]byte, error) {
	c.o.count("get")
	return c.rw.Get(ctx, k)
}

func (c tallied) Has(ctx context.Context, k ds.Key) (bool, error) {
	c.o.count("has")
	return c.rw.Has(ctx, k)
}

func (c tallied) GetSize(ctx context.Context, k ds.Key) (int, error) {
	c.o.count("size")
	return c.rw.GetSize(ctx, k)
}

func (c tallied) Query(ctx context.Context, q query.Query) (query.Results, error) {
	c.o.count("query")
	return c.rw.Query(ctx, q)
}

func (c tallied) Put(ctx context.Context, k ds.Key, v []byte) error {
	c.o.count("put")
	return c.rw.Put(ctx, k, v)
}

func (c tallied) Delete(ctx context.Context, k ds.Key) error {
	c.o.count("delete")
	return c.rw.Delete(ctx, k)
}

// talliedStore counts transactions and batches too.
type talliedStore struct {
	tallied
	s store.Store
}

func (c talliedStore) Sync(ctx context.Context, k ds.Key) error {
	c.o.count("sync")
	return c.s.Sync(ctx, k)
}

func (c talliedStore) Batch(ctx context.Context) (ds.Batch, error) {
	c.o.count("batch")
	return c.s.Batch(ctx)
}

func (c talliedStore) NewTransaction(ctx context.Context, readOnly bool) (ds.Txn, error) {
	c.o.count("transaction")
	tx, err := c.s.NewTransaction(ctx, readOnly)
	if err != nil {
		return nil, err
	}
	return talliedTxn{tallied{tx, c.o}, tx}, nil
}

func (c talliedStore) Close() error { return c.s.Close() }

type talliedTxn struct {
	tallied
	tx ds.Txn
}

func (c talliedTxn) Commit(ctx context.Context) error {
	c.o.count("commit")
	return c.tx.Commit(ctx)
}

func (c talliedTxn) Discard(ctx context.Context) { c.tx.Discard(ctx) }
