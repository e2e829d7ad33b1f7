package fetch

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/tier"
)

var rules = []cantest.HashRule{cantest.HashContent, cantest.HashTimestamp, cantest.HashRandom}

// world runs a test with one library and a started node.
func world(t *testing.T, o cantest.Options, del control.Delete, fn func(t *testing.T, n *node, s *shared)) {
	synctest.Test(t, func(t *testing.T) {
		n, s := newNode(t, o), newShared(t, del)
		n.start(s)
		fn(t, n, s)
		n.stop()
		require.NoError(t, n.svc.Close())
		s.close()
	})
}

func TestAssetsArriveWithTheirMetadata(t *testing.T) {
	for _, rule := range rules {
		for _, lacks := range []cantest.Features{0, cantest.AllFeatures} {
			t.Run(fmt.Sprintf("%v/%b", rule, lacks), func(t *testing.T) {
				world(t, cantest.Options{Rule: rule, Lacks: lacks}, control.DeleteKeep, func(t *testing.T, n *node, s *shared) {
					var all [][]byte
					for i := range 300 {
						all = append(all, small(i))
					}
					all = append(all, large(1), large(2), large(3), []byte{})
					s.say(n, record.Announce, all...)
					s.pass(n.lib)
					until(t, "all are here", time.Minute, n.idle)
					synctest.Wait()
					require.Equal(t, len(all), n.svc.Len())
					require.Empty(t, n.svc.Duplicates())
					for i, b := range all {
						d, body := bodyOf(b, i%64)
						item, ok, err := n.inv.Present(t.Context(), d)
						require.NoError(t, err)
						require.True(t, ok)
						require.Equal(t, body.Root, item.Root)
						a, _ := n.svc.Get(item.Handle)
						require.Equal(t, body.Metadata(), a.Metadata)
						e, err := n.lib.Entry(t.Context(), d)
						require.NoError(t, err)
						require.Equal(t, replica.Local{Applied: e.ID(), State: replica.Have}, n.local(d))
						require.Equal(t, min(len(b), 1), n.src.got[d])
					}
					require.Equal(t, len(all), n.count(Fetched))
					require.Zero(t, n.src.open, "staged contents are removed")
					// At rest, nothing moves.
					writes, calls := n.svc.Writes(), n.svc.Calls()
					wait(t.Context(), time.Hour)
					require.Equal(t, writes, n.svc.Writes())
					require.Equal(t, calls, n.svc.Calls())
				})
			})
		}
	}
}

func TestASingleAssetDoesNotWait(t *testing.T) {
	world(t, cantest.Options{}, control.DeleteKeep, func(t *testing.T, n *node, s *shared) {
		wait(t.Context(), time.Minute)
		begun := time.Now()
		s.say(n, record.Announce, small(1))
		s.pass(n.lib)
		synctest.Wait()
		require.True(t, n.idle())
		require.Zero(t, time.Since(begun), "no timer was involved")
	})
}

func TestEverythingArrivesThroughFaults(t *testing.T) {
	for _, rule := range rules {
		t.Run(rule.String(), func(t *testing.T) {
			world(t, cantest.Options{Rule: rule, Seed: 3}, control.DeleteKeep, func(t *testing.T, n *node, s *shared) {
				var faults []*cantest.Injected
				for _, a := range []cantest.Action{
					{Status: 500}, {Status: 502}, {Status: 503}, {Status: 429, RetryAfter: "0"}, {Status: 429, RetryAfter: "2"},
					{Status: 429, RetryAfter: "86400"}, {Status: 503, RetryAfter: "-5"}, {Status: 429, RetryAfter: "soon"},
					{Status: 503, RetryAfter: "Fri, 01 Jan 2100 00:00:00 GMT"}, {Kind: cantest.ActAnswerLost},
				} {
					faults = append(faults, n.svc.Inject(cantest.Fault{Probability: 0.035, Action: a}))
				}
				n.src.set(func() { n.src.faults = 0.05 })
				var all [][]byte
				count := tier.Of(300, 2000)
				if rule == cantest.HashTimestamp {
					count = tier.Of(2000, 2000)
				}
				for i := range count {
					all = append(all, small(i))
				}
				s.say(n, record.Announce, all...)
				s.pass(n.lib)
				begun := time.Now()
				until(t, "all are here", 4*time.Hour, n.idle)
				t.Log("virtual time:", time.Since(begun), "stats:", n.ing.Stats(), "calls:", n.svc.Calls())
				for i, f := range faults {
					require.True(t, f.Fired() > 0 || testing.Short(), "fault %d", i)
				}
				require.Positive(t, n.src.faultCount())
				require.Equal(t, len(all), n.svc.Len())
				require.Empty(t, n.svc.Duplicates())
				for d, c := range n.svc.Posts() {
					require.LessOrEqual(t, c, 1, "%s", d)
				}
			})
		})
	}
}

