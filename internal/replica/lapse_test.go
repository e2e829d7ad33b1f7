package replica_test

import (
	"crypto/rand"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/keyring"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/store/memory"
	"github.com/cansync/cansync/transport"
)

// guesthouse is a library in which a member without the admin right issues an invite,
// and then lets a guest in, that announces two assets. In a set that takes one record of
// the member's, the invite displaces the membership.
type guesthouse struct {
	keys           keyring.Library
	before, invite []record.Record
	guest, says    []record.Record
	others         []record.Record // the member's own, of one of the assets and another
}

func newGuesthouse(t *testing.T) (h guesthouse) {
	ctx := t.Context()
	open := func(keys keyring.Library, dev capability.Device) *library.Library {
		lib, err := library.Open(ctx, library.Options{
			Keys: keys, Device: dev, Rand: rand.Reader,
			Replica: replica.Options{Store: memory.New(), Verifier: record.NewVerifier(0), Now: time.Now, Rand: rand.Reader},
		})
		check(t, err)
		return lib
	}
	known := map[record.ID]bool{}
	fresh := func(lib *library.Library, controlSet bool) (out []record.Record) {
		for r, err := range lib.RecordsFrom(ctx, controlSet, nil, can.Digest{}) {
			check(t, err)
			if !known[r.ID()] {
				known[r.ID()] = true
				out = append(out, r)
			}
		}
		slices.SortFunc(out, func(a, b record.Record) int { return record.Compare(a.Header, b.Header) })
		return out
	}
	join := func(at *library.Library, tk capability.Ticket) *library.Library {
		dev, err := capability.NewDevice(rand.Reader)
		check(t, err)
		q, err := capability.NewJoinRequest(tk, dev, [32]byte{1})
		check(t, err)
		g, k, err := at.Session(nil).Admit(ctx, q, dev.PeerID(), [32]byte{1}).Open(q, dev)
		check(t, err)
		ch, err := chainOf(at, g.ID)
		check(t, err)
		lib := open(keyring.Library{
			ID: g.Library, State: keyring.Active, Lasting: k.Lasting, Bundle: ch.Encode(), Cert: g.ID,
			Epochs: []keyring.Epoch{{Number: k.Epoch, Secret: k.Secret}},
		}, dev)
		for r, err := range at.RecordsFrom(ctx, true, nil, can.Digest{}) {
			check(t, err)
			_, err = lib.Apply(ctx, []record.Record{r}, transport.PeerID{})
			check(t, err)
		}
		return lib
	}
	say := func(lib *library.Library, n byte) {
		d, err := lib.Announcement(record.Announce, can.Digest{n}, record.AssetBody{Size: 1, Root: [32]byte{1}})
		check(t, err)
		check(t, lib.Say(ctx, d))
	}
	dev, err := capability.NewDevice(rand.Reader)
	check(t, err)
	h.keys, err = library.Create("l", dev, rand.Reader)
	check(t, err)
	owner := open(h.keys, dev)
	check(t, owner.Describe(ctx, control.Description{Name: "l", Filter: filter.Filter{}}))
	tk, err := owner.Invite(ctx, capability.InviteOptions{Rights: capability.Read | capability.Write | capability.Invite}, nil)
	check(t, err)
	host := join(owner, tk)
	h.before = fresh(host, true)
	_, err = host.Invite(ctx, capability.InviteOptions{Rights: capability.Read}, nil)
	check(t, err)
	h.invite = fresh(host, true)
	guest := join(host, tk)
	h.guest = fresh(guest, true)
	say(guest, 1)
	say(guest, 2)
	h.says = fresh(guest, false)
	say(host, 2)
	say(host, 3)
	h.others = fresh(host, false)
	require.Len(t, h.invite, 1)
	require.Len(t, h.guest, 1)
	require.Len(t, h.says, 2)
	require.Len(t, h.others, 2)
	for _, lib := range []*library.Library{owner, host, guest} {
		check(t, lib.Close())
	}
	return h
}

func chainOf(lib *library.Library, id capability.CertID) (b capability.Bundle, err error) {
	lib.Control(func(s *control.State) {
		var ch capability.Chain
		if ch, err = s.Chain(id); err == nil {
			b, err = capability.NewBundle(ch, s.Chain)
		}
	})
	return b, err
}

func (h guesthouse) open(t *testing.T, st store.Store) *replica.Replica {
	r, err := replica.Open(t.Context(), replica.Options{
		Library: h.keys.ID, Store: st, Verifier: record.NewVerifier(0), ReconcileKey: h.keys.Lasting.ReconcileKey(),
		Now: time.Now, Rand: rand.Reader, ControlLimits: control.Limits{Share: 1},
	})
	check(t, err)
	<-r.Ready()
	return r
}

// What a lost member said goes, at once or after a restart, so that all end with the same.
func TestRecordsOfLostMembersGo(t *testing.T) {
	for _, restart := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := newGuesthouse(t)
			give := func(r *replica.Replica, recs []record.Record) (refused []replica.Refused) {
				res, err := r.Apply(t.Context(), recs, transport.PeerID{})
				check(t, err)
				return res.Refused
			}
			st := memory.New()
			r := h.open(t, st)
			require.Empty(t, give(r, h.before))
			require.Empty(t, give(r, h.guest))
			require.Empty(t, give(r, h.says))
			require.Empty(t, give(r, h.others))
			view, err := r.Snapshot(t.Context(), false, filter.View{{Hashes: []can.Digest{{1}, {2}, {3}}}})
			check(t, err)
			require.Equal(t, 4, view.Len())
			require.EqualValues(t, 4, r.Counts().Records)
			require.EqualValues(t, 3, r.Counts().Live)
			require.Empty(t, give(r, h.invite))
			require.Len(t, give(r, h.guest), 1)
			require.True(t, r.Refuses(h.guest[0].ID()))
			if restart {
				check(t, r.Close())
				r = h.open(t, st)
			}
			require.EqualValues(t, 4, r.Counts().Records, "not at once")
			time.Sleep(time.Minute)
			synctest.Wait()

			// Another heard of it in another order.
			o := h.open(t, memory.New())
			require.Empty(t, give(o, h.before))
			require.Empty(t, give(o, h.invite))
			require.Len(t, give(o, h.guest), 1)
			require.Len(t, give(o, h.says), 2)
			require.True(t, o.Refuses(h.says[0].ID()))
			require.Empty(t, give(o, h.others))

			for _, v := range []filter.View{nil, {{Hashes: []can.Digest{{1}, {2}, {3}}}}} {
				a, err := r.Snapshot(t.Context(), false, v)
				check(t, err)
				b, err := o.Snapshot(t.Context(), false, v)
				check(t, err)
				require.Equal(t, 2, a.Len())
				require.Equal(t, b.Digest(), a.Digest())
			}
			require.EqualValues(t, 2, r.Counts().Records)
			require.EqualValues(t, 2, r.Counts().Live)
			require.Equal(t, o.Counts().LiveBytes, r.Counts().LiveBytes)
			e, err := r.Entry(t.Context(), can.Digest{1})
			check(t, err)
			require.False(t, e.Known())
			_, err = r.Record(t.Context(), h.says[0].ID(), false)
			require.ErrorIs(t, err, replica.ErrNoRecord)
			check(t, r.Close())
			check(t, o.Close())
			again := h.open(t, st)
			require.EqualValues(t, 2, again.Counts().Live)
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			require.EqualValues(t, 2, again.Counts().Live)
			check(t, again.Close())
		})
	}
}
