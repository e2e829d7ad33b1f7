package fetch

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"pgregory.net/rapid"

	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
)

// heldBytes is what the service holds.
func (n *node) heldBytes() (sum int64) {
	for _, as := range n.svc.Holdings() {
		for _, a := range as {
			sum += a.Size
		}
	}
	return sum
}

func TestAQuotaStopsAndResumes(t *testing.T) {
	world(t, cantest.Options{}, control.DeleteKeep, func(t *testing.T, n *node, s *shared) {
		n.f.SetQuota(n.lib.ID(), 1000)
		b := make([][]byte, 50)
		for i := range b {
			b[i] = make([]byte, 100)
			copy(b[i], small(i))
		}
		s.say(n, record.Announce, b...)
		s.pass(n.lib)
		until(t, "ten fit", time.Minute, func() bool { return n.svc.Len() == 10 })
		wait(t.Context(), time.Hour)
		synctest.Wait()
		require.Equal(t, 10, n.svc.Len())
		require.EqualValues(t, 1000, n.heldBytes())
		p, err := n.f.Progress(t.Context(), n.lib.ID())
		require.NoError(t, err)
		require.EqualValues(t, 40, p.Failed[replica.NoSpace])
		require.EqualValues(t, 4000, p.Missing)
		for w, err := range n.lib.Queue(t.Context()) {
			require.NoError(t, err)
			require.Contains(t, w.Detail, "quota")
		}
		// An attempt now and then, no storm.
		failed := n.count(Failed)
		wait(t.Context(), time.Hour)
		require.Less(t, n.count(Failed)-failed, 40*13)

		n.f.SetQuota(n.lib.ID(), 2050)
		until(t, "a larger quota counts at once", 5*time.Second, func() bool { return n.svc.Len() == 20 })
		wait(t.Context(), time.Hour)
		require.Equal(t, 20, n.svc.Len())

		n.f.SetQuota(n.lib.ID(), 0)
		until(t, "all without one", 5*time.Second, n.idle)
		require.Equal(t, 50, n.svc.Len())
	})
}

func TestWhatLeavesALibraryMakesRoomInItsQuota(t *testing.T) {
	world(t, cantest.Options{}, control.DeleteTrash, func(t *testing.T, n *node, s *shared) {
		n.f.SetQuota(n.lib.ID(), int64(len(large(1)))+100)
		s.say(n, record.Announce, large(1))
		s.pass(n.lib)
		until(t, "it came", time.Minute, n.idle)
		s.say(n, record.Announce, large(2))
		s.pass(n.lib)
		wait(t.Context(), time.Minute)
		require.False(t, n.idle())
		s.say(n, record.Announce, make([]byte, 60)) // a smaller one still fits
		s.pass(n.lib)
		until(t, "the small one came", time.Minute, func() bool { return n.lib.Counts().Queued == 1 })
		d, _ := bodyOf(large(1), 0)
		s.remove(d)
		s.pass(n.lib)
		until(t, "there is room", 20*time.Minute, n.idle)
		require.Len(t, n.metadata(t), 2)
	})
}

// metadata counts what is not trashed.
func (n *node) metadata(t *testing.T) (live []string) {
	for _, as := range n.svc.Holdings() {
		for _, a := range as {
			if !a.Trashed {
				live = append(live, a.Handle)
			}
		}
	}
	return live
}

// Whatever is announced, removed or put into the service by others, a fetch never
// takes the library beyond its quota, and what fits comes.
func TestAQuotaIsNeverExceeded(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		quota := rapid.Int64Range(1, 6000).Draw(rt, "quota")
		steps := rapid.SliceOfN(rapid.IntRange(0, 59), 1, 25).Draw(rt, "steps")
		synctest.Test(t, func(t *testing.T) {
			n, s := newNode(t, cantest.Options{}), newShared(t, control.DeleteTrash)
			n.start(s)
			n.f.SetQuota(n.lib.ID(), quota)
			said := make(map[int][]byte)
			for _, k := range steps {
				b := make([]byte, 20+k*17)
				copy(b, small(k))
				switch {
				case said[k] == nil:
					said[k] = b
					s.say(n, record.Announce, b)
				default:
					d, _ := bodyOf(b, 0)
					s.remove(d)
					delete(said, k)
				}
				s.pass(n.lib)
				if k%3 == 0 {
					wait(t.Context(), time.Duration(k)*time.Second)
				}
				require.LessOrEqual(t, n.liveBytes(t), quota)
			}
			wait(t.Context(), 2*time.Hour)
			synctest.Wait()
			held := n.liveBytes(t)
			require.LessOrEqual(t, held, quota)
			for w, err := range n.lib.Queue(t.Context()) {
				require.NoError(t, err)
				e, err := n.lib.Entry(t.Context(), w.Asset)
				require.NoError(t, err)
				require.Greater(t, held+int64(e.Body.Size), quota, "it would fit")
			}
			n.stop()
			require.NoError(t, n.svc.Close())
			s.close()
		})
	})
}