func TestAServiceThatIsDown(t *testing.T) {
	world(t, cantest.Options{Rule: cantest.HashTimestamp}, control.DeleteKeep, func(t *testing.T, n *node, s *shared) {
		n.svc.SetDown(true)
		var all [][]byte
		for i := range 500 {
			all = append(all, small(i))
		}
		s.say(n, record.Announce, all...)
		s.pass(n.lib)
		wait(t.Context(), 5*time.Second)
		require.False(t, n.ing.Health().Up)
		p, err := n.f.Progress(t.Context(), n.lib.ID())
		require.NoError(t, err)
		require.EqualValues(t, 500, p.Wanted)
		require.Positive(t, p.Failed[replica.ServiceDown])
		wait(t.Context(), time.Hour)
		require.Less(t, n.count(Failed), 200, "the service is left alone")
		n.svc.SetDown(false)
		until(t, "all are here", 90*time.Second, n.idle)
		require.Equal(t, 500, n.svc.Len())
		require.Empty(t, n.svc.Duplicates())
		p, err = n.f.Progress(t.Context(), n.lib.ID())
		require.NoError(t, err)
		require.Empty(t, p.Failed)
		require.Zero(t, p.Wanted)
	})
}

func TestWithoutPeersARowSaysSoAndKickEndsTheWait(t *testing.T) {
	world(t, cantest.Options{}, control.DeleteKeep, func(t *testing.T, n *node, s *shared) {
		n.src.set(func() { n.src.away = true })
		var all [][]byte
		for i := range window + 200 {
			all = append(all, small(i))
		}
		s.say(n, record.Announce, all...)
		s.pass(n.lib)
		wait(t.Context(), 3*time.Minute)
		d, _ := bodyOf(small(7), 0)
		require.Equal(t, replica.NoPeer, n.work(d).Cause)
		require.NotEmpty(t, n.work(d).Detail)
		require.Greater(t, n.work(d).Attempts, uint32(1))
		p, err := n.f.Progress(t.Context(), n.lib.ID())
		require.NoError(t, err)
		require.EqualValues(t, len(all), p.Failed[replica.NoPeer])
		n.src.set(func() { n.src.away = false })
		n.f.Kick(n.lib.ID())
		until(t, "all are here", 5*time.Second, n.idle)
		require.Equal(t, len(all), n.svc.Len())
	})
}

func TestAPausedLibraryDoesNothing(t *testing.T) {
	world(t, cantest.Options{}, control.DeleteKeep, func(t *testing.T, n *node, s *shared) {
		hold := make(chan struct{})
		n.src.set(func() { n.src.hold = hold })
		s.say(n, record.Announce, large(1))
		s.pass(n.lib)
		synctest.Wait()
		d, _ := bodyOf(large(1), 0)
		require.Equal(t, replica.Partial, n.work(d).State)
		p, err := n.f.Progress(t.Context(), n.lib.ID())
		require.NoError(t, err)
		require.Equal(t, 1, p.Running)
		require.Equal(t, int64(len(large(1))), p.Total)
		require.Equal(t, p.Total/2, p.Done)

		n.lib.SetMode(library.ModePaused)
		n.f.Kick(n.lib.ID())
		s.say(n, record.Announce, small(1))
		s.pass(n.lib)
		wait(t.Context(), time.Hour)
		p, err = n.f.Progress(t.Context(), n.lib.ID())
		require.NoError(t, err)
		require.Zero(t, p.Running)
		require.Zero(t, n.svc.Calls()[cantest.RouteIngest])
		require.Zero(t, n.count(Failed))
		close(hold)
		n.lib.SetMode(library.ModeSync)
		n.f.Kick(n.lib.ID())
		until(t, "both are here", time.Second, n.idle)
		require.Equal(t, 2, n.svc.Len())
	})
}

