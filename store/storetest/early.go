package storetest

import (
	"testing"

	ds "github.com/ipfs/go-datastore"
	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/store"
)

// testEarly looks at early commits, of stores that have them: they differ from others
// in nothing but when they are durable, which [Crashable] shows.
func testEarly(t *testing.T, c Config) {
	s := open(t, c)
	early := func(x ds.Txn) error {
		if e, ok := x.(store.EarlyTxn); ok {
			return e.CommitEarly(ctx)
		}
		return x.Commit(ctx)
	}
	x := begin(t, s, false)
	put(t, x, "/a", "1")
	put(t, x, "/b", "1")
	hasNot(t, s, "/a")
	require.NoError(t, early(x))
	has(t, s, "/a", "1")
	has(t, s, "/b", "1")
	require.ErrorIs(t, early(x), store.ErrDone)
	require.NoError(t, s.Sync(ctx, key("/")))

	one, two := begin(t, s, false), begin(t, s, false)
	has(t, one, "/a", "1")
	has(t, two, "/a", "1")
	put(t, one, "/a", "2")
	put(t, two, "/a", "3")
	require.NoError(t, early(one))
	require.ErrorIs(t, early(two), store.ErrConflict)
	has(t, s, "/a", "2")

	large := begin(t, s, false)
	require.ErrorIs(t, large.Put(ctx, key("/a"), make([]byte, store.MaxValue+store.MaxKey+1<<22)), store.ErrTooLarge)
	require.ErrorIs(t, early(large), store.ErrTooLarge)
	has(t, s, "/a", "2")
	read := begin(t, s, true)
	require.NoError(t, early(read))
}
