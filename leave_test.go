package cansync_test

import (
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
		require.NoError(t, l.Leave(t.Context(), cansync.LeaveOptions{Purge: true, Confirm: "purged"}))
		require.Equal(t, before, m.records())

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
