package cansync_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/transport/memory"
)

func (m *machine) asset(id cansync.LibraryID, d can.Digest) cansync.Asset {
	a, err := m.lib(id).Asset(m.t.Context(), d)
	require.NoError(m.t, err)
	for one, err := range m.lib(id).Assets(m.t.Context()) { // the list says the same
		require.NoError(m.t, err)
		if one.Digest == d {
			require.Equal(m.t, a, one)
		}
	}
	return a
}

// lie announces a content whose digest and BLAKE3 hash are of different bytes, as an
// altered node could.
func (m *machine) lie(id cansync.LibraryID) can.Digest {
	ctx := m.t.Context()
	require.NoError(m.t, m.lib(id).SetPublishMode(cansync.PublishApprove))
	d := m.add(1, 200_000)
	inv := inventory.New(m.store)
	var items []inventory.Item
	eventually(m.t, "it is read", func() (ok bool) {
		var err error
		items, err = inv.ByDigest(ctx, d)
		return err == nil && len(items) == 1
	})
	other, err := io.ReadAll(cantest.Generated(2, 200_000))
	require.NoError(m.t, err)
	sum := blob.Sum(other)
	items[0].Root = sum.Root
	require.NoError(m.t, inv.PutOutboard(ctx, d, bytes.NewReader(sum.Outboard)))
	require.NoError(m.t, inv.Put(ctx, items[0]))
	require.True(m.t, m.svc.Corrupt(items[0].Handle, other))
	require.NoError(m.t, m.lib(id).Approve(ctx, d))
	return d
}

// shown waits until an asset shows a state and a cause.
type shown func(can.Digest, cansync.AssetState, cansync.Cause) cansync.Asset

