package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs/go-datastore/query"
	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/store"
)

func testBasics(t *testing.T, c Config) {
	s := open(t, c)
	hasNot(t, s, "/a")
	require.NoError(t, s.Delete(ctx, key("/a")), "deleting what is absent is no error")
	put(t, s, "/a", "1")
	has(t, s, "/a", "1")
	put(t, s, "/a", "22")
	has(t, s, "/a", "22")
	n, err := s.GetSize(ctx, key("/a"))
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.NoError(t, s.Delete(ctx, key("/a")))
	hasNot(t, s, "/a")
	require.NoError(t, s.Put(ctx, key("/empty"), nil))
	got, err := s.Get(ctx, key("/empty"))
	require.NoError(t, err)
	require.NotNil(t, got)
	require.Empty(t, got)
	require.NoError(t, s.Sync(ctx, key("/")))
	if r, ok := s.(store.SpaceReporter); ok {
		free, reserve, err := r.Space()
		require.NoError(t, err)
		require.NotZero(t, free)
		require.NotZero(t, reserve)
	}
}

func testAliasing(t *testing.T, c Config) {
	s := open(t, c)
	v := []byte("value")
	require.NoError(t, s.Put(ctx, key("/a"), v))
	x := begin(t, s, false)
	require.NoError(t, x.Put(ctx, key("/t"), v))
	b, err := s.Batch(ctx)
	require.NoError(t, err)
	require.NoError(t, b.Put(ctx, key("/b"), v))
	require.Equal(t, "value", string(v), "the store must not change what it is given")
	copy(v, "XXXXX")
	require.NoError(t, x.Commit(ctx))
	require.NoError(t, b.Commit(ctx))
	for _, k := range []string{"/a", "/t", "/b"} {
		has(t, s, k, "value")
		got, err := s.Get(ctx, key(k))
		require.NoError(t, err)
		copy(got, "YYYYY")
		_ = append(got, "ZZZZZ"...)
		has(t, s, k, "value")
	}
	res, err := s.Query(ctx, query.Query{})
	require.NoError(t, err)
	all, err := res.Rest()
	require.NoError(t, err)
	for _, e := range all {
		copy(e.Value, "QQQQQ")
	}
	has(t, s, "/a", "value")
}

func testLargeValues(t *testing.T, c Config) {
	s := open(t, c)
	for _, n := range []int{100 << 10, store.MaxValue - 1, store.MaxValue} {
		v := bytes.Repeat([]byte{byte(n), 1, 2}, n/3+1)[:n]
		x := begin(t, s, false)
		require.NoError(t, x.Put(ctx, key("/large"), v), "%d", n)
		require.NoError(t, x.Commit(ctx), "%d", n)
		got, err := s.Get(ctx, key("/large"))
		require.NoError(t, err)
		require.True(t, bytes.Equal(v, got), "%d", n)
		size, err := s.GetSize(ctx, key("/large"))
		require.NoError(t, err)
		require.Equal(t, n, size)
		res, err := s.Query(ctx, query.Query{KeysOnly: true, ReturnsSizes: true})
		require.NoError(t, err)
		all, err := res.Rest()
		require.NoError(t, err)
		require.Len(t, all, 1)
		require.Equal(t, n, all[0].Size)
		require.Nil(t, all[0].Value)
	}
	huge := make([]byte, store.MaxValue+1)
	require.ErrorIs(t, s.Put(ctx, key("/huge"), huge), store.ErrTooLarge)
	require.ErrorIs(t, begin(t, s, false).Put(ctx, key("/huge"), huge), store.ErrTooLarge)
	hasNot(t, s, "/huge")
	long := "/" + strings.Repeat("k", store.MaxKey-1)
	put(t, s, long, "v")
	has(t, s, long, "v")
}

func testBatch(t *testing.T, c Config) {
	s := open(t, c)
	put(t, s, "/gone", "x")
	b, err := s.Batch(ctx)
	require.NoError(t, err)
	const n = 20_000 // more than a transaction holds
	v := []byte(strings.Repeat("v", 100))
	for i := range n {
		require.NoError(t, b.Put(ctx, key(fmt.Sprintf("/b/%06d", i)), v))
	}
	require.NoError(t, b.Delete(ctx, key("/gone")))
	require.NoError(t, b.Put(ctx, key("/b/000000"), []byte("last wins")))
	has(t, s, "/gone", "x")
	require.NoError(t, b.Commit(ctx))
	hasNot(t, s, "/gone")
	has(t, s, "/b/000000", "last wins")
	require.Len(t, keys(t, s, query.Query{Prefix: "/b", KeysOnly: true}), n)
	empty, err := s.Batch(ctx)
	require.NoError(t, err)
	require.NoError(t, empty.Commit(ctx))
}

