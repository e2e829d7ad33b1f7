package storetest

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/ipfs/go-datastore/query"
	"github.com/stretchr/testify/require"
)

// Bench measures a store: single commits one after the other and by 16 at a
// time, batches, point reads and queries, of values of 300 bytes.
func Bench(b *testing.B, c Config) {
	v := make([]byte, 300)
	b.Run("Commit", func(b *testing.B) {
		s := open(b, c)
		for i := 0; b.Loop(); i++ {
			require.NoError(b, commitBoth(s, 0, i))
		}
	})
	b.Run("Commit16", func(b *testing.B) {
		s := open(b, c)
		var n atomic.Int64
		b.SetParallelism(16)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				i := int(n.Add(1))
				if err := commitBoth(s, i, i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
	b.Run("Batch1000", func(b *testing.B) {
		s := open(b, c)
		for i := 0; b.Loop(); i++ {
			w, err := s.Batch(ctx)
			require.NoError(b, err)
			for j := range 1000 {
				require.NoError(b, w.Put(ctx, key(fmt.Sprintf("/b/%08d", (i*7919+j*104729)%100_000_000)), v))
			}
			require.NoError(b, w.Commit(ctx))
		}
		b.ReportMetric(1000*float64(b.N)/b.Elapsed().Seconds(), "records/s")
	})
	s := open(b, c)
	const n = 20_000
	w, err := s.Batch(ctx)
	require.NoError(b, err)
	for i := range n {
		require.NoError(b, w.Put(ctx, key(fmt.Sprintf("/r/%06d", i)), v))
	}
	require.NoError(b, w.Commit(ctx))
	b.Run("Get", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			_, err := s.Get(ctx, key(fmt.Sprintf("/r/%06d", i*7919%n)))
			require.NoError(b, err)
		}
	})
	for _, keysOnly := range []bool{false, true} {
		b.Run(fmt.Sprintf("Query/keysOnly=%v", keysOnly), func(b *testing.B) {
			for b.Loop() {
				res, err := s.Query(ctx, query.Query{Prefix: "/r", KeysOnly: keysOnly})
				require.NoError(b, err)
				seen := 0
				for {
					r, ok := res.NextSync()
					if !ok {
						break
					}
					require.NoError(b, r.Error)
					seen++
				}
				require.Equal(b, n, seen)
			}
			b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}
