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

// A ticket that ends while nobody can be reached is not waited for in silence.
func TestATicketThatEndsWhileJoining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a := newMachine(t, net, "a", cantest.Options{})
		b := newMachine(t, net, "b", cantest.Options{})
		l, err := a.node.CreateLibrary(t.Context(), "shared", cansync.Filter{})
		require.NoError(t, err)
		pa, pb := a.node.PeerID(), b.node.PeerID()
		net.Partition([]transport.PeerID{pa}, []transport.PeerID{pb})
		tk, err := l.Invite(t.Context(), cansync.InviteOptions{ValidFor: time.Hour})
		require.NoError(t, err)
		j, err := b.node.Join(t.Context(), tk)
		require.NoError(t, err)
		s, err := j.Status(t.Context())
		require.NoError(t, err)
		require.NoError(t, s.Refused)
		time.Sleep(time.Hour + time.Minute)
		net.Heal()
		time.Sleep(time.Hour)
		s, err = j.Status(t.Context())
		require.NoError(t, err)
		require.Equal(t, cansync.StateJoining, s.State)
		require.ErrorIs(t, s.Refused, cansync.ErrTicketExpired)
		ms, err := l.Members()
		require.NoError(t, err)
		require.Len(t, ms, 1)
		b.join(l) // a new one helps
		eventually(t, "joined", func() bool { return j.Access() != 0 })
		a.close()
		b.close()
	})
}

// Who was just admitted has nothing to do yet, and is not synced for that.
func TestSyncedIsNotSaidBeforeAMemberWasHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{Link: memory.Link{Latency: 50 * time.Millisecond}})
		a := newMachine(t, net, "a", cantest.Options{})
		b := newMachine(t, net, "b", cantest.Options{})
		fill(a, "one", 20)
		id := a.share(cansync.Filter{})
		eventually(t, "a has announced", func() bool { s, err := a.lib(id).Status(t.Context()); return err == nil && s.Synced == 20 })
		b.join(a.lib(id))
		seen := map[cansync.LibraryState]bool{}
		for b.svc.Len() < 20 {
			s, err := b.lib(id).Status(t.Context())
			require.NoError(t, err)
			seen[s.State] = true
			require.NotEqual(t, cansync.StateSynced, s.State)
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		require.True(t, seen[cansync.StateJoining])
		require.True(t, seen[cansync.StateSyncing])
		eventually(t, "synced", func() bool {
			s, err := b.lib(id).Status(t.Context())
			return err == nil && s.State == cansync.StateSynced
		})
		a.close()
		b.close()
	})
}

// Of a device that redeemed several tickets what is in force shows.
func TestAMemberShowsWhatIsInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a := newMachine(t, net, "a", cantest.Options{})
		b := newMachine(t, net, "b", cantest.Options{})
		l, err := a.node.CreateLibrary(t.Context(), "shared", cansync.Filter{})
		require.NoError(t, err)
		begun := time.Now()
		redeem := func(o cansync.InviteOptions) {
			tk, err := l.Invite(t.Context(), o)
			require.NoError(t, err)
			_, err = b.node.Join(t.Context(), tk)
			require.NoError(t, err)
			eventually(t, "joined", func() bool { return b.lib(l.ID()).Access() != 0 })
		}
		leave := func() { require.NoError(t, b.lib(l.ID()).Leave(t.Context(), cansync.LeaveOptions{})) }
		shows := func(access cansync.Access, ended bool, hours int) {
			t.Helper()
			until := begun.Add(time.Duration(hours) * time.Hour).Unix()
			var m cansync.Member
			eventually(t, "a knows of it", func() bool {
				ms, err := l.Members()
				require.NoError(t, err)
				if len(ms) != 2 {
					return false
				}
				m = ms[1]
				return m.Until.Unix() == until
			})
			require.Equal(t, b.node.PeerID(), m.Peer)
			require.Equal(t, access, m.Access)
			require.Equal(t, ended, m.Ended)
		}
		in := func(hours int) time.Time { return begun.Add(time.Duration(hours) * time.Hour) }
		redeem(cansync.InviteOptions{Access: cansync.Write, MemberUntil: in(2)})
		shows(cansync.Read|cansync.Write, false, 2)
		leave()
		redeem(cansync.InviteOptions{Access: cansync.Invite, MemberUntil: in(4)})
		shows(cansync.Read|cansync.Write|cansync.Invite, false, 4)
		time.Sleep(3 * time.Hour)
		shows(cansync.Read|cansync.Invite, false, 4)
		time.Sleep(2 * time.Hour)
		shows(cansync.Read|cansync.Invite, true, 4)
		leave()
		redeem(cansync.InviteOptions{Access: cansync.Read, MemberUntil: in(8)})
		shows(cansync.Read, false, 8)
		time.Sleep(4 * time.Hour)
		shows(cansync.Read, true, 8)
		a.close()
		b.close()
	})
}
