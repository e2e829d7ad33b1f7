package control

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/tier"
)

func permutations(in []record.Record) (out [][]record.Record) {
	if len(in) <= 1 {
		return [][]record.Record{slices.Clone(in)}
	}
	for i := range in {
		rest := slices.Delete(slices.Clone(in), i, i+1)
		for _, p := range permutations(rest) {
			out = append(out, append([]record.Record{in[i]}, p...))
		}
	}
	return out
}

// An admin who says two things at the same time splits nobody: all 24 orders, at
// four members.
func TestForksConverge(t *testing.T) {
	w := newWorld(t)
	admin := w.owner.admit(capability.AllRights)
	at := w.tick()
	fork := []record.Record{admin.describe("one", at), admin.describe("two", at)}
	want := fork[0].ID()
	if fork[1].ID().Compare(want) > 0 {
		want = fork[1].ID()
	}
	orders := permutations(append(slices.Clone(admin.joined), fork...))
	require.Len(t, orders, 24)
	var first *State
	for i := range orders {
		for n := range 4 {
			s := New(w.lib)
			addAll(t, s, w.owner.joined...)
			addAll(t, s, orders[(i+n*7)%len(orders)]...)
			_, id, ok := s.Description()
			require.True(t, ok)
			require.Equal(t, want, id, "the greater id")
			require.Zero(t, s.Waiting())
			if first == nil {
				first = s
			}
			requireSame(t, first, s)
		}
	}
}

// everything returns valid and void records of a small library.
func everything(t require.TestingT) (*world, []record.Record) {
	w := newWorld(t)
	admin := w.owner.admit(capability.AllRights)
	host := admin.admit(capability.Write | capability.Invite)
	// Invited by the owner, let in by another.
	guest := w.owner.admitBy(host, capability.InviteOptions{Rights: capability.Read}, 0)
	deep := host.admit(capability.Write)
	all := slices.Concat(w.owner.joined, admin.joined, host.joined, guest.joined, deep.joined)
	for i := range 3 {
		all = append(all, w.owner.describe(name(i), w.tick()), admin.describe(name(i), w.tick()))
	}
	// Let in a second time, by another: the same certificate.
	again := guest.chain.Last()
	all = append(all, admin.countersign(&again, w.tick()))
	// Its own guest lets the admin in once more: a circle, were it needed.
	back := admin.chain.Last()
	all = append(all, host.countersign(&back, admin.joined[1].Clock-1))
	// Void: no right; and a certificate that nobody carries.
	all = append(all, guest.describe("void", w.tick()), deep.describe("void", w.tick()))
	stranger := guest.chain.Last()
	all = append(all, deep.countersign(&stranger, w.tick()))
	nobody := w.owner.admit(capability.Admin)
	all = append(all, nobody.describe("unheard", w.tick()))
	return w, all
}

// Validity does not depend on the order of arrival.
func TestStateDoesNotDependOnTheOrderOfArrival(t *testing.T) {
	w, all := everything(t)
	want := New(w.lib)
	void := 0
	for _, r := range all {
		if _, err := want.Add(r); err != nil {
			require.ErrorIs(t, err, ErrForbidden)
			void++
		}
	}
	require.Equal(t, 3, void)
	require.Equal(t, 1, want.Waiting())
	require.Equal(t, 2+9+2, want.Len(), "two descriptions, nine certificates, two of which are carried twice")
	once, convinced := verifyOnce(), map[string]bool{}
	// Five permutations a case.
	tier.Check(t, 1000, 20_000, func(t *rapid.T) {
		var s *State
		for range 5 {
			s = deliver(t, w.lib, once, rapid.Permutation(all).Draw(t, "order"))
			requireSame(t, want, s)
			require.Equal(t, want.Waiting(), s.Waiting())
		}
		// What any member gives out, another takes in as it comes, and strangers
		// are convinced by it.
		copied := New(w.lib)
		copied.verify = once
		for r := range s.Records() {
			addAll(t, copied, r)
			require.Zero(t, copied.Waiting())
		}
		requireSame(t, want, copied)
		for _, m := range s.Members() {
			ch, err := s.Chain(m.ID)
			require.NoError(t, err)
			b, err := capability.NewBundle(ch, s.Chain)
			require.NoError(t, err)
			key := string(b.Encode())
			if !convinced[key] {
				_, err = b.Verify(w.lib)
				require.NoError(t, err)
				convinced[key] = true
			}
		}
	})
}

