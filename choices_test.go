package cansync_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
)

func ticketOf(t *testing.T, l *cansync.Library) cansync.Ticket {
	tk, err := l.Invite(t.Context(), cansync.InviteOptions{})
	require.NoError(t, err)
	return tk
}

// What is chosen along with making or joining a library holds before anything is
// announced or fetched, and lasts.
func TestChoicesHoldFromTheBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a := newMachine(t, net, "a", cantest.Options{})
		b := newMachine(t, net, "b", cantest.Options{})
		fill(a, "one", 20)
		fill(b, "two", 20)
		d := a.add(7, 100_000)
		time.Sleep(time.Minute) // both know their assets: a library would announce at once
		made := cansync.Choices{
			Publish: cansync.PublishApprove, Limits: cansync.Limits{Upload: mib, Download: 2 * mib}, Quota: 5 * mib,
		}
		la, err := a.node.CreateLibraryWith(t.Context(), "shared", cansync.Filter{}, made)
		require.NoError(t, err)
		id := la.ID()
		joined := cansync.Choices{Mode: cansync.RecordsOnly, View: cansync.Filter{MIMEPrefix: "image/"}}
		_, err = b.node.JoinWith(t.Context(), ticketOf(t, la), joined)
		require.NoError(t, err)
		eventually(t, "they meet", func() bool { return len(peersOf(b, id)) == 1 })
		for range 2 {
			time.Sleep(time.Hour)
			s, err := a.lib(id).Status(t.Context())
			require.NoError(t, err)
			require.Zero(t, s.Assets, "neither approved nor announced in a records-only library")
			require.Equal(t, cansync.PublishApprove, a.lib(id).PublishMode())
			require.Equal(t, cansync.Sync, a.lib(id).Mode())
			require.Equal(t, made.Limits, a.lib(id).Limits())
			require.EqualValues(t, 5*mib, a.lib(id).Quota())
			require.Equal(t, cansync.RecordsOnly, b.lib(id).Mode())
			require.Equal(t, cansync.PublishAuto, b.lib(id).PublishMode())
			require.Equal(t, joined.View, b.lib(id).View())
			for _, m := range []*machine{a, b} {
				m.stop()
				m.start()
			}
		}
		require.NoError(t, a.lib(id).Approve(t.Context(), d))
		eventually(t, "b knows of it", func() bool { return b.progress(id).Assets == 1 })
		time.Sleep(time.Hour)
		require.Equal(t, 20, b.svc.Len(), "records only")

		// Who comes back goes on as it chose before, but for what it chooses now.
		require.NoError(t, b.lib(id).Leave(t.Context(), cansync.LeaveOptions{}))
		lb, err := b.node.JoinWith(t.Context(), ticketOf(t, a.lib(id)), cansync.Choices{Mode: cansync.ReceiveOnly})
		require.NoError(t, err)
		require.Equal(t, joined.View, lb.View())
		require.Equal(t, cansync.ReceiveOnly, lb.Mode())
		eventually(t, "it is fetched", func() bool { return b.svc.Len() == 21 })
		a.close()
		b.close()
	})
}

func TestChoicesThatCanNotBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a := newMachine(t, net, "a", cantest.Options{})
		b := newMachine(t, net, "b", cantest.Options{})
		la, err := a.node.CreateLibraryWith(t.Context(), "shared", cansync.Filter{}, cansync.Choices{})
		require.NoError(t, err)
		for _, c := range []struct {
			choices cansync.Choices
			err     error
		}{
			{cansync.Choices{Mode: "idle"}, cansync.ErrConfig},
			{cansync.Choices{Publish: "never"}, cansync.ErrConfig},
			{cansync.Choices{View: cansync.Filter{Tags: []string{""}}}, cansync.ErrFilter},
			{cansync.Choices{Limits: cansync.Limits{Upload: -1}}, cansync.ErrConfig},
			{cansync.Choices{Limits: cansync.Limits{Download: -1}}, cansync.ErrConfig},
			{cansync.Choices{Quota: -1}, cansync.ErrConfig},
		} {
			_, err := a.node.CreateLibraryWith(t.Context(), "other", cansync.Filter{}, c.choices)
			require.ErrorIs(t, err, c.err)
			_, err = b.node.JoinWith(t.Context(), ticketOf(t, la), c.choices)
			require.ErrorIs(t, err, c.err)
		}
		require.Len(t, a.node.Libraries(), 1)
		require.Empty(t, b.node.Libraries())
		a.close()
		b.close()
	})
}

func TestPeerLimitsAreToldAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, memory.NewNetwork(memory.Options{}), "a", cantest.Options{})
		require.Empty(t, m.node.PeerLimits())
		peer := func(i int) transport.PeerID { return transport.PeerID{byte(i), byte(i >> 8), 1} }
		for i := range cansync.MaxPeerLimits {
			require.NoError(t, m.node.SetPeerLimits(peer(i), cansync.Limits{Upload: int64(i + 1)}))
		}
		require.ErrorIs(t, m.node.SetPeerLimits(peer(-1), cansync.Limits{Upload: 1}), cansync.ErrConfig)
		require.ErrorIs(t, m.node.SetPeerLimits(peer(1), cansync.Limits{Upload: -1}), cansync.ErrConfig)
		require.NoError(t, m.node.SetPeerLimits(peer(1), cansync.Limits{Download: 9}), "one that is there may change")
		require.NoError(t, m.node.SetPeerLimits(peer(2), cansync.Limits{}))
		require.NoError(t, m.node.SetPeerLimits(peer(-1), cansync.Limits{Upload: 1}), "one was lifted")
		all := m.node.PeerLimits()
		require.Len(t, all, cansync.MaxPeerLimits)
		require.Equal(t, cansync.Limits{Download: cansync.MinLimit}, all[peer(1)], "as they are in force")
		require.NotContains(t, all, peer(2))
		m.close()
	})
}