// Each cause shows for what it is, and goes when it has gone.
func TestWhyAnAssetHasNotCome(t *testing.T) {
	for name, story := range map[string]func(t *testing.T, a, b *machine, id cansync.LibraryID, shows shown){
		"no peer": func(t *testing.T, a, b *machine, id cansync.LibraryID, shows shown) {
			require.NoError(t, b.lib(id).SetMode(cansync.RecordsOnly))
			d := a.add(1, 1000)
			shows(d, cansync.NotWanted, cansync.ByMode)
			require.True(t, a.svc.Delete(a.handleOf(d)))
			require.NoError(t, b.lib(id).SetMode(cansync.Sync))
			require.Contains(t, shows(d, cansync.Wanted, cansync.NoPeer).Detail, "no connected peer")
		},
		"source offline": func(t *testing.T, a, b *machine, id cansync.LibraryID, shows shown) {
			require.NoError(t, b.lib(id).SetMode(cansync.RecordsOnly))
			d := a.add(1, 1000)
			shows(d, cansync.NotWanted, cansync.ByMode)
			s, err := b.lib(id).Status(t.Context())
			require.NoError(t, err)
			require.Equal(t, cansync.StateWaiting, s.State)
			require.Equal(t, map[cansync.Cause]int64{cansync.ByMode: 1}, s.Causes)
			a.stop()
			left := time.Now()
			require.NoError(t, b.lib(id).SetMode(cansync.Sync))
			x := shows(d, cansync.Wanted, cansync.SourceOffline)
			require.WithinDuration(t, left, x.OfflineSince, time.Minute)
			b.stop()
			b.start()
			again := shows(d, cansync.Wanted, cansync.SourceOffline)
			require.Equal(t, x.OfflineSince.UnixMilli(), again.OfflineSince.UnixMilli(), "it is known after a restart too")
			a.start()
			require.Zero(t, shows(d, cansync.Have, "").OfflineSince)
		},
		"service down": func(t *testing.T, a, b *machine, id cansync.LibraryID, shows shown) {
			b.svc.SetDown(true)
			d := a.add(1, 1000)
			shows(d, cansync.Wanted, cansync.ServiceDown)
			b.svc.SetDown(false)
			shows(d, cansync.Have, "")
		},
		"rejected": func(t *testing.T, a, b *machine, id cansync.LibraryID, shows shown) {
			no := b.svc.Inject(cantest.Fault{Route: cantest.RouteIngest, Probability: 1, Action: cantest.Action{Kind: cantest.ActStatus, Status: http.StatusUnprocessableEntity}})
			d := a.add(1, 1000)
			require.NotEmpty(t, shows(d, cansync.Ingesting, cansync.Rejected).Detail)
			require.Positive(t, no.Fired())
			no.Remove()
			time.Sleep(30 * time.Minute) // a service that refuses is not asked again soon
			shows(d, cansync.Have, "")
		},
		"quota": func(t *testing.T, a, b *machine, id cansync.LibraryID, shows shown) {
			require.NoError(t, b.lib(id).SetQuota(999))
			d := a.add(1, 1000)
			require.Contains(t, shows(d, cansync.Wanted, cansync.NoSpace).Detail, "quota")
			require.NoError(t, b.lib(id).SetQuota(1000))
			shows(d, cansync.Have, "")
		},
		"bad content": func(t *testing.T, a, b *machine, id cansync.LibraryID, shows shown) {
			d := a.lie(id)
			require.NotEmpty(t, shows(d, cansync.Wanted, cansync.BadContent).Detail)
			require.Zero(t, b.svc.Len())
			require.Equal(t, map[cansync.Cause]int64{cansync.BadContent: 1}, b.status(id).Causes)
			require.Equal(t, cansync.StateWaiting, b.status(id).State)
			require.Zero(t, b.progress(id).BytesDone)
		},
		"trashed here": func(t *testing.T, a, b *machine, id cansync.LibraryID, shows shown) {
			d, other := a.add(1, 1000), a.add(2, 1000)
			shows(d, cansync.Have, "")
			shows(other, cansync.Have, "")
			require.NoError(t, b.lib(id).SetMode(cansync.ReceiveOnly))
			require.NoError(t, b.svc.Trash(t.Context(), b.handleOf(d)))
			require.Empty(t, shows(d, cansync.TrashedHere, "").Handle)
			require.NoError(t, b.lib(id).Fetch(t.Context(), d))
			require.NotEmpty(t, shows(d, cansync.Have, "").Handle)
		},
		"outside the view": func(t *testing.T, a, b *machine, id cansync.LibraryID, shows shown) {
			here, not := a.add(1, 1000), a.add(2, 2000)
			shows(here, cansync.Have, "")
			shows(not, cansync.Have, "")
			require.True(t, b.svc.Delete(b.handleOf(not)))
			require.NoError(t, b.lib(id).SetView(t.Context(), cansync.Filter{User: "nobody"}))
			time.Sleep(10 * time.Minute) // a full listing
			shows(here, cansync.Have, cansync.OutsideView)
			shows(not, cansync.NotWanted, cansync.OutsideView)
			for range b.lib(id).Assets(t.Context()) {
				require.Fail(t, "what the view leaves out is listed")
			}
			require.NoError(t, b.lib(id).SetView(t.Context(), cansync.Filter{}))
			shows(not, cansync.Have, "")
			// What the library itself leaves out is not in it at all.
			require.NoError(t, a.lib(id).SetFilter(t.Context(), cansync.Filter{User: "nobody"}))
			time.Sleep(time.Minute)
			_, err := b.lib(id).Asset(t.Context(), here)
			require.ErrorIs(t, err, cansync.ErrNoAsset)
		},
		"held": func(t *testing.T, a, b *machine, id cansync.LibraryID, shows shown) {
			var all []can.Digest
			for i := range 40 {
				all = append(all, a.add(uint64(i), 1000))
			}
			for _, d := range all {
				shows(d, cansync.Have, "")
			}
			for _, d := range all[:30] {
				require.NoError(t, b.svc.Trash(t.Context(), b.handleOf(d)))
			}
			var held []can.Digest
			eventually(t, "some are held", func() bool {
				held = nil
				for x, err := range b.lib(id).Assets(t.Context()) {
					require.NoError(t, err)
					if x.Cause == cansync.HeldBack {
						held = append(held, x.Digest)
					}
				}
				s, err := b.lib(id).Status(t.Context())
				return err == nil && s.Held > 0 && s.Held == len(held) && int(s.Removed)+s.Held == 30
			})
			require.Equal(t, cansync.TrashedHere, b.asset(id, held[0]).State)
			shows(all[39], cansync.Have, "")
			require.NoError(t, b.lib(id).DismissRemovals())
			shows(held[0], cansync.TrashedHere, "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, a, b, id := duo(t, memory.Link{})
				story(t, a, b, id, func(d can.Digest, s cansync.AssetState, c cansync.Cause) (x cansync.Asset) {
					t.Helper()
					eventually(t, string(s)+" "+string(c), func() bool {
						var err error
						x, err = b.lib(id).Asset(t.Context(), d)
						return err == nil && x.State == s && x.Cause == c
					})
					return b.asset(id, d)
				})
				a.close()
				b.close()
			})
		})
	}
}

// A membership that has ended is why nothing comes any more.
func TestAMembershipThatEndedIsTheCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a := newMachine(t, net, "a", cantest.Options{})
		b := newMachine(t, net, "b", cantest.Options{})
		d := a.add(1, 1000)
		id := a.share(cansync.Filter{})
		tk, err := a.lib(id).Invite(t.Context(), cansync.InviteOptions{MemberUntil: time.Now().Add(time.Hour)})
		require.NoError(t, err)
		_, err = b.node.JoinWith(t.Context(), tk, cansync.Choices{Mode: cansync.RecordsOnly})
		require.NoError(t, err)
		eventually(t, "b knows of it", func() bool { return b.progress(id).Assets == 1 })
		time.Sleep(2 * time.Hour)
		require.NoError(t, b.lib(id).SetMode(cansync.Sync))
		time.Sleep(time.Minute)
		x := b.asset(id, d)
		require.Equal(t, cansync.NotAllowed, x.Cause)
		require.Contains(t, x.Detail, "the membership ended on")
		require.Zero(t, b.svc.Len())
		s, err := b.lib(id).Status(t.Context())
		require.NoError(t, err)
		require.Equal(t, cansync.StateEnded, s.State)
		require.False(t, s.Expires.IsZero())
		a.close()
		b.close()
	})
}