// verifyOnce returns capability.Chain.Verify with a memory, as five hundred states
// ask the same of it.
func verifyOnce() verify {
	type verdict struct {
		grant capability.Grant
		err   error
	}
	seen := map[string]verdict{}
	return func(ch capability.Chain, library [32]byte, admitter func(capability.CertID) (capability.Grant, error)) (capability.Grant, error) {
		key := string(library[:]) + string(ch.Encode())
		v, ok := seen[key]
		if !ok {
			v.grant, v.err = ch.Verify(library, admitter)
			if errors.Is(v.err, capability.ErrAdmitter) {
				return v.grant, v.err // may be known next time
			}
			seen[key] = v
		}
		return v.grant, v.err
	}
}

// deliver adds records, some of them twice, and follows the changes, which tell
// the whole story.
func deliver(t *rapid.T, library [32]byte, v verify, rs []record.Record) *State {
	s := New(library)
	s.verify = v
	kept := map[record.ID]bool{}
	for _, r := range rs {
		for range rapid.IntRange(1, 2).Draw(t, "times") {
			c, _ := s.Apply(r) // void records are among them
			for _, a := range c.Added {
				require.False(t, kept[a.ID()])
				kept[a.ID()] = true
			}
			for _, id := range c.Removed {
				require.True(t, kept[id])
				delete(kept, id)
			}
		}
	}
	require.Len(t, kept, s.Len())
	for id := range kept {
		require.True(t, s.Has(id))
	}
	return s
}

func TestWhatWaitsIsBounded(t *testing.T) {
	w := newWorld(t)
	late := w.owner.admit(capability.Admin)
	s := New(w.lib)
	addAll(t, s, w.owner.joined...)
	var first, last record.Record
	for i := range MaxWaiting + 1 {
		last = late.describe(name(i), w.tick())
		if i == 0 {
			first = last
		}
		changed, err := s.Add(last)
		require.NoError(t, err)
		require.False(t, changed)
		require.False(t, s.Has(last.ID()))
	}
	require.Equal(t, MaxWaiting, s.Waiting())
	require.False(t, s.waiting.has(first.ID()), "the oldest gave way")
	require.Len(t, s.waiting.by, 1)
	addAll(t, s, late.joined[0])
	c, err := s.Apply(late.joined[1])
	require.NoError(t, err)
	require.Len(t, c.Added, 2, "the membership and its newest description")
	require.Empty(t, c.Removed)
	require.Zero(t, s.Waiting())
	require.Empty(t, s.waiting.by)
	require.Empty(t, s.waiting.byID)
	_, id, ok := s.Description()
	require.True(t, ok)
	require.Equal(t, last.ID(), id)
}

func TestAFullSetRefusesAndStaysAsItIs(t *testing.T) {
	w := newWorld(t)
	s := New(w.lib)
	s.limit = 4
	a, b := w.owner.admit(capability.Read), w.owner.admit(capability.Read)
	addAll(t, s, w.owner.joined...)
	addAll(t, s, w.owner.describe("one", w.tick()))
	addAll(t, s, a.joined...)
	before := s.Digest()
	_, err := s.Add(b.joined[0])
	require.ErrorIs(t, err, ErrFull)
	require.Equal(t, before, s.Digest())
	changed, err := s.Add(w.owner.describe("two", w.tick()))
	require.NoError(t, err)
	require.True(t, changed, "a newer description takes the place of the older")
	require.Equal(t, 4, s.Len())
}

