package storetest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/store/memory"
	"github.com/cansync/cansync/store/storetest"
)

var ctx = context.Background()

func TestFaultyPasses(t *testing.T) {
	storetest.Run(t, storetest.Config{Open: func(testing.TB, string) store.Store { return storetest.NewFaulty(memory.New()) }})
}

func TestCrashablePasses(t *testing.T) {
	storetest.Run(t, storetest.Config{Open: func(testing.TB, string) store.Store { return storetest.NewCrashable(1) }})
}

func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom := errors.New("boom")
		f := storetest.NewFaulty(memory.New())
		k := ds.NewKey("/k")
		f.FailWrite(2, boom)
		require.NoError(t, f.Put(ctx, k, nil))
		x, err := f.NewTransaction(ctx, false)
		require.NoError(t, err)
		require.NoError(t, x.Put(ctx, ds.NewKey("/x"), nil))
		require.ErrorIs(t, x.Commit(ctx), boom)
		_, err = f.Get(ctx, ds.NewKey("/x"))
		require.ErrorIs(t, err, ds.ErrNotFound)
		f.SetNoSpace(true)
		require.ErrorIs(t, f.Delete(ctx, k), store.ErrNoSpace)
		free, _, err := f.Space()
		require.NoError(t, err)
		require.Zero(t, free)
		f.SetNoSpace(false)
		f.FailRead(1, boom)
		_, err = f.Has(ctx, k)
		require.ErrorIs(t, err, boom)
		require.Equal(t, 3, f.Faults())
		f.SetDelay(time.Hour)
		start := time.Now()
		require.NoError(t, f.Delete(ctx, k))
		require.Equal(t, time.Hour, time.Since(start))
		soon, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		require.ErrorIs(t, f.Put(soon, k, nil), context.DeadlineExceeded)
		require.NoError(t, f.Close())
	})
}

// TestEarlyCrash commits early and cuts the power: the first commits are kept, each as
// a whole, and all that another commit or a Sync followed.
func TestEarlyCrash(t *testing.T) {
	seen := make(map[int]int)
	for seed := range uint64(100) {
		c := storetest.NewCrashable(seed)
		commit := func(n int, early bool) {
			x, err := c.NewTransaction(ctx, false)
			require.NoError(t, err)
			require.NoError(t, x.Put(ctx, ds.NewKey(fmt.Sprintf("/%d/a", n)), nil))
			require.NoError(t, x.Put(ctx, ds.NewKey(fmt.Sprintf("/%d/b", n)), nil))
			if early {
				require.NoError(t, x.(store.EarlyTxn).CommitEarly(ctx))
			} else {
				require.NoError(t, x.Commit(ctx))
			}
		}
		commit(0, true)
		commit(1, false)
		commit(2, true)
		require.NoError(t, c.Sync(ctx, ds.NewKey("/")))
		for n := 3; n < 6; n++ {
			commit(n, true)
		}
		c = c.Crash()
		kept := 0
		for n := range 6 {
			a, err := c.Has(ctx, ds.NewKey(fmt.Sprintf("/%d/a", n)))
			require.NoError(t, err)
			b, err := c.Has(ctx, ds.NewKey(fmt.Sprintf("/%d/b", n)))
			require.NoError(t, err)
			require.Equal(t, a, b)
			if a {
				require.Equal(t, n, kept, "one before it is lost")
				kept++
			}
		}
		require.GreaterOrEqual(t, kept, 3)
		seen[kept]++
		require.NoError(t, c.Close())
	}
	require.Len(t, seen, 4)
}

func TestCrash(t *testing.T) {
	lost, kept, cut := 0, 0, 0
	for seed := range uint64(50) {
		c := storetest.NewCrashable(seed)
		require.NoError(t, c.Put(ctx, ds.NewKey("/synced"), []byte("1")))
		require.NoError(t, c.Sync(ctx, ds.NewKey("/")))
		require.NoError(t, c.Put(ctx, ds.NewKey("/maybe"), []byte("1")))
		commit := func(k string) error {
			x, err := c.NewTransaction(ctx, false)
			require.NoError(t, err)
			defer x.Discard(ctx)
			require.NoError(t, x.Put(ctx, ds.NewKey(k+"/1"), []byte("1")))
			require.NoError(t, x.Put(ctx, ds.NewKey(k+"/2"), []byte("2")))
			return x.Commit(ctx)
		}
		c.CrashAfter(2)
		require.NoError(t, commit("/a"))
		require.NoError(t, commit("/b"))
		require.ErrorIs(t, commit("/c"), store.ErrClosed)
		require.True(t, c.Crashed())
		old := c
		c = c.Crash()
		_, err := old.Get(ctx, ds.NewKey("/synced"))
		require.ErrorIs(t, err, store.ErrClosed)
		for _, k := range []string{"/synced", "/a/1", "/a/2", "/b/1", "/b/2"} {
			ok, err := c.Has(ctx, ds.NewKey(k))
			require.NoError(t, err)
			require.True(t, ok, k)
		}
		one, err := c.Has(ctx, ds.NewKey("/c/1"))
		require.NoError(t, err)
		two, err := c.Has(ctx, ds.NewKey("/c/2"))
		require.NoError(t, err)
		require.Equal(t, one, two, fmt.Sprint("seed ", seed))
		if one {
			cut++
		}
		if ok, _ := c.Has(ctx, ds.NewKey("/maybe")); ok {
			kept++
		} else {
			lost++
		}
		require.NoError(t, c.Close())
	}
	require.NotZero(t, lost)
	require.NotZero(t, kept)
	require.NotZero(t, cut)
	require.Less(t, cut, 50)
}
