package fetch

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
)

var droppers = []func(*can.Metadata){cantest.DropDescription, cantest.SortTags, cantest.CapTags(2)}

func TestALocalEditIsNotOverwritten(t *testing.T) {
	world(t, cantest.Options{}, control.DeleteKeep, func(t *testing.T, n *node, s *shared) {
		s.say(n, record.Announce, small(1))
		s.pass(n.lib)
		synctest.Wait()
		d, body := bodyOf(small(1), 0)
		item, _, err := n.inv.Present(t.Context(), d)
		require.NoError(t, err)
		mine := "mine"
		require.True(t, n.svc.Edit(item.Handle, can.Update{Description: &mine}))
		body.Description = "theirs"
		s.edit(d, body)
		s.pass(n.lib)
		wait(t.Context(), 5*time.Minute)
		a, _ := n.svc.Get(item.Handle)
		require.Equal(t, "mine", a.Description)
		require.False(t, n.idle(), "it waits for the announcer")
		// The announcer sees it, and loses by the clock.
		item.Baseline = inventory.FingerprintOf(a.Metadata)
		require.NoError(t, n.inv.Put(t.Context(), item))
		until(t, "theirs is applied", 2*time.Minute, n.idle)
		a, _ = n.svc.Get(item.Handle)
		require.Equal(t, "theirs", a.Description)
	})
}

func TestRemovals(t *testing.T) {
	for _, rule := range rules {
		for _, del := range []control.Delete{control.DeleteKeep, control.DeleteTrash} {
			t.Run(rule.String()+"/"+del.String(), func(t *testing.T) {
				world(t, cantest.Options{Rule: rule, Lacks: cantest.FeatureTimestamp}, del, func(t *testing.T, n *node, s *shared) {
					s.say(n, record.Announce, small(1), small(2))
					s.pass(n.lib)
					synctest.Wait()
					d, body := bodyOf(small(1), 0)
					s.remove(d)
					s.pass(n.lib)
					until(t, "it is removed", time.Minute, n.idle)
					require.Equal(t, replica.Gone, n.local(d).State)
					items, err := n.inv.ByDigest(t.Context(), d)
					require.NoError(t, err)
					require.Len(t, items, 1)
					a, _ := n.svc.Get(items[0].Handle)
					require.Equal(t, del == control.DeleteTrash, a.Trashed)
					require.Equal(t, del == control.DeleteTrash, items[0].Is(inventory.Trashed|inventory.TrashedByUs))
					require.Equal(t, n.count(Trashed), n.svc.Calls()[cantest.RouteTrash])
					// The library takes it in again.
					wait(t.Context(), time.Second)
					s.edit(d, body)
					s.pass(n.lib)
					until(t, "it is back", time.Minute, n.idle)
					require.Equal(t, 2, n.svc.Len())
					require.Equal(t, replica.Have, n.local(d).State)
					require.Empty(t, n.svc.Duplicates())
				})
			})
		}
	}
}

func TestWhatTheUserTrashedStaysInTheTrash(t *testing.T) {
	world(t, cantest.Options{Rule: cantest.HashTimestamp}, control.DeleteKeep, func(t *testing.T, n *node, s *shared) {
		s.say(n, record.Announce, small(1))
		s.pass(n.lib)
		synctest.Wait()
		d, body := bodyOf(small(1), 0)
		item, _, err := n.inv.Present(t.Context(), d)
		require.NoError(t, err)
		require.True(t, n.svc.TrashNow(item.Handle))
		body.Description = "edited"
		s.edit(d, body) // found in the trash while this is applied
		s.pass(n.lib)
		until(t, "it is settled", time.Minute, n.idle)
		require.Equal(t, replica.TrashedHere, n.local(d).State)
		body.Description = "edited again"
		s.edit(d, body)
		s.pass(n.lib)
		until(t, "it is settled", time.Minute, n.idle)
		require.Equal(t, replica.TrashedHere, n.local(d).State)
		require.Zero(t, n.svc.Len())
		require.Equal(t, 1, n.svc.Calls()[cantest.RouteIngest])
	})
}