func TestAMemberCannotFillTheSet(t *testing.T) {
	w := newWorld(t)
	s := New(w.lib)
	s.limit, s.share, s.common = 64, 8, 48
	addAll(t, s, w.owner.joined...)
	all := capability.Read | capability.Write | capability.Invite
	mallory, honest := w.owner.admit(all), w.owner.admit(all)
	addAll(t, s, mallory.joined...)
	addAll(t, s, honest.joined...)
	// Invites of its own, and those of devices that it lets in itself.
	puppet := mallory.admit(all)
	addAll(t, s, puppet.joined...) // 2 of 8
	refused := 0
	for i := range 40 {
		by := mallory
		if i%2 == 1 {
			by = puppet
		}
		_, _, r := by.invite(capability.InviteOptions{Rights: capability.Read})
		if _, err := s.Add(r); err != nil {
			require.ErrorIs(t, err, ErrShare)
			require.ErrorIs(t, err, ErrFull)
			refused++
		}
	}
	require.Equal(t, 40-6, refused)
	c := honest.admit(all)
	addAll(t, s, c.joined...)
	// However many they are, admins are heard.
	for range 10 {
		m := w.owner.admit(all)
		addAll(t, s, m.joined...)
		for range 9 {
			_, _, r := m.invite(capability.InviteOptions{Rights: capability.Read})
			_, _ = s.Add(r)
		}
		if s.Len() > 60 {
			break
		}
	}
	require.LessOrEqual(t, s.shared, 48)
	addAll(t, s, w.owner.describe("still", w.tick()))
	require.LessOrEqual(t, s.Len(), 64)
}

func TestOpenInvitesAreTheNewest(t *testing.T) {
	w := newWorld(t)
	s := New(w.lib)
	addAll(t, s, w.owner.joined...)
	var ids []record.ID
	for range MaxOpenInvites + 3 {
		_, _, r := w.owner.invite(capability.InviteOptions{Rights: capability.Read})
		addAll(t, s, r)
		ids = append([]record.ID{r.ID()}, ids...)
	}
	open := s.OpenInvites(start.Unix())
	require.Len(t, open, MaxOpenInvites)
	for i, o := range open {
		require.Equal(t, ids[i], o.Record)
		require.Equal(t, capability.KindInvite, o.Grant.Kind)
		require.False(t, o.Secret.IsZero())
	}
}

func TestNobodyCrowdsOutTheInvitesOfOthers(t *testing.T) {
	w := newWorld(t)
	s := New(w.lib)
	addAll(t, s, w.owner.joined...)
	all := capability.Read | capability.Invite
	forever := capability.InviteOptions{Rights: all, RedeemBy: start.Add(time.Hour)}
	mallory, honest := w.owner.admitBy(w.owner, forever, 0), w.owner.admitBy(w.owner, forever, 0)
	addAll(t, s, append(mallory.joined, honest.joined...)...)
	puppet := mallory.admitBy(mallory, forever, 0)
	addAll(t, s, puppet.joined...)
	var mine []record.ID
	for _, by := range []*actor{w.owner, honest, w.owner, honest} {
		_, _, r := by.invite(forever)
		addAll(t, s, r)
		mine = append(mine, r.ID())
	}
	for i := range 2 * MaxOpenInvites {
		by := mallory
		if i%2 == 1 {
			by = puppet
		}
		_, _, r := by.invite(forever)
		addAll(t, s, r)
	}
	open := s.OpenInvites(start.Unix())
	require.Len(t, open, MaxOpenInvites)
	got := map[record.ID]bool{}
	for i, o := range open {
		got[o.Record] = true
		require.True(t, i == 0 || o.Clock < open[i-1].Clock, "the newest first")
	}
	for i, id := range mine {
		require.True(t, got[id], i)
	}
}
