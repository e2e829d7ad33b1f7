package cansync_test

import (
	"encoding/hex"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-datastore/query"
	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/kv"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
)

// records returns how many keys the machine's store holds of libraries.
func (m *machine) records() int { return m.keys("/l") }

func (m *machine) keys(prefix string) int {
	res, err := m.store.Query(m.t.Context(), query.Query{Prefix: prefix, KeysOnly: true})
	require.NoError(m.t, err)
	all, err := res.Rest()
	require.NoError(m.t, err)
	return len(all)
}

func TestPurgeForgetsAllRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, memory.NewNetwork(memory.Options{}), "a", cantest.Options{})
		defer m.close()
		fill(m, "one", 10)
		kept, err := m.node.CreateLibrary(t.Context(), "kept", cansync.Filter{})
		require.NoError(t, err)
		eventually(t, "announced", func() bool { s, err := kept.Status(t.Context()); return err == nil && s.Synced == 10 })
		before := m.records()
		l, err := m.node.CreateLibrary(t.Context(), "purged", cansync.Filter{})
		require.NoError(t, err)
		eventually(t, "announced", func() bool { s, err := l.Status(t.Context()); return err == nil && s.Synced == 10 })
		require.Greater(t, m.records(), before)
		gone := l.ID()
		held := kv.Key("n", "m", "announce.held."+hex.EncodeToString(gone[:]))
		require.NoError(t, m.store.Put(t.Context(), held, []byte{1, 0, 0, 0, 1}))
		require.NoError(t, l.Leave(t.Context(), cansync.LeaveOptions{Purge: true, Confirm: "purged"}))
		still, err := m.store.Has(t.Context(), held)
		require.NoError(t, err)
		require.False(t, still)
		require.Equal(t, before, m.records())
		other := kept.ID()
		for id, left := range map[[32]byte]bool{gone: false, other: true} {
			has, err := m.store.Has(t.Context(), kv.Key("n", "m", "announce.caught."+hex.EncodeToString(id[:])))
			require.NoError(t, err)
			require.Equal(t, left, has)
		}

		// A crash came between the keys and the records: the next start goes on.
		id := kept.ID()
		key := kv.Bin(id[:])
		m.stop()
		all := m.keys("/n/d/")
		require.Equal(t, 10, all)
		var lost cansync.LibraryID
		orphan := kv.Key("l", kv.Bin(lost[:20]), "a", "x")
		require.NoError(t, m.store.Put(t.Context(), orphan, []byte("x")))
		require.NoError(t, m.store.Put(t.Context(), kv.Key("n", "doomed", kv.Bin(lost[:])), nil))
		require.NoError(t, m.store.Put(t.Context(), kv.Key("n", "doomed", key), nil)) // made to its end but for the mark
		m.start()
		has, err := m.store.Has(t.Context(), orphan)
		require.NoError(t, err)
		require.False(t, has)
		require.Zero(t, m.keys("/n/doomed"))
		require.Equal(t, all, m.keys("/n/d/"), "what is known of the service stays")
		eventually(t, "the other is whole", func() bool {
			s, err := m.lib(id).Status(t.Context())
			return err == nil && s.Synced == 10
		})
	})
}

