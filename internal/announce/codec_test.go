package announce

import (
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/wire"
)

func FuzzDecodeState(f *testing.F) {
	f.Add([]byte{})
	f.Add(state{}.encode())
	f.Add(state{description: [32]byte{1}, view: [32]byte{2}, grant: [32]byte{3}, announces: true}.encode())
	f.Add(append(state{}.encode(), make([]byte, 97)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeState(b)
		if err != nil {
			require.ErrorIs(t, err, wire.ErrMalformed)
			return
		}
		require.Equal(t, b, s.encode())
	})
}

func FuzzDecodeIndex(f *testing.F) {
	f.Add([]byte{})
	f.Add(encodeIndex(nil))
	f.Add(encodeIndex([][32]byte{{1}, {2}}))
	f.Add(make([]byte, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		ids, err := decodeIndex(b)
		if err != nil {
			require.ErrorIs(t, err, wire.ErrMalformed)
			return
		}
		require.Equal(t, b, encodeIndex(ids))
	})
}

func FuzzDecodeHeld(f *testing.F) {
	f.Add([]byte{})
	f.Add(encodeHeld(0))
	f.Add(encodeHeld(1 << 30))
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := decodeHeld(b)
		if err != nil {
			require.ErrorIs(t, err, wire.ErrMalformed)
			return
		}
		require.Equal(t, b, encodeHeld(n))
	})
}

// BenchmarkAnnounce10000 announces 10,000 small assets of an in-memory service:
// listing, reading, hashing, signing, and storing them in memory.
func BenchmarkAnnounce10000(b *testing.B) {
	const assets = 10_000
	for b.Loop() {
		b.StopTimer()
		w := newWorld(b, cantest.Options{})
		w.many(0, assets)
		l := w.library(filter.Filter{})
		var n atomic.Int64
		all := make(chan struct{})
		l.Observe(func(ap replica.Applied) {
			if n.Add(int64(len(ap.Changes))) == assets {
				close(all)
			}
		})
		b.StartTimer()
		w.start()
		<-all
		b.StopTimer()
		w.close()
		b.StartTimer()
	}
	b.ReportMetric(float64(assets)*float64(b.N)/b.Elapsed().Seconds(), "assets/s")
}

// BenchmarkSteadyScan scans a service of which everything is known, with ten
// libraries.
func BenchmarkSteadyScan(b *testing.B) {
	const assets = 10_000
	w := newWorld(b, cantest.Options{})
	w.many(0, assets)
	for range 10 {
		w.library(filter.Filter{Tags: []string{"t1"}})
	}
	w.start()
	caughtUp := func() bool {
		vs, done := w.a.all()
		defer done()
		for _, v := range vs {
			if v.pending() {
				return false
			}
		}
		return true
	}
	for !caughtUp() {
		require.NoError(b, w.a.onDesk(func() {}))
	}
	before := w.reads()
	for b.Loop() {
		require.NoError(b, w.a.scan())
	}
	require.Equal(b, before, w.reads())
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/assets, "ns/asset")
	w.close()
}
