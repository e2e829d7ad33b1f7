package fetch

import (
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/transfer"
	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/store/storetest"
)

// TestARestartInEachState stops the node while an asset is wanted, partly here, or
// being ingested with and without an effect.
func TestARestartInEachState(t *testing.T) {
	for _, state := range []string{"wanted", "failed", "partial", "ingesting", "ingested"} {
		for _, big := range []bool{false, true} {
			if state == "partial" && !big {
				continue
			}
			t.Run(fmt.Sprintf("%s/large=%v", state, big), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n, s := newNode(t, cantest.Options{Rule: cantest.HashTimestamp, Lacks: cantest.FeatureTimestamp}), newShared(t, control.DeleteKeep)
					n.start(s)
					b := small(1)
					if big {
						b = large(1)
					}
					d, _ := bodyOf(b, 0)
					hold := make(chan struct{})
					want := replica.Wanted
					switch state {
					case "wanted":
						n.lib.SetMode(library.ModePaused)
					case "failed":
						n.src.set(func() { n.src.away = true })
					case "partial":
						n.src.set(func() { n.src.hold = hold })
						want = replica.Partial
					case "ingesting":
						n.svc.Inject(cantest.Fault{Route: cantest.RouteIngest, Times: 1, Action: cantest.Action{Kind: cantest.ActHangBefore}})
					case "ingested":
						n.svc.Inject(cantest.Fault{Route: cantest.RouteIngest, Times: 1, Action: cantest.Action{Kind: cantest.ActHangAfter}})
					}
					if big && (state == "ingesting" || state == "ingested") {
						want = replica.Ingesting
					}
					s.say(n, record.Announce, b)
					s.pass(n.lib)
					synctest.Wait()
					require.Equal(t, want, n.work(d).State)
					n.stop()
					require.EqualValues(t, 1, n.lib.Counts().Queued)
					require.NoError(t, n.lib.Close())
					if state == "ingested" {
						require.Equal(t, 1, n.svc.Len())
					}
					n.src.set(func() { n.src.hold, n.src.away = nil, false })
					n.start(s)
					n.f.Kick(n.lib.ID())
					until(t, "it is here", time.Minute, n.idle)
					require.Equal(t, 1, n.svc.Posts()[d])
					require.Equal(t, 1, n.svc.Len())
					require.Equal(t, replica.Have, n.local(d).State)
					n.stop()
					require.NoError(t, n.svc.Close())
					close(hold)
					s.close()
				})
			})
		}
	}
}

func TestAStoreWithoutSpaceStopsEverythingUntilThereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, s := newNode(t, cantest.Options{Rule: cantest.HashTimestamp}), newShared(t, control.DeleteKeep)
		faulty := storetest.NewFaulty(n.store)
		n.store = store.Store(faulty)
		n.start(s)
		n.lib.SetMode(library.ModePaused)
		var all [][]byte
		for i := range 300 {
			all = append(all, small(i))
		}
		s.say(n, record.Announce, all...)
		s.pass(n.lib)
		faulty.SetNoSpace(true)
		n.lib.SetMode(library.ModeSync)
		n.f.Kick(n.lib.ID())
		wait(t.Context(), 10*time.Minute)
		require.Zero(t, n.svc.Calls()[cantest.RouteIngest], "nothing is sent that can't be noted first")
		require.Positive(t, faulty.Faults())
		faulty.SetNoSpace(false)
		until(t, "all are here", time.Minute, n.idle)
		require.Equal(t, 300, n.svc.Len())
		require.Empty(t, n.svc.Duplicates())
		n.stop()
		require.NoError(t, n.svc.Close())
		s.close()
	})
}

