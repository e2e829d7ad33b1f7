package cansync_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/transport/memory"
)

var rules = map[string]cantest.HashRule{"content": cantest.HashContent, "timestamp": cantest.HashTimestamp, "random": cantest.HashRandom}

func TestTwoNodesSyncBothWays(t *testing.T) {
	for ruleA, a := range rules {
		for ruleB, b := range rules {
			for _, lacks := range []cantest.Features{0, cantest.AllFeatures} {
				t.Run(fmt.Sprintf("%s to %s without %d", ruleA, ruleB, lacks), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						net := memory.NewNetwork(memory.Options{})
						ma := newMachine(t, net, "a", cantest.Options{Rule: a, Lacks: lacks})
						mb := newMachine(t, net, "b", cantest.Options{Rule: b, Lacks: lacks})
						fill(ma, "one", 40)
						fill(mb, "two", 30)
						ma.svc.Add([]byte("both"), can.Metadata{MIMEType: "image/gif"})
						mb.svc.Add([]byte("both"), can.Metadata{MIMEType: "image/gif"})
						ma.svc.Add([]byte("not chosen"), can.Metadata{MIMEType: "text/plain"})
						id := ma.share(cansync.Filter{MIMEPrefix: "image/"}, mb)
						eventually(t, "contents are equal", func() bool { return ma.svc.Len() == 72 && mb.svc.Len() == 71 })
						fill(ma, "three", 5)
						fill(mb, "four", 5)
						eventually(t, "later ones travel", func() bool { return ma.svc.Len() == 82 && mb.svc.Len() == 81 })
						want := ma.metadata()
						maps.DeleteFunc(want, func(_ can.Digest, m can.Metadata) bool { return m.MIMEType == "text/plain" })
						require.Equal(t, want, mb.metadata())
						for _, m := range []*machine{ma, mb} {
							require.NoError(t, m.lib(id).Wait(t.Context()))
							s, err := m.lib(id).Status(t.Context())
							require.NoError(t, err)
							require.Equal(t, cansync.StateSynced, s.State)
							require.EqualValues(t, 81, s.Assets)
							require.EqualValues(t, 81, s.Synced)
						}
						atRest(t, net, ma, mb)
						ma.close()
						mb.close()
					})
				})
			}
		}
	}
}

func TestMetadataEditsTravelBothWays(t *testing.T) {
	for name, rule := range rules {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := memory.NewNetwork(memory.Options{})
				a := newMachine(t, net, "a", cantest.Options{Rule: rule})
				b := newMachine(t, net, "b", cantest.Options{Rule: rule})
				fill(a, "one", 3)
				a.share(cansync.Filter{}, b)
				eventually(t, "b has them", func() bool { return b.svc.Len() == 3 })
				d := digestOf([]byte("one 1"))
				edit := func(m *machine, text string, tags ...string) {
					require.True(t, m.svc.Edit(m.handleOf(d), can.Update{Description: &text, Tags: &tags}))
				}
				edit(a, "changed on a", "x", "y")
				eventually(t, "b has the edit", func() bool { return b.metadata()[d].Description == "changed on a" })
				require.Equal(t, a.metadata(), b.metadata())
				edit(b, "changed on b")
				eventually(t, "a has the edit", func() bool { return a.metadata()[d].Description == "changed on b" })
				require.Equal(t, a.metadata(), b.metadata())
				atRest(t, net, a, b)
				a.close()
				b.close()
			})
		})
	}
}

// Services that keep less than they are given, or in another form, must not make
// two nodes correct each other for ever.
func TestServicesThatChangeFieldsDoNotEcho(t *testing.T) {
	drop := func(m *can.Metadata) { m.Description = "" }
	trim := func(m *can.Metadata) { m.Filename = strings.ToLower(m.Filename[:min(len(m.Filename), 5)]) }
	sorted := func(m *can.Metadata) { m.Tags = slices.Sorted(slices.Values(m.Tags)) }
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a := newMachine(t, net, "a", cantest.Options{Echo: []func(*can.Metadata){drop}})
		b := newMachine(t, net, "b", cantest.Options{Rule: cantest.HashTimestamp, Echo: []func(*can.Metadata){trim, sorted}})
		c := newMachine(t, net, "c", cantest.Options{})
		fill(a, "one", 10)
		fill(b, "two", 10)
		fill(c, "three", 10)
		a.share(cansync.Filter{}, b, c)
		eventually(t, "all have all", func() bool { return a.svc.Len() == 30 && b.svc.Len() == 30 && c.svc.Len() == 30 })
		atRest(t, net, a, b, c)
		text := "an edit"
		require.True(t, c.svc.Edit(c.handleOf(digestOf([]byte("two 1"))), can.Update{Description: &text}))
		eventually(t, "the edit travels", func() bool {
			return b.metadata()[digestOf([]byte("two 1"))].Description == "an edit"
		})
		atRest(t, net, a, b, c)
		a.close()
		b.close()
		c.close()
	})
}