func TestBadContentIsNotFetchedAgainUntilTheRecordChanges(t *testing.T) {
	world(t, cantest.Options{}, control.DeleteKeep, func(t *testing.T, n *node, s *shared) {
		d, body := bodyOf(small(1), 0)
		n.src.set(func() { n.src.bad[d] = true })
		s.say(n, record.Announce, small(1))
		s.pass(n.lib)
		wait(t.Context(), 50*time.Minute)
		require.Equal(t, replica.BadContent, n.work(d).Cause)
		require.Equal(t, 1, n.src.faultCount())
		n.src.set(func() { n.src.bad[d] = false })
		body.Description = "mended"
		s.edit(d, body)
		s.pass(n.lib)
		synctest.Wait()
		require.True(t, n.idle())
		require.Equal(t, 1, n.svc.Len())
	})
}

func TestAFullDisk(t *testing.T) {
	var free atomic.Uint64
	synctest.Test(t, func(t *testing.T) {
		n, s := newNode(t, cantest.Options{}), newShared(t, control.DeleteKeep)
		n.with = func(c *Config) {
			c.Space = func() (uint64, error) { return free.Load(), nil }
			c.Reserve = 1 << 20
		}
		free.Store(1<<20 + 80<<10) // for one of the large ones and not for two
		n.start(s)
		hold := make(chan struct{})
		n.src.set(func() { n.src.hold = hold })
		s.say(n, record.Announce, large(1), large(2), small(1))
		s.pass(n.lib)
		wait(t.Context(), time.Second)
		close(hold)
		wait(t.Context(), time.Second)
		require.Positive(t, n.svc.Len())
		free.Store(1 << 20)
		n.src.set(func() { n.src.full = true })
		s.say(n, record.Announce, large(3), large(4))
		s.pass(n.lib)
		wait(t.Context(), 10*time.Minute)
		d, _ := bodyOf(large(3), 0)
		require.Equal(t, replica.NoSpace, n.work(d).Cause)
		free.Store(1 << 30)
		wait(t.Context(), time.Minute)
		require.Positive(t, n.src.faultCount(), "now the source says that there is no space")
		require.Equal(t, replica.NoSpace, n.work(d).Cause)
		n.src.set(func() { n.src.full = false })
		until(t, "all are here", 30*time.Second, n.idle)
		require.Equal(t, 5, n.svc.Len())
		n.stop()
		require.NoError(t, n.svc.Close())
		s.close()
	})
}

func TestEditsAreAppliedOnce(t *testing.T) {
	for name, o := range map[string]cantest.Options{
		"all":      {},
		"minimal":  {Lacks: cantest.AllFeatures, Rule: cantest.HashTimestamp},
		"noupdate": {Lacks: cantest.FeatureUpdate},
		"blind":    {Lacks: cantest.FeatureMeta},
		"dropper":  {Echo: droppers, Rule: cantest.HashRandom},
	} {
		t.Run(name, func(t *testing.T) {
			world(t, o, control.DeleteKeep, func(t *testing.T, n *node, s *shared) {
				s.say(n, record.Announce, small(1))
				s.pass(n.lib)
				synctest.Wait()
				d, body := bodyOf(small(1), 0)
				for i := range 5 {
					body.Description, body.Tags = fmt.Sprint("edit ", i), []string{"q", "b", "a"}
					s.edit(d, body)
				}
				s.pass(n.lib)
				until(t, "it is applied", time.Minute, n.idle)
				writes := n.svc.Writes()
				wait(t.Context(), time.Hour)
				require.Equal(t, writes, n.svc.Writes(), "at rest nothing moves")
				require.Equal(t, 1, n.svc.Calls()[cantest.RouteIngest])
				item, ok, err := n.inv.Present(t.Context(), d)
				require.NoError(t, err)
				require.True(t, ok)
				a, _ := n.svc.Get(item.Handle)
				if item.Baseline != (inventory.Fingerprint{}) {
					require.Equal(t, inventory.FingerprintOf(a.Metadata), item.Baseline)
				}
				switch name {
				case "all":
					require.Equal(t, body.Metadata(), a.Metadata)
				case "blind":
					require.Equal(t, body.Description, a.Description)
				case "noupdate", "minimal":
					require.Equal(t, "d 0", a.Description)
				}
				require.Equal(t, replica.Have, n.local(d).State)
			})
		})
	}
}