func TestModesAndFetchOnDemand(t *testing.T) {
	world(t, cantest.Options{}, control.DeleteKeep, func(t *testing.T, n *node, s *shared) {
		n.lib.SetMode(library.ModeRecordsOnly)
		s.say(n, record.Announce, small(1), small(2), small(3), large(1))
		s.pass(n.lib)
		wait(t.Context(), time.Hour)
		require.Zero(t, n.svc.Len())
		first, _ := bodyOf(small(2), 0)
		big, _ := bodyOf(large(1), 0)
		require.ErrorIs(t, n.f.Fetch(t.Context(), [32]byte{9}, first), ErrUnknown)
		require.NoError(t, n.f.Fetch(t.Context(), n.lib.ID(), first, big))
		synctest.Wait()
		require.Equal(t, 2, n.svc.Len())
		require.Equal(t, replica.Have, n.local(first).State)
		require.Equal(t, replica.Have, n.local(big).State)

		// One that fails is tried again in this mode as well.
		third, _ := bodyOf(small(3), 0)
		n.src.set(func() { n.src.away = true })
		require.NoError(t, n.f.Fetch(t.Context(), n.lib.ID(), third))
		wait(t.Context(), time.Second)
		require.Equal(t, replica.NoPeer, n.work(third).Cause)
		n.src.set(func() { n.src.away = false })
		until(t, "it is here", 5*time.Minute, func() bool { return n.svc.Len() == 3 })
		wait(t.Context(), time.Hour)
		require.Equal(t, 3, n.svc.Len(), "the other one was not asked for")
		n.lib.SetMode(library.ModeReceiveOnly)
		n.f.Kick(n.lib.ID())
		until(t, "all are here", time.Minute, n.idle)
	})
}

func TestLeftoversAreSweptUp(t *testing.T) {
	dir, err := os.OpenRoot(t.TempDir())
	require.NoError(t, err)
	defer func() { require.NoError(t, dir.Close()) }()
	n, s := newNode(t, cantest.Options{}), newShared(t, control.DeleteKeep)
	n.with = func(c *Config) { c.Stages = dir }
	n.src.set(func() { n.src.away = true })
	s.say(n, record.Announce, large(1), large(2))
	n.start(s)
	wanted, body := bodyOf(large(1), 0)
	gone, goneBody := bodyOf(large(2), 0)
	s.remove(gone)
	s.pass(n.lib)
	for _, k := range []blob.StageKey{
		{Library: n.lib.ID(), Digest: wanted}, {Library: n.lib.ID(), Digest: gone}, {Library: [32]byte{9}, Digest: wanted},
	} {
		b := body
		if k.Digest == gone {
			b = goneBody
		}
		st, err := blob.OpenStage(dir, k, b.Root, b.Size)
		require.NoError(t, err)
		require.NoError(t, st.Close())
	}
	stages, size, err := n.f.Sweep(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2, stages)
	require.Greater(t, size, int64(2*transfer.SmallLimit))
	var left []blob.Leftover
	for l, err := range blob.Leftovers(dir) {
		require.NoError(t, err)
		left = append(left, l)
	}
	require.Len(t, left, 1)
	require.Equal(t, blob.StageKey{Library: n.lib.ID(), Digest: wanted}, left[0].Key)
	n.stop()
	require.NoError(t, n.svc.Close())
	s.close()
}

func TestDelaysGrowAndEnd(t *testing.T) {
	for _, err := range []error{errEdited, transfer.ErrBadContent, errSpace, transfer.ErrNoPeer, errPeer} {
		p := planFor(err)
		last := time.Duration(0)
		for n := range uint32(100) {
			d := p.delay(n, 0)
			require.GreaterOrEqual(t, d, last)
			require.LessOrEqual(t, p.delay(n, 1), p.most*5/4)
			last = d
		}
		require.Equal(t, p.first, p.delay(1, 0))
		require.Equal(t, p.most, last)
		require.Less(t, p.most*5/4, soon)
	}
}

// BenchmarkSmallAssets brings small assets from memory to memory.
func BenchmarkSmallAssets(b *testing.B) {
	n, s := newNode(b, cantest.Options{}), newShared(b, control.DeleteKeep)
	n.start(s)
	n.lib.SetMode(library.ModePaused)
	all := make([][]byte, 0, b.N)
	for i := range b.N {
		all = append(all, append(small(i), make([]byte, 1000)...))
	}
	s.say(n, record.Announce, all...)
	s.pass(n.lib)
	n.lib.SetMode(library.ModeSync)
	b.ResetTimer()
	n.f.Kick(n.lib.ID())
	for !n.idle() {
		wait(b.Context(), time.Millisecond)
	}
	b.StopTimer()
	require.Equal(b, b.N, n.svc.Len())
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "assets/s")
	n.stop()
	require.NoError(b, n.svc.Close())
	s.close()
}