func TestRemovalFollowsThePolicy(t *testing.T) {
	for _, policy := range []cansync.DeletePolicy{cansync.KeepRemoved, cansync.TrashRemoved} {
		t.Run(string(policy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := memory.NewNetwork(memory.Options{})
				a := newMachine(t, net, "a", cantest.Options{})
				b := newMachine(t, net, "b", cantest.Options{Rule: cantest.HashTimestamp})
				fill(a, "one", 10)
				id := a.share(cansync.Filter{}, b)
				require.NoError(t, a.lib(id).SetDeletePolicy(t.Context(), policy))
				eventually(t, "b has them", func() bool { return b.svc.Len() == 10 })
				require.True(t, b.svc.TrashNow(b.handleOf(digestOf([]byte("one 1")))))
				require.NoError(t, a.lib(id).Remove(t.Context(), digestOf([]byte("one 2"))))
				assets := func(m *machine) int64 {
					s, err := m.lib(id).Status(t.Context())
					require.NoError(t, err)
					return s.Assets
				}
				eventually(t, "both left the library", func() bool { return assets(a) == 8 && assets(b) == 8 })
				time.Sleep(20 * time.Minute)
				synctest.Wait()
				if policy == cansync.KeepRemoved {
					require.Equal(t, 10, len(a.metadata()))
					require.Equal(t, 9, len(b.metadata()))
				} else {
					require.Equal(t, 9, len(a.metadata())) // its own removal keeps the own copy
					require.Equal(t, 8, len(b.metadata()))
				}
				require.EqualValues(t, 8, assets(a))
				require.EqualValues(t, 8, assets(b))
				atRest(t, net, a, b)
				a.close()
				b.close()
			})
		})
	}
}

func TestANodeThatWasOffCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a := newMachine(t, net, "a", cantest.Options{})
		b := newMachine(t, net, "b", cantest.Options{Rule: cantest.HashTimestamp})
		id := a.share(cansync.Filter{Tags: []string{"one", "two"}}, b)
		fill(a, "one", 20)
		eventually(t, "b has them", func() bool { return b.svc.Len() == 20 })
		peer := b.node.PeerID()
		b.stop()
		fill(a, "two", 50)
		fill(a, "other", 5)
		fill(b, "two", 55)
		time.Sleep(3 * time.Hour)
		b.start()
		require.Equal(t, peer, b.node.PeerID())
		eventually(t, "both have all", func() bool { return a.svc.Len() == 80 && b.svc.Len() == 75 })
		require.NoError(t, b.lib(id).Wait(t.Context()))
		atRest(t, net, a, b)
		for _, n := range b.svc.Posts() {
			require.Equal(t, 1, n)
		}
		a.close()
		b.close()
	})
}

func TestWhatCHasReachesAThroughB(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a := newMachine(t, net, "a", cantest.Options{})
		b := newMachine(t, net, "b", cantest.Options{Rule: cantest.HashTimestamp})
		c := newMachine(t, net, "c", cantest.Options{})
		net.SetLink(a.node.PeerID(), c.node.PeerID(), memory.Link{Down: true})
		id := a.share(cansync.Filter{}, b)
		eventually(t, "b joined", func() bool { return b.lib(id).Access() != 0 })
		eventually(t, "b knows the description", func() bool {
			ms, err := b.lib(id).Members()
			return err == nil && len(ms) == 2
		})
		c.join(b.lib(id))
		fill(c, "c", 25)
		eventually(t, "a has what c has", func() bool { return a.svc.Len() == 25 })
		peers := func(m *machine) int {
			s, err := m.lib(id).Status(t.Context())
			require.NoError(t, err)
			return s.Peers
		}
		require.Equal(t, 1, peers(a))
		net.SetLink(a.node.PeerID(), c.node.PeerID(), memory.Link{})
		eventually(t, "all meet", func() bool { return peers(a) == 2 && peers(b) == 2 && peers(c) == 2 })
		atRest(t, net, a, b, c)
		a.close()
		b.close()
		c.close()
	})
}

func TestTheServiceMayFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a := newMachine(t, net, "a", cantest.Options{})
		b := newMachine(t, net, "b", cantest.Options{Rule: cantest.HashTimestamp})
		b.svc.SetDown(true)
		fill(a, "one", 30)
		id := a.share(cansync.Filter{}, b)
		eventually(t, "b says so", func() bool { return b.node.Status().Service.Err != nil })
		eventually(t, "b knows what it lacks", func() bool {
			if b.lib(id).Access() == 0 {
				return false
			}
			s, err := b.lib(id).Status(t.Context())
			return err == nil && s.Assets == 30 && s.Pending == 30
		})
		b.svc.SetDown(false)
		eventually(t, "b recovers", func() bool { return b.svc.Len() == 30 && b.node.Status().Service.Err == nil })
		a.svc.SetDown(true)
		b.svc.SetDown(true)
		time.Sleep(time.Hour)
		a.svc.SetDown(false)
		b.svc.SetDown(false)
		fill(b, "two", 3)
		eventually(t, "all recover", func() bool { return a.svc.Len() == 33 })
		s, err := a.lib(id).Status(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 33, s.Assets)
		require.Zero(t, s.Removed)
		atRest(t, net, a, b)
		a.close()
		b.close()
	})
}

func TestTwoLibrariesDoNotMix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a := newMachine(t, net, "a", cantest.Options{})
		b := newMachine(t, net, "b", cantest.Options{})
		c := newMachine(t, net, "c", cantest.Options{})
		fill(a, "red", 10)
		fill(a, "blue", 10)
		a.share(cansync.Filter{Tags: []string{"red"}}, b)
		a.share(cansync.Filter{Tags: []string{"blue"}}, c)
		eventually(t, "each has its own", func() bool { return b.svc.Len() == 10 && c.svc.Len() == 10 })
		a.share(cansync.Filter{Tags: []string{"blue", "red"}}, b)
		eventually(t, "b has both", func() bool { return b.svc.Len() == 20 })
		atRest(t, net, a, b, c)
		require.Equal(t, 10, c.svc.Len())
		a.close()
		b.close()
		c.close()
	})
}

func TestPauseAndLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a := newMachine(t, net, "a", cantest.Options{})
		b := newMachine(t, net, "b", cantest.Options{})
		id := a.share(cansync.Filter{}, b)
		eventually(t, "b joined", func() bool { return b.lib(id).Access() != 0 })
		require.NoError(t, b.lib(id).Pause())
		fill(a, "one", 5)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		require.Zero(t, b.svc.Len())
		b.stop()
		b.start()
		s, err := b.lib(id).Status(t.Context())
		require.NoError(t, err)
		require.Equal(t, cansync.StatePaused, s.State)
		require.NoError(t, b.lib(id).Resume())
		eventually(t, "b goes on", func() bool { return b.svc.Len() == 5 })
		require.NoError(t, b.lib(id).SetMode(cansync.ReceiveOnly))
		require.NoError(t, b.lib(id).Pause())
		require.NoError(t, b.lib(id).Pause())
		b.stop()
		b.start()
		require.NoError(t, b.lib(id).Resume())
		require.Equal(t, cansync.ReceiveOnly, b.lib(id).Mode(), "as it was before the pause")
		require.NoError(t, b.lib(id).Resume())
		require.Equal(t, cansync.ReceiveOnly, b.lib(id).Mode())
		require.NoError(t, b.lib(id).SetMode(cansync.Sync))

		left := b.lib(id)
		require.NoError(t, left.Leave(t.Context(), cansync.LeaveOptions{}))
		_, err = left.Members()
		require.ErrorIs(t, err, cansync.ErrNoLibrary)
		fill(a, "two", 5)
		time.Sleep(10 * time.Minute)
		require.Equal(t, 5, b.svc.Len())
		b.join(a.lib(id))
		eventually(t, "b comes back", func() bool { return b.svc.Len() == 10 })
		require.ErrorIs(t, a.lib(id).Leave(t.Context(), cansync.LeaveOptions{Purge: true}), cansync.ErrOnlyOwner)
		require.NoError(t, a.lib(id).Leave(t.Context(), cansync.LeaveOptions{Purge: true, Confirm: "shared"}))
		require.Equal(t, 10, a.svc.Len())
		a.close()
		b.close()
	})
}

func TestClosedNodesSaySo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a := newMachine(t, net, "a", cantest.Options{})
		n := a.node
		id := a.share(cansync.Filter{})
		l := a.lib(id)
		waiting := make(chan error)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for range n.Events(ctx) {
				continue
			}
			waiting <- nil
		}()
		a.close()
		require.NoError(t, <-waiting)
		cancel()
		require.NoError(t, n.Close())
		_, err := n.CreateLibrary(t.Context(), "x", cansync.Filter{})
		require.ErrorIs(t, err, cansync.ErrClosed)
		_, err = l.Invite(t.Context(), cansync.InviteOptions{})
		require.ErrorIs(t, err, cansync.ErrClosed)
		require.ErrorIs(t, l.Wait(t.Context()), cansync.ErrClosed)
		_, err = n.Peers()
		require.ErrorIs(t, err, cansync.ErrClosed)
		require.Equal(t, "shared", l.Name())
	})
}
