package storetest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs/go-datastore/query"
	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/store"
)

func testTxnReads(t *testing.T, c Config) {
	s := open(t, c)
	put(t, s, "/a", "1")
	put(t, s, "/b", "1")
	x := begin(t, s, false)
	put(t, x, "/a", "2")
	require.NoError(t, x.Delete(ctx, key("/b")))
	put(t, x, "/c", "2")
	has(t, x, "/a", "2")
	hasNot(t, x, "/b")
	n, err := x.GetSize(ctx, key("/c"))
	require.NoError(t, err)
	require.Equal(t, 1, n)
	has(t, s, "/a", "1")
	has(t, s, "/b", "1")
	hasNot(t, s, "/c")
	old := begin(t, s, true)
	require.NoError(t, x.Commit(ctx))
	has(t, s, "/a", "2")
	hasNot(t, s, "/b")
	has(t, s, "/c", "2")
	has(t, old, "/a", "1")
	has(t, old, "/b", "1")
	hasNot(t, old, "/c")
}

func testTxnEnds(t *testing.T, c Config) {
	s := open(t, c)
	x := begin(t, s, false)
	put(t, x, "/a", "1")
	x.Discard(ctx)
	x.Discard(ctx)
	hasNot(t, s, "/a")
	require.ErrorIs(t, x.Put(ctx, key("/a"), nil), store.ErrDone)
	require.ErrorIs(t, x.Commit(ctx), store.ErrDone)
	x = begin(t, s, false)
	put(t, x, "/a", "2")
	require.NoError(t, x.Commit(ctx))
	_, err := x.Get(ctx, key("/a"))
	require.ErrorIs(t, err, store.ErrDone)
	_, err = x.Query(ctx, query.Query{})
	require.ErrorIs(t, err, store.ErrDone)
	require.ErrorIs(t, x.Commit(ctx), store.ErrDone)
	x.Discard(ctx)
	has(t, s, "/a", "2")
	require.NoError(t, begin(t, s, false).Commit(ctx), "an empty transaction commits")
}

func testTxnReadOnly(t *testing.T, c Config) {
	s := open(t, c)
	put(t, s, "/a", "1")
	x := begin(t, s, true)
	require.ErrorIs(t, x.Put(ctx, key("/a"), []byte("2")), store.ErrReadOnly)
	require.ErrorIs(t, x.Delete(ctx, key("/a")), store.ErrReadOnly)
	has(t, x, "/a", "1")
	require.NoError(t, x.Commit(ctx))
	has(t, s, "/a", "1")
}

func testConflict(t *testing.T, c Config) {
	s := open(t, c)
	put(t, s, "/k", "0")
	put(t, s, "/p/1", "0")

	// Both read and write the key: the later one fails and leaves nothing.
	one, two := begin(t, s, false), begin(t, s, false)
	has(t, one, "/k", "0")
	has(t, two, "/k", "0")
	put(t, one, "/k", "1")
	put(t, two, "/k", "2")
	put(t, two, "/other", "2")
	require.NoError(t, one.Commit(ctx))
	require.ErrorIs(t, two.Commit(ctx), store.ErrConflict)
	has(t, s, "/k", "1")
	hasNot(t, s, "/other")

	// An absent key that was looked for counts, and so does one found by a query.
	for _, read := range []func(t *testing.T, k string) func() error{
		func(t *testing.T, k string) func() error {
			x := begin(t, s, false)
			ok, err := x.Has(ctx, key(k+"/new"))
			require.NoError(t, err)
			require.False(t, ok)
			put(t, x, k+"/mine", "x")
			put(t, s, k+"/new", "theirs")
			return func() error { return x.Commit(ctx) }
		},
		func(t *testing.T, k string) func() error {
			put(t, s, k+"/there", "0")
			x := begin(t, s, false)
			require.Len(t, keys(t, x, query.Query{Prefix: k}), 1)
			put(t, x, k+"/mine", "x")
			require.NoError(t, s.Delete(ctx, key(k+"/there")))
			return func() error { return x.Commit(ctx) }
		},
	} {
		k := "/c" + strconv.Itoa(len(keys(t, s, query.Query{})))
		require.ErrorIs(t, read(t, k)(), store.ErrConflict)
		hasNot(t, s, k+"/mine")
	}

	// Different keys, and writes without reads, do not conflict.
	one, two = begin(t, s, false), begin(t, s, false)
	has(t, one, "/k", "1")
	put(t, one, "/x", "1")
	put(t, two, "/y", "1")
	put(t, two, "/x", "2")
	require.NoError(t, one.Commit(ctx))
	require.NoError(t, two.Commit(ctx))
	has(t, s, "/x", "2")

	// A transaction that began after the other's commit sees it.
	x := begin(t, s, false)
	has(t, x, "/x", "2")
	put(t, x, "/x", "3")
	require.NoError(t, x.Commit(ctx))
}

// testCounter lets several goroutines count up together: no increment is lost.
func testCounter(t *testing.T, c Config) {
	s := open(t, c)
	put(t, s, "/n", "0")
	const workers, each = 4, 25
	add := func() error {
		x, err := s.NewTransaction(ctx, false)
		if err != nil {
			return err
		}
		defer x.Discard(ctx)
		v, err := x.Get(ctx, key("/n"))
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(v))
		if err != nil {
			return err
		}
		if err := x.Put(ctx, key("/n"), []byte(strconv.Itoa(n+1))); err != nil {
			return err
		}
		return x.Commit(ctx)
	}
	var wg sync.WaitGroup
	errs := make(chan error, workers)
	for range workers {
		wg.Go(func() {
			for done := 0; done < each; {
				switch err := add(); {
				case err == nil:
					done++
				case !errors.Is(err, store.ErrConflict):
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	require.NoError(t, <-errs)
	has(t, s, "/n", strconv.Itoa(workers*each))
}

func testTooLarge(t *testing.T, c Config) {
	s := open(t, c)
	const limit = 128 << 20
	v := strings.Repeat("v", 32<<10)
	x := begin(t, s, false)
	var err error
	n := 0
	for ; err == nil && n < limit; n += len(v) {
		err = x.Put(ctx, key(fmt.Sprintf("/t/%d", n)), []byte(v))
	}
	if err == nil {
		err = x.Commit(ctx)
	} else {
		require.ErrorIs(t, x.Commit(ctx), store.ErrTooLarge, "what fitted is not committed")
	}
	require.ErrorIs(t, err, store.ErrTooLarge)
	require.GreaterOrEqual(t, n, 1<<20, "a transaction holds a mebibyte")
	require.Empty(t, keys(t, s, query.Query{Prefix: "/t"}))

	x = begin(t, s, false)
	for n = 0; n < 1<<20; n++ {
		if err = x.Put(ctx, key(fmt.Sprintf("/t/%d", n)), nil); err != nil {
			break
		}
	}
	require.ErrorIs(t, err, store.ErrTooLarge)
	require.GreaterOrEqual(t, n, 3000, "a transaction holds thousands of small writes")
	x.Discard(ctx)
	require.Empty(t, keys(t, s, query.Query{Prefix: "/t"}))

	long := key("/" + strings.Repeat("k", 100_000))
	require.ErrorIs(t, s.Put(ctx, long, nil), store.ErrTooLarge)
	put(t, s, "/t/ok", "v")
}