func testClosed(t *testing.T, c Config) {
	s := c.Open(t, t.TempDir())
	put(t, s, "/a", "1")
	x, err := s.NewTransaction(ctx, false)
	require.NoError(t, err)
	put(t, x, "/x", "1")
	ro, err := s.NewTransaction(ctx, true)
	require.NoError(t, err)
	b, err := s.Batch(ctx)
	require.NoError(t, err)
	put(t, b, "/b", "1")
	res, err := s.Query(ctx, query.Query{})
	require.NoError(t, err)

	require.NoError(t, s.Close())
	require.NoError(t, s.Close(), "Close may be called again")

	_, err = s.Get(ctx, key("/a"))
	require.ErrorIs(t, err, store.ErrClosed)
	_, err = s.Has(ctx, key("/a"))
	require.ErrorIs(t, err, store.ErrClosed)
	_, err = s.GetSize(ctx, key("/a"))
	require.ErrorIs(t, err, store.ErrClosed)
	require.ErrorIs(t, s.Put(ctx, key("/a"), nil), store.ErrClosed)
	require.ErrorIs(t, s.Delete(ctx, key("/a")), store.ErrClosed)
	require.ErrorIs(t, s.Sync(ctx, key("/")), store.ErrClosed)
	_, err = s.Query(ctx, query.Query{})
	require.ErrorIs(t, err, store.ErrClosed)
	_, err = s.Batch(ctx)
	require.ErrorIs(t, err, store.ErrClosed)
	_, err = s.NewTransaction(ctx, false)
	require.ErrorIs(t, err, store.ErrClosed)

	require.ErrorIs(t, x.Put(ctx, key("/y"), nil), store.ErrClosed)
	require.ErrorIs(t, x.Delete(ctx, key("/y")), store.ErrClosed)
	_, err = x.Get(ctx, key("/x"))
	require.ErrorIs(t, err, store.ErrClosed)
	require.ErrorIs(t, x.Commit(ctx), store.ErrClosed)
	_, err = ro.Has(ctx, key("/a"))
	require.ErrorIs(t, err, store.ErrClosed)
	_, err = ro.Query(ctx, query.Query{})
	require.ErrorIs(t, err, store.ErrClosed)
	x.Discard(ctx)
	ro.Discard(ctx)
	require.ErrorIs(t, b.Commit(ctx), store.ErrClosed)
	_, err = res.Rest()
	require.ErrorIs(t, err, store.ErrClosed)
	require.NoError(t, res.Close())
}

// testCloseUnderLoad closes while others read and write: each call works or
// fails with ErrClosed, and Close returns.
func testCloseUnderLoad(t *testing.T, c Config) {
	s := c.Open(t, t.TempDir())
	var wg, begun sync.WaitGroup
	errs := make(chan error, 64)
	for g := range 4 {
		begun.Add(1)
		wg.Go(func() {
			for i := 0; ; i++ {
				err := work(s, g, i)
				if i == 0 {
					begun.Done()
				}
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	begun.Wait()
	for range 3 {
		wg.Go(func() {
			if err := s.Close(); err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	close(errs)
	n := 0
	for err := range errs {
		require.ErrorIs(t, err, store.ErrClosed)
		n++
	}
	require.Equal(t, 4, n, "each worker ends by the Close")
}

func work(s store.Store, g, i int) error {
	x, err := s.NewTransaction(ctx, false)
	if err != nil {
		return err
	}
	defer x.Discard(ctx)
	k := key(fmt.Sprintf("/w/%d/%d", g, i%10))
	if err := x.Put(ctx, k, []byte("v")); err != nil {
		return err
	}
	if err := x.Commit(ctx); err != nil {
		return err
	}
	res, err := s.Query(ctx, query.Query{Prefix: "/w"})
	if err != nil {
		return err
	}
	defer res.Close()
	for r := range res.Next() {
		if r.Error != nil {
			return r.Error
		}
	}
	return nil
}

func testCancelled(t *testing.T, c Config) {
	s := open(t, c)
	put(t, s, "/a", "1")
	done, cancel := context.WithCancelCause(ctx)
	cancel(errors.New("test"))
	x := begin(t, s, false)
	put(t, x, "/x", "1")
	_, err := s.Get(done, key("/a"))
	require.ErrorIs(t, err, context.Canceled)
	_, err = s.Query(done, query.Query{})
	require.ErrorIs(t, err, context.Canceled)
	_, err = s.NewTransaction(done, false)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, s.Put(done, key("/b"), nil), context.Canceled)
	require.ErrorIs(t, s.Delete(done, key("/a")), context.Canceled)
	require.ErrorIs(t, x.Commit(done), context.Canceled)
	has(t, s, "/a", "1")
	hasNot(t, s, "/b")
	hasNot(t, s, "/x")
}
