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

func (m *machine) status(id cansync.LibraryID) cansync.LibraryStatus {
	s, err := m.lib(id).Status(m.t.Context())
	require.NoError(m.t, err)
	return s
}

func (m *machine) is(id cansync.LibraryID, d can.Digest, s cansync.AssetState, c cansync.Cause) {
	m.t.Helper()
	eventually(m.t, string(s)+" "+string(c), func() bool {
		a, err := m.lib(id).Asset(m.t.Context(), d)
		return err == nil && a.State == s && a.Cause == c
	})
}

// What a reader trashed is neither here nor on its way, and comes back when it is
// asked for, whatever handles the service gives and over a restart too.
func TestWhatWasTrashedHereComesBackWhenAskedFor(t *testing.T) {
	for _, rule := range []cantest.HashRule{cantest.HashContent, cantest.HashTimestamp, cantest.HashRandom} {
		t.Run(string(rune('0'+int(rule))), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := memory.NewNetwork(memory.Options{})
				a := newMachine(t, net, "a", cantest.Options{})
				b := newMachine(t, net, "b", cantest.Options{Rule: rule})
				id := a.share(cansync.Filter{})
				tk, err := a.lib(id).Invite(t.Context(), cansync.InviteOptions{Access: cansync.Read})
				require.NoError(t, err)
				_, err = b.node.Join(t.Context(), tk)
				require.NoError(t, err)
				x, y, z := a.add(1, 1000), a.add(2, 200_000), a.add(3, 3000)
				eventually(t, "all came", func() bool { return b.svc.Len() == 3 })
				for range 2 { // it is trashed again, and comes back again
					for _, d := range []can.Digest{x, y} {
						require.NoError(t, b.svc.Trash(t.Context(), b.handleOf(d)))
					}
					b.is(id, x, cansync.TrashedHere, "")
					b.is(id, y, cansync.TrashedHere, "")
					p, s := b.progress(id), b.status(id)
					require.Equal(t, []int64{3, 1, 2}, []int64{p.Assets, p.AssetsDone, p.AssetsTrashed})
					require.Equal(t, []int64{204_000, 3000, 201_000}, []int64{p.Bytes, p.BytesDone, p.BytesTrashed})
					require.Equal(t, []int64{3, 1, 2, 0}, []int64{s.Assets, s.Synced, s.Trashed, s.Pending})
					require.Equal(t, cansync.StateSynced, s.State)
					require.NoError(t, b.lib(id).Prioritize(t.Context(), x))
					time.Sleep(time.Hour)
					b.is(id, x, cansync.TrashedHere, "")

					require.NoError(t, b.lib(id).Fetch(t.Context(), x, z))
					b.is(id, x, cansync.Have, "")
					b.is(id, y, cansync.TrashedHere, "")
					a.stop()
					require.NoError(t, b.lib(id).Fetch(t.Context(), y))
					b.is(id, y, cansync.Wanted, cansync.SourceOffline)
					require.EqualValues(t, 1, b.status(id).Pending)
					b.stop()
					b.start()
					a.start()
					b.is(id, y, cansync.Have, "")
					p = b.progress(id)
					require.Equal(t, []int64{3, 0, 204_000, 0}, []int64{p.AssetsDone, p.AssetsTrashed, p.BytesDone, p.BytesTrashed})
					require.Equal(t, 3, b.svc.Len())
				}
				a.close()
				b.close()
			})
		})
	}
}

// A removal that is held is not made once the asset was asked for.
func TestFetchTakesARemovalBackThatIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b, id := duo(t, memory.Link{})
		var all []can.Digest
		for i := range 40 {
			all = append(all, a.add(uint64(i), 1000))
		}
		for _, d := range all {
			b.is(id, d, cansync.Have, "")
		}
		for _, d := range all[:30] {
			require.NoError(t, b.svc.Trash(t.Context(), b.handleOf(d)))
		}
		eventually(t, "they are held", func() bool { s := b.status(id); return s.Held > 0 && int(s.Removed)+s.Held == 30 })
		var held []can.Digest
		for x, err := range b.lib(id).Assets(t.Context()) {
			require.NoError(t, err)
			if x.Cause == cansync.HeldBack {
				held = append(held, x.Digest)
			}
		}
		s := b.status(id)
		require.Len(t, held, s.Held)
		require.EqualValues(t, s.Held, s.Trashed)
		require.EqualValues(t, s.Assets, s.Synced+s.Trashed)
		require.EqualValues(t, s.Synced, b.progress(id).AssetsDone)
		require.NoError(t, b.lib(id).Fetch(t.Context(), held[0]))
		b.is(id, held[0], cansync.Have, "")
		require.Equal(t, s.Held-1, b.status(id).Held)
		require.NoError(t, b.lib(id).ConfirmRemovals())
		a.is(id, held[0], cansync.Have, "")
		eventually(t, "the others are removed", func() bool { return a.status(id).Removed == 29 })
		require.Zero(t, b.status(id).Held)
		a.close()
		b.close()
	})
}