// What the host set while a library is being joined holds when another ticket is
// tried, above all that nothing is published without its consent.
func TestAnotherTicketKeepsWhatWasSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a := newMachine(t, net, "a", cantest.Options{})
		b := newMachine(t, net, "b", cantest.Options{})
		fill(b, "private", 5)
		l, err := a.node.CreateLibrary(t.Context(), "shared", cansync.Filter{})
		require.NoError(t, err)
		pa, pb := a.node.PeerID(), b.node.PeerID()
		net.Partition([]transport.PeerID{pa}, []transport.PeerID{pb})
		b.join(l)
		id := l.ID()
		require.NoError(t, b.lib(id).SetPublishMode(cansync.PublishApprove))
		require.NoError(t, b.lib(id).SetMode(cansync.AnnounceOnly))
		require.NoError(t, b.lib(id).SetView(t.Context(), cansync.Filter{Application: "app private"}))
		b.join(l)
		check := func() {
			require.Equal(t, cansync.PublishApprove, b.lib(id).PublishMode())
			require.Equal(t, cansync.AnnounceOnly, b.lib(id).Mode())
			require.Equal(t, "app private", b.lib(id).View().Application)
		}
		check()
		net.Heal()
		eventually(t, "joined", func() bool { return b.lib(id).Access() != 0 })
		time.Sleep(time.Hour)
		check()
		require.Zero(t, a.svc.Len(), "nobody approved")
		b.stop()
		b.start()
		check()
		a.close()
		b.close()
	})
}

// A ticket that allows more than the membership a node had, or the same for longer, is
// redeemed when the node comes back with it.
func TestABetterTicketIsRedeemed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a := newMachine(t, net, "a", cantest.Options{})
		b := newMachine(t, net, "b", cantest.Options{})
		la, err := a.node.CreateLibrary(t.Context(), "shared", cansync.Filter{})
		require.NoError(t, err)
		id := la.ID()
		ticket := func(access cansync.Access, until time.Duration) cansync.Ticket {
			o := cansync.InviteOptions{Access: access, ValidFor: 1000 * time.Hour}
			if until > 0 {
				o.MemberUntil = time.Now().Add(until)
			}
			tk, err := la.Invite(t.Context(), o)
			require.NoError(t, err)
			return tk
		}
		reader := ticket(cansync.Read, 100*time.Hour)
		_, err = b.node.Join(t.Context(), reader)
		require.NoError(t, err)
		is := func(want cansync.Access) {
			t.Helper()
			eventually(t, "b is back", func() bool {
				s, err := b.lib(id).Status(t.Context())
				return err == nil && s.State != cansync.StateJoining && b.lib(id).Access() == want
			})
		}
		is(cansync.Read)
		leave := func() { require.NoError(t, b.lib(id).Leave(t.Context(), cansync.LeaveOptions{})) }
		apart := func() { net.Partition([]transport.PeerID{a.node.PeerID()}, []transport.PeerID{b.node.PeerID()}) }

		leave()
		apart()
		l, err := b.node.Join(t.Context(), reader)
		require.NoError(t, err)
		s, err := l.Status(t.Context())
		require.NoError(t, err)
		require.NotEqual(t, cansync.StateJoining, s.State, "the same ticket: nobody need be there")

		leave()
		writer := ticket(cansync.Read|cansync.Write, 50*time.Hour)
		_, err = b.node.Join(t.Context(), writer)
		require.NoError(t, err)
		s, err = b.lib(id).Status(t.Context())
		require.NoError(t, err)
		require.Equal(t, cansync.StateJoining, s.State)
		b.stop()
		b.start()
		leave() // nobody was there: what it had is not lost
		_, err = b.node.Join(t.Context(), reader)
		require.NoError(t, err)
		is(cansync.Read)
		leave()
		_, err = b.node.Join(t.Context(), writer)
		require.NoError(t, err)
		net.Heal()
		is(cansync.Read | cansync.Write)

		leave() // longer, but it may not write
		l, err = b.node.Join(t.Context(), ticket(cansync.Read, 0))
		require.NoError(t, err)
		require.Equal(t, cansync.Read|cansync.Write, l.Access())
		leave()
		_, err = b.node.Join(t.Context(), ticket(cansync.Read|cansync.Write, 0))
		require.NoError(t, err)
		is(cansync.Read | cansync.Write)
		time.Sleep(60 * time.Hour) // the writer's ticket's end has passed
		d := b.add(3, 100)
		eventually(t, "it still writes", func() bool {
			_, err := a.lib(id).Asset(t.Context(), d)
			return err == nil
		})
		a.close()
		b.close()
	})
}
