package announce

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/store"
)

// reading counts what is asked of a store.
type reading struct {
	store.Store
	gets, queries, writes atomic.Int64
}

func (r *reading) Get(ctx context.Context, k ds.Key) ([]byte, error) {
	r.gets.Add(1)
	return r.Store.Get(ctx, k)
}

func (r *reading) Query(ctx context.Context, q query.Query) (query.Results, error) {
	r.queries.Add(1)
	return r.Store.Query(ctx, q)
}

func (r *reading) Put(ctx context.Context, k ds.Key, v []byte) error {
	r.writes.Add(1)
	return r.Store.Put(ctx, k, v)
}

func (r *reading) Delete(ctx context.Context, k ds.Key) error {
	r.writes.Add(1)
	return r.Store.Delete(ctx, k)
}

func (r *reading) NewTransaction(ctx context.Context, readOnly bool) (ds.Txn, error) {
	if !readOnly {
		r.writes.Add(1)
	}
	return r.Store.NewTransaction(ctx, readOnly)
}

// P9: at rest the service is polled once for all libraries, the store is not
// written to, and it is read only for what a poll lists.
func TestAtRestThereIsOnePollForAllLibraries(t *testing.T) {
	const libraries, interval, hours = 10, 5 * time.Second, 3
	for name, lacks := range map[string]cantest.Features{"changes": 0, "lists": cantest.FeatureChanges | cantest.FeatureEvents} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, cantest.Options{Lacks: lacks})
				r := &reading{Store: w.store}
				w.inv = inventory.New(r)
				for range libraries {
					w.library(filter.Filter{})
				}
				w.many(0, 300)
				w.start(func(c *Config) { c.PollInterval, c.FullScanInterval = interval, 24*time.Hour })
				settle()
				for _, l := range w.libs {
					require.EqualValues(t, 300, l.Counts().Live)
				}
				calls := w.svc.Calls()
				gets, queries, writes := r.gets.Load(), r.queries.Load(), r.writes.Load()
				time.Sleep(hours * time.Hour)
				synctest.Wait()
				total := 0
				for route, n := range w.svc.Calls() {
					total += n - calls[route]
				}
				polls := int(hours * time.Hour / interval)
				require.InDelta(t, polls, total, 100, "some are asked whether the service has learnt a call")
				require.Equal(t, writes, r.writes.Load())
				require.LessOrEqual(t, r.queries.Load()-queries, int64(0))
				if lacks == 0 {
					require.Equal(t, gets, r.gets.Load(), "no change was listed")
				} else {
					require.LessOrEqual(t, r.gets.Load()-gets, int64(firstPage*polls))
				}
				w.close()
			})
		})
	}
}