func TestWhatTheServiceLostIsFetchedAgain(t *testing.T) {
	world(t, cantest.Options{Rule: cantest.HashTimestamp}, control.DeleteKeep, func(t *testing.T, n *node, s *shared) {
		s.say(n, record.Announce, small(1), small(2))
		s.pass(n.lib)
		synctest.Wait()
		d, body := bodyOf(small(1), 0)
		item, _, err := n.inv.Present(t.Context(), d)
		require.NoError(t, err)
		require.True(t, n.svc.Delete(item.Handle))
		body.Description = "edited" // found missing while this is applied
		s.edit(d, body)
		s.pass(n.lib)
		until(t, "it is back", time.Minute, n.idle)
		require.Equal(t, 2, n.svc.Len())
		// The announcer finds the other one missing.
		d, _ = bodyOf(small(2), 1)
		item, _, err = n.inv.Present(t.Context(), d)
		require.NoError(t, err)
		require.True(t, n.svc.Delete(item.Handle))
		item.Flags |= inventory.Missing
		require.NoError(t, n.inv.Put(t.Context(), item))
		require.NoError(t, n.lib.Enqueue(t.Context(), d))
		until(t, "it is seen", 20*time.Second, func() bool { return n.svc.Len() == 2 })
	})
}

func TestAnAssetOutsideTheFilterIsLeftAlone(t *testing.T) {
	world(t, cantest.Options{}, control.DeleteTrash, func(t *testing.T, n *node, s *shared) {
		hold := make(chan struct{})
		defer close(hold)
		n.src.set(func() { n.src.hold = hold })
		s.say(n, record.Announce, small(1), large(1))
		s.pass(n.lib)
		synctest.Wait()
		s.refilter(filter.Filter{Application: "other"})
		s.pass(n.lib)
		n.f.Kick(n.lib.ID())
		wait(t.Context(), time.Minute)
		d, _ := bodyOf(small(1), 0)
		require.Equal(t, replica.Gone, n.local(d).State)
		require.Equal(t, 1, n.svc.Len(), "it stays in the service")
		require.Zero(t, n.svc.Calls()[cantest.RouteTrash])
	})
}

func TestARemovalStopsATransfer(t *testing.T) {
	world(t, cantest.Options{}, control.DeleteTrash, func(t *testing.T, n *node, s *shared) {
		hold := make(chan struct{})
		defer close(hold)
		n.src.set(func() { n.src.hold = hold })
		s.say(n, record.Announce, large(1))
		s.pass(n.lib)
		synctest.Wait()
		d, _ := bodyOf(large(1), 0)
		require.Equal(t, replica.Partial, n.work(d).State)
		s.remove(d)
		s.pass(n.lib)
		synctest.Wait()
		require.True(t, n.idle())
		require.Equal(t, replica.Gone, n.local(d).State)
		require.Zero(t, n.svc.Len())
		require.Zero(t, n.count(Failed))
	})
}

func TestTwoLibrariesWantOneAsset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, b := newNode(t, cantest.Options{Rule: cantest.HashTimestamp}), newShared(t, control.DeleteTrash), newShared(t, control.DeleteTrash)
		var all [][]byte
		for i := range 200 {
			all = append(all, small(i))
		}
		all = append(all, large(1))
		a.say(n, record.Announce, all...)
		b.say(n, record.Announce, all...)
		n.start(a, b)
		until(t, "all are here", time.Minute, n.idle)
		wait(t.Context(), time.Second)
		require.Equal(t, len(all), n.svc.Len())
		require.Empty(t, n.svc.Duplicates())
		require.Equal(t, len(all), n.svc.Calls()[cantest.RouteIngest])
		// One of them removes it, and then the other.
		d, _ := bodyOf(small(1), 0)
		a.remove(d)
		a.pass(n.lib)
		until(t, "it is settled", time.Minute, n.idle)
		require.Equal(t, replica.Gone, n.local(d).State)
		require.Zero(t, n.svc.Calls()[cantest.RouteTrash], "the other library holds it")
		b.remove(d)
		var other = n.f.libs[b.author.ID()].lib
		b.pass(other)
		until(t, "it is trashed", time.Minute, func() bool { return other.Counts().Queued == 0 })
		require.Equal(t, 1, n.svc.Calls()[cantest.RouteTrash])
		n.stop()
		require.NoError(t, n.svc.Close())
		a.close()
		b.close()
	})
}
