package cansync_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
)

// sparse makes a library of so many members that no member is a neighbour of all.
// All but the first and the last keep records only.
func sparse(t *testing.T, net *memory.Network, size int) (cansync.LibraryID, []*machine) {
	ms := []*machine{newMachine(t, net, "0", cantest.Options{})}
	id := ms[0].share(cansync.Filter{})
	for i := 1; i < size; i++ {
		m := newMachine(t, net, fmt.Sprint(i), cantest.Options{})
		m.join(ms[0].lib(id))
		if i < size-1 {
			require.NoError(t, m.lib(id).SetMode(cansync.RecordsOnly))
		}
		ms = append(ms, m)
	}
	eventually(t, "all know all", func() bool {
		for _, m := range ms {
			if l, err := m.lib(id).Members(); err != nil || len(l) != size {
				return false
			}
		}
		return true
	})
	time.Sleep(30 * time.Second) // links settle
	synctest.Wait()
	return id, ms
}

func (m *machine) linked(id cansync.LibraryID) map[transport.PeerID]bool {
	out := make(map[transport.PeerID]bool)
	members, err := m.lib(id).Members()
	require.NoError(m.t, err)
	for _, p := range members {
		if p.Connected {
			out[p.Peer] = true
		}
	}
	return out
}

// stranger returns a machine that is not linked to m, and none that keeps to itself.
func stranger(m *machine, id cansync.LibraryID, ms []*machine) *machine {
	up := m.linked(id)
	for _, o := range ms {
		if o != m && !up[o.node.PeerID()] {
			return o
		}
	}
	require.FailNow(m.t, "everybody is a neighbour")
	return nil
}

func TestWhatOnlyAStrangerHoldsIsFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 20
		net := memory.NewNetwork(memory.Options{Link: memory.Link{Latency: 20 * time.Millisecond}})
		id, ms := sparse(t, net, size)
		last := ms[size-1]
		holder := stranger(last, id, ms[1:size-1])
		require.NoError(t, holder.lib(id).SetMode(cansync.AnnounceOnly))
		small, large := []byte("only here"), make([]byte, 3<<20)
		for _, b := range [][]byte{small, large} {
			holder.svc.Add(b, can.Metadata{MIMEType: "image/png"})
		}
		started := time.Now()
		holder.node.Poll()
		eventually(t, "the last fetches from who is no neighbour", func() bool { return last.svc.Len() == 2 })
		t.Logf("fetched after %v", time.Since(started))
		require.Less(t, time.Since(started), 10*time.Minute)
		for _, m := range ms {
			m.close()
		}
	})
}

func TestWaitHoldersReachesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 20
		net := memory.NewNetwork(memory.Options{Link: memory.Link{Latency: 20 * time.Millisecond}})
		id, ms := sparse(t, net, size)
		for _, m := range ms[1 : size-1] {
			require.NoError(t, m.lib(id).SetMode(cansync.Sync))
		}
		d := digestOf([]byte("for all"))
		ms[0].svc.Add([]byte("for all"), can.Metadata{MIMEType: "image/png"})
		ms[0].node.Poll()
		eventually(t, "all have it", func() bool {
			for _, m := range ms {
				if m.svc.Len() != 1 {
					return false
				}
			}
			return true
		})
		who, err := ms[5].lib(id).Holders(t.Context(), d)
		require.NoError(t, err)
		require.Less(t, len(who[0]), size, "not all are connected")
		started := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		require.NoError(t, ms[5].lib(id).WaitHolders(ctx, size, d))
		t.Logf("all said so after %v", time.Since(started))
		ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		require.ErrorIs(t, ms[5].lib(id).WaitHolders(ctx, size+1, d), context.DeadlineExceeded, "there are no more")
		for _, m := range ms {
			m.close()
		}
	})
}
