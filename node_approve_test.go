package cansync_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/transport/memory"
)

func TestNothingIsPublishedWithoutApproval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a := newMachine(t, net, "a", cantest.Options{})
		b := newMachine(t, net, "b", cantest.Options{Rule: cantest.HashTimestamp})
		id := a.share(cansync.Filter{MIMEPrefix: "image/"}, b)
		require.NoError(t, a.lib(id).SetPublishMode(cansync.PublishApprove))
		require.ErrorIs(t, a.lib(id).SetPublishMode("maybe"), cansync.ErrConfig)
		fill(a, "one", 10)
		a.svc.Add([]byte("text"), can.Metadata{MIMEType: "text/plain"})
		pending := func() (ds []can.Digest) {
			for d, err := range a.lib(id).Pending(t.Context()) {
				require.NoError(t, err)
				ds = append(ds, d)
			}
			return ds
		}
		eventually(t, "they wait", func() bool { return len(pending()) == 10 })
		a.stop()
		a.start()
		require.Equal(t, cansync.PublishApprove, a.lib(id).PublishMode())
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Zero(t, b.svc.Len())
		ok := digestOf([]byte("one 3"))
		require.NoError(t, a.lib(id).Approve(t.Context(), ok))
		require.NoError(t, a.lib(id).Decline(t.Context(), digestOf([]byte("one 4"))))
		eventually(t, "the one is there", func() bool { return b.svc.Len() == 1 })
		require.Equal(t, 1, b.svc.Digests()[ok])
		require.Len(t, pending(), 8)
		text := "an edit of what is in the library needs no approval"
		require.True(t, a.svc.Edit(a.handleOf(ok), can.Update{Description: &text}))
		eventually(t, "the edit is there", func() bool { return b.metadata()[ok].Description == text })
		require.NoError(t, a.lib(id).SetPublishMode(cansync.PublishAuto))
		eventually(t, "all but the one declined are there", func() bool { return b.svc.Len() == 9 })
		time.Sleep(time.Hour)
		require.Zero(t, b.svc.Digests()[digestOf([]byte("one 4"))])
		atRest(t, net, a, b)
		a.close()
		b.close()
	})
}

func TestModes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a := newMachine(t, net, "a", cantest.Options{})
		b := newMachine(t, net, "b", cantest.Options{})
		id := a.share(cansync.Filter{}, b)
		eventually(t, "b joined", func() bool { return b.lib(id).Access() != 0 })
		require.NoError(t, b.lib(id).SetMode(cansync.RecordsOnly))
		require.ErrorIs(t, b.lib(id).SetMode("some"), cansync.ErrConfig)
		fill(a, "a", 5)
		fill(b, "b", 5)
		eventually(t, "b knows", func() bool {
			s, err := b.lib(id).Status(t.Context())
			return err == nil && s.Assets == 5
		})
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		require.Equal(t, 5, a.svc.Len())
		require.Equal(t, 5, b.svc.Len())
		require.NoError(t, b.lib(id).SetMode(cansync.ReceiveOnly))
		eventually(t, "b fetches", func() bool { return b.svc.Len() == 10 })
		require.Equal(t, 5, a.svc.Len())
		require.NoError(t, b.lib(id).SetMode(cansync.AnnounceOnly))
		eventually(t, "b announces", func() bool { return a.svc.Len() == 10 })
		fill(a, "late", 1)
		time.Sleep(20 * time.Minute)
		require.Equal(t, 10, b.svc.Len())
		require.NoError(t, b.lib(id).SetMode(cansync.Sync))
		eventually(t, "b has all", func() bool { return b.svc.Len() == 11 })
		ds := []can.Digest{digestOf([]byte("late 0")), digestOf([]byte("nowhere"))}
		require.NoError(t, a.lib(id).WaitHolders(t.Context(), 2, ds[0]))
		who, err := a.lib(id).Holders(t.Context(), ds...)
		require.NoError(t, err)
		require.Len(t, who[0], 2)
		require.Empty(t, who[1])
		atRest(t, net, a, b)
		a.close()
		b.close()
	})
}

func TestAViewOfOnesOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a := newMachine(t, net, "a", cantest.Options{})
		b := newMachine(t, net, "b", cantest.Options{})
		fill(a, "red", 10)
		fill(a, "blue", 10)
		l, err := a.node.CreateLibrary(t.Context(), "shared", cansync.Filter{})
		require.NoError(t, err)
		b.join(l)
		require.NoError(t, b.lib(l.ID()).SetView(t.Context(), cansync.Filter{Tags: []string{"red"}}))
		eventually(t, "b has its half", func() bool { return b.svc.Len() == 10 })
		time.Sleep(time.Hour)
		require.Equal(t, 10, b.svc.Len())
		b.stop()
		b.start()
		require.Equal(t, []string{"red"}, b.lib(l.ID()).View().Tags)
		require.NoError(t, b.lib(l.ID()).SetView(t.Context(), cansync.Filter{}))
		eventually(t, "b has all", func() bool { return b.svc.Len() == 20 })
		require.NoError(t, l.SetFilter(t.Context(), cansync.Filter{Tags: []string{"blue"}}))
		eventually(t, "both agree", func() bool {
			s, err := b.lib(l.ID()).Status(t.Context())
			return err == nil && s.Assets == 10
		})
		fill(b, "green", 3)
		time.Sleep(time.Hour)
		require.Equal(t, 20, a.svc.Len())
		require.NoError(t, l.SetFilter(t.Context(), cansync.Filter{}))
		eventually(t, "a has the green ones", func() bool { return a.svc.Len() == 23 })
		atRest(t, net, a, b)
		a.close()
		b.close()
	})
}

// After a restart with nothing new about its libraries, a node fetches at once and
// not only after the next full scan.
func TestARestartedNodeFetchesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a := newMachine(t, net, "a", cantest.Options{})
		b := newMachine(t, net, "b", cantest.Options{})
		a.share(cansync.Filter{}, b)
		fill(a, "one", 3)
		eventually(t, "b has them", func() bool { return b.svc.Len() == 3 })
		time.Sleep(time.Hour)
		b.stop()
		fill(a, "two", 3)
		time.Sleep(time.Minute)
		b.start()
		begun := time.Now()
		eventually(t, "b has the rest", func() bool { return b.svc.Len() == 6 })
		require.Less(t, time.Since(begun), 30*time.Second)
		a.close()
		b.close()
	})
}
