package badger_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/store/badger"
)

// TestFlatten rewrites the same keys and has the old versions removed.
func TestFlatten(t *testing.T) {
	s, err := badger.Open(t.TempDir(), badger.Fast())
	require.NoError(t, err)
	defer s.Close()
	require.False(t, s.ShouldFlatten(time.Now().Add(time.Hour)), "nothing was written")
	rng := rand.NewChaCha8([32]byte{1})
	const rounds, keys = 12, 2000
	last := make([][]byte, keys)
	for range rounds {
		b, err := s.Batch(ctx)
		require.NoError(t, err)
		for i := range keys {
			last[i] = make([]byte, 1000)
			_, _ = rng.Read(last[i])
			require.NoError(t, b.Put(ctx, ds.NewKey(fmt.Sprintf("/r/%d", i)), last[i]))
		}
		require.NoError(t, b.Commit(ctx))
	}
	require.False(t, s.ShouldFlatten(time.Now()), "not idle")
	require.True(t, s.ShouldFlatten(time.Now().Add(time.Hour)))
	s.Flatten()
	require.False(t, s.ShouldFlatten(time.Now().Add(time.Hour)), "done")
	for i := range keys {
		v, err := s.Get(ctx, ds.NewKey(fmt.Sprintf("/r/%d", i)))
		require.NoError(t, err)
		require.Equal(t, last[i], v)
	}
	res, err := s.Query(ctx, query.Query{Prefix: "/r", KeysOnly: true})
	require.NoError(t, err)
	all, err := res.Rest()
	require.NoError(t, err)
	require.Len(t, all, keys)
}
