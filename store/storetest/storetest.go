// Package storetest checks that a store keeps the promises of package store, and
// offers stores that fail and crash for the tests of those who use one.
package storetest

import (
	"context"
	"os"
	"slices"
	"testing"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	dstest "github.com/ipfs/go-datastore/test"
	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/store"
)

// Config says how to make the store under test.
type Config struct {
	// Open opens the store in dir, an existing directory. The suite closes it.
	Open func(t testing.TB, dir string) store.Store
	// Persistent says that a store opened again in the same directory has what
	// was committed, and that this survives a kill of the process.
	Persistent bool
	// Kills is how many processes are killed while they write; 0 means 3.
	Kills int
	// Elements is the number of entries that go-datastore's own suite uses, at
	// least 20, or 0 to leave that suite out: it makes tens of thousands of single
	// writes, which takes minutes on a disk.
	Elements int
}

// Run runs the suite. For a persistent store it must be called directly by a
// Test function, which is run again in processes to be killed.
func Run(t *testing.T, c Config) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(t, c, dir)
		return
	}
	if c.Elements > 0 {
		t.Run("GoDatastore", func(t *testing.T) {
			old := dstest.ElemCount
			dstest.ElemCount = c.Elements
			defer func() { dstest.ElemCount = old }()
			dstest.SubtestAll(t, open(t, c))
		})
	}
	tests := map[string]func(*testing.T, Config){
		"Basics": testBasics, "Aliasing": testAliasing, "LargeValues": testLargeValues, "Batch": testBatch,
		"Closed": testClosed, "CloseUnderLoad": testCloseUnderLoad, "Cancelled": testCancelled,
		"Prefix": testPrefix, "Order": testOrder, "QueryOptions": testQueryOptions, "QuerySnapshot": testQuerySnapshot,
		"QueryInTxn": testQueryInTxn, "LongQuery": testLongQuery, "QueryCancelled": testQueryCancelled,
		"TxnReads": testTxnReads, "TxnEnds": testTxnEnds, "TxnReadOnly": testTxnReadOnly,
		"Conflict": testConflict, "Counter": testCounter, "TooLarge": testTooLarge, "Early": testEarly, "Model": testModel,
	}
	if c.Persistent {
		tests["Reopen"], tests["Kill"] = testReopen, testKill
	}
	names := make([]string, 0, len(tests))
	for name := range tests {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		t.Run(name, func(t *testing.T) { tests[name](t, c) })
	}
}

// open opens a store of its own, closed at the end of the test.
func open(t testing.TB, c Config) store.Store {
	s := c.Open(t, t.TempDir())
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

var ctx = context.Background()

func key(s string) ds.Key { return ds.RawKey(s) }

func put(t testing.TB, w ds.Write, k, v string) {
	t.Helper()
	require.NoError(t, w.Put(ctx, key(k), []byte(v)))
}

func has(t testing.TB, r ds.Read, k, v string) {
	t.Helper()
	got, err := r.Get(ctx, key(k))
	require.NoError(t, err, k)
	require.Equal(t, v, string(got), k)
}

func hasNot(t testing.TB, r ds.Read, k string) {
	t.Helper()
	_, err := r.Get(ctx, key(k))
	require.ErrorIs(t, err, ds.ErrNotFound, k)
	ok, err := r.Has(ctx, key(k))
	require.NoError(t, err)
	require.False(t, ok, k)
	n, err := r.GetSize(ctx, key(k))
	require.ErrorIs(t, err, ds.ErrNotFound)
	require.Equal(t, -1, n)
}

func begin(t testing.TB, s store.Store, readOnly bool) ds.Txn {
	t.Helper()
	x, err := s.NewTransaction(ctx, readOnly)
	require.NoError(t, err)
	t.Cleanup(func() { x.Discard(ctx) })
	return x
}

// keys runs a query and returns its keys in order of arrival.
func keys(t testing.TB, r ds.Read, q query.Query) []string {
	t.Helper()
	res, err := r.Query(ctx, q)
	require.NoError(t, err)
	all, err := res.Rest()
	require.NoError(t, err)
	require.NoError(t, res.Close())
	out := make([]string, 0, len(all))
	for _, e := range all {
		out = append(out, e.Key)
	}
	return out
}