// liveBytes is what the service holds of the library's live assets.
func (n *node) liveBytes(t *testing.T) (sum int64) {
	for e, err := range n.lib.Entries(t.Context()) {
		require.NoError(t, err)
		_, here, err := n.inv.Present(t.Context(), e.Asset)
		require.NoError(t, err)
		if e.Member && here {
			sum += int64(e.Body.Size)
		}
	}
	return sum
}

func TestWhatIsAskedForComesFirst(t *testing.T) {
	world(t, cantest.Options{}, control.DeleteKeep, func(t *testing.T, n *node, s *shared) {
		n.stop()
		n.with = func(c *Config) { c.Small, c.Large = 1, 1 }
		n.start(s)
		n.src.set(func() { n.src.slow = time.Second })
		var all [][]byte
		for i := range 40 {
			all = append(all, small(i))
		}
		all = append(all, large(1), large(2), large(3))
		s.say(n, record.Announce, all...)
		s.pass(n.lib)
		wait(t.Context(), 100*time.Millisecond) // one of each is under way
		a, _ := bodyOf(small(33), 0)
		b, _ := bodyOf(large(3), 0)
		require.NoError(t, n.f.Fetch(t.Context(), n.lib.ID(), a, b))
		until(t, "all are here", 10*time.Minute, n.idle)
		at := func(d [32]byte) int {
			n.mu.Lock()
			defer n.mu.Unlock()
			i := 0
			for _, e := range n.events {
				if e.Kind != Fetched {
					continue
				}
				if e.Asset == d {
					return i
				}
				i++
			}
			return -1
		}
		// Behind the two under way, and in either order: both end in one instant.
		require.LessOrEqual(t, at(a), 3)
		require.LessOrEqual(t, at(b), 3)
	})
}

func TestProgressTellsWhatIsMissing(t *testing.T) {
	world(t, cantest.Options{}, control.DeleteKeep, func(t *testing.T, n *node, s *shared) {
		n.src.set(func() { n.src.slow = time.Minute })
		s.say(n, record.Announce, large(1), small(1))
		s.pass(n.lib)
		wait(t.Context(), time.Second)
		p, err := n.f.Progress(t.Context(), n.lib.ID())
		require.NoError(t, err)
		require.EqualValues(t, len(large(1))+len(small(1)), p.Missing)
		require.Len(t, p.Transfers, 1)
		require.EqualValues(t, len(large(1)), p.Transfers[0].Total)
		only, count, _, total := n.f.Moving(n.lib.ID())
		require.Equal(t, p.Transfers[0].Asset, only)
		require.Equal(t, 1, count)
		require.EqualValues(t, len(large(1)), total)
		until(t, "all are here", 10*time.Minute, n.idle)
		p, err = n.f.Progress(t.Context(), n.lib.ID())
		require.NoError(t, err)
		require.Zero(t, p.Missing)
		require.Empty(t, p.Transfers)
	})
}

// What is under way already when it is asked for keeps others from beginning beside
// it, but one of each size.
func TestWhatIsUnderWayComesFirstToo(t *testing.T) {
	world(t, cantest.Options{}, control.DeleteKeep, func(t *testing.T, n *node, s *shared) {
		n.stop()
		n.with = func(c *Config) { c.Small, c.Large = 1, 3 }
		n.start(s)
		hold := make(chan struct{})
		n.src.set(func() { n.src.hold = hold })
		first, _ := bodyOf(large(1), 0)
		s.say(n, record.Announce, large(1))
		s.pass(n.lib)
		wait(t.Context(), time.Second) // it is under way
		require.NoError(t, n.f.Fetch(t.Context(), n.lib.ID(), first))
		s.say(n, record.Announce, large(2), large(3), large(4))
		s.pass(n.lib)
		wait(t.Context(), time.Second)
		p, err := n.f.Progress(t.Context(), n.lib.ID())
		require.NoError(t, err)
		require.Equal(t, 2, p.Running, "it and one other")
		close(hold)
		until(t, "all are here", time.Minute, n.idle)
		n.f.mu.Lock()
		defer n.f.mu.Unlock()
		require.Equal(t, [2]int{}, n.f.asking)
		require.Zero(t, n.f.small+n.f.large)
	})
}
