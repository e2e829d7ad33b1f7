package control

import (
	"bytes"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/tier"
)

func TestAFullSetRefusesAndStaysAsItIs(t *testing.T) {
	w := newWorld(t)
	s := New(w.lib, Limits{Records: 3})
	a, b := w.owner.admit(capability.Read), w.owner.admit(capability.Read)
	addAll(t, s, w.owner.joined...)
	addAll(t, s, w.owner.describe("one", w.tick()))
	addAll(t, s, a.joined...)
	before := s.Digest()
	for range 2 {
		_, err := s.Add(b.joined[0])
		require.ErrorIs(t, err, ErrFull)
		require.NotErrorIs(t, err, ErrShare)
		require.Equal(t, before, s.Digest())
	}
	changed, err := s.Add(w.owner.describe("two", w.tick()))
	require.NoError(t, err)
	require.True(t, changed, "a newer description takes the place of the older")
	require.Equal(t, 4, s.Len())
}

const everyRight = capability.Read | capability.Write | capability.Invite

// Neither by invites of its own nor by those of devices that it lets in itself.
func TestAMemberCannotFillTheSet(t *testing.T) {
	w := newWorld(t)
	s := New(w.lib, Limits{Records: 64, Share: 8, Shared: 48})
	addAll(t, s, w.owner.joined...)
	mallory, honest := w.owner.admit(everyRight), w.owner.admit(everyRight)
	addAll(t, s, mallory.joined...)
	addAll(t, s, honest.joined...)
	// Also with a ticket of the owner's, and one by which others let it in.
	puppets := []*actor{mallory, mallory.admit(everyRight)}
	puppets = append(puppets, w.owner.admitBy(mallory, capability.InviteOptions{Rights: everyRight}, 0))
	puppets = append(puppets, mallory.admitBy(w.owner, capability.InviteOptions{Rights: everyRight}, 0))
	for _, p := range puppets[1:] {
		addAll(t, s, p.joined...) // five of its 8: the owner's ticket is the owner's
	}
	refused := 0
	for i := range 40 {
		_, _, r := puppets[i%len(puppets)].invite(capability.InviteOptions{Rights: capability.Read})
		if _, err := s.Add(r); err != nil {
			require.ErrorIs(t, err, ErrShare)
			require.ErrorIs(t, err, ErrFull)
			refused++
		}
	}
	require.Equal(t, 40-3, refused)
	c := honest.admit(everyRight)
	addAll(t, s, c.joined...)
	// However many they are, admins are heard.
	for range 10 {
		m := w.owner.admit(everyRight)
		addAll(t, s, m.joined...)
		for range 9 {
			_, _, r := m.invite(capability.InviteOptions{Rights: capability.Read})
			_, _ = s.Add(r)
		}
	}
	for range 20 {
		_, _, r := w.owner.invite(capability.InviteOptions{Rights: capability.Read})
		addAll(t, s, r)
	}
	require.LessOrEqual(t, s.shared, 48)
	addAll(t, s, w.owner.describe("still", w.tick()))
	require.LessOrEqual(t, s.Len(), 64+1)
}

// Who claims to have spoken before everybody else displaces nothing of theirs: neither by
// its own records, nor by letting their guests in a second time.
func TestBackdatingDisplacesOnlyOnesOwn(t *testing.T) {
	w := newWorld(t)
	s := New(w.lib, Limits{Records: 60, Share: 20, Shared: 30})
	addAll(t, s, w.owner.joined...)
	honest := w.owner.admit(everyRight)
	addAll(t, s, honest.joined...)
	guest := w.owner.admitBy(honest, capability.InviteOptions{Rights: everyRight}, 0)
	_, _, said := guest.invite(capability.InviteOptions{Rights: capability.Read})
	theirs := slices.Concat(guest.joined, []record.Record{said})
	addAll(t, s, theirs...)
	var evil []*actor
	for range 3 {
		m := w.owner.admit(everyRight)
		addAll(t, s, m.joined...)
		evil = append(evil, m)
	}
	now := w.clock
	w.clock = 0
	again := guest.chain.Last()
	_, err := s.Add(evil[0].countersign(&again, w.tick()))
	require.NoError(t, err)
	evicts := 0
	for i := range 100 {
		w.clock = record.Clock(1000 - 5*i)
		_, _, r := evil[i%3].invite(capability.InviteOptions{Rights: capability.Read})
		c, errs := s.Apply(r)
		require.NoError(t, errs[0])
		evicts += len(c.Removed)
	}
	w.clock = now
	require.Positive(t, evicts)
	for _, r := range theirs {
		require.True(t, s.Has(r.ID()))
	}
	require.Equal(t, 30, s.shared)
	_, _, more := guest.invite(capability.InviteOptions{Rights: capability.Read})
	addAll(t, s, more)
	require.True(t, s.Has(more.ID()), "its group has had less than its part")
}

// A membership that gives way takes with it what its holder said.
func TestWhatRestsOnWhatGivesWayGoesToo(t *testing.T) {
	w := newWorld(t)
	s := New(w.lib, Limits{Records: 60, Share: 2, Shared: 30})
	host := w.owner.admit(everyRight)
	_, _, early := host.invite(capability.InviteOptions{Rights: capability.Read})
	admin := w.owner.admitBy(host, capability.InviteOptions{Rights: capability.AllRights}, 0)
	told := admin.describe("theirs", w.tick())
	_, _, says := admin.invite(capability.InviteOptions{Rights: capability.Read})
	plain := w.owner.admitBy(host, capability.InviteOptions{Rights: everyRight}, 0)
	addAll(t, s, slices.Concat(w.owner.joined, host.joined, admin.joined, []record.Record{told, says}, plain.joined)...)
	require.NoError(t, s.Check(plain.announce("a", record.Announce, w.tick())))
	c, errs := s.Apply(early)
	require.NoError(t, errs[0])
	require.Equal(t, []record.ID{plain.joined[1].ID()}, c.Removed)
	require.True(t, c.Lost)
	require.ErrorIs(t, s.Check(plain.announce("a", record.Announce, w.tick())), ErrUnknownCert)
	_, errs = s.Apply(plain.joined[1])
	require.ErrorIs(t, errs[0], ErrShare)
	w.clock = record.ClockAt(start) - 100
	_, _, earlier := host.invite(capability.InviteOptions{Rights: capability.Read})
	c, errs = s.Apply(earlier)
	require.NoError(t, errs[0])
	require.ElementsMatch(t, []record.ID{admin.joined[1].ID(), says.ID(), told.ID()}, c.Removed)
	require.True(t, c.Lost)
	for _, id := range c.Removed {
		require.False(t, s.Has(id))
	}
	_, _, ok := s.Description()
	require.False(t, ok)
	require.Len(t, s.Members(), 2)
	for r := range s.Records() {
		_, err := s.Chain(capability.CertID(r.Cert))
		require.NoError(t, err)
	}
}

// crowded returns far more than small limits allow: several groups, which let each
// other's guests in, twice, backdate, invite for one another, and let an admin in.
func crowded(t require.TestingT) (*world, []record.Record) {
	w := newWorld(t)
	admin := w.owner.admit(capability.AllRights)
	all := slices.Concat(w.owner.joined, admin.joined)
	people := []*actor{w.owner, admin}
	add := func(a *actor) *actor {
		all, people = append(all, a.joined...), append(people, a)
		return a
	}
	one, two := add(w.owner.admit(everyRight)), add(admin.admit(everyRight))
	three := add(w.owner.admitBy(two, capability.InviteOptions{Rights: everyRight}, 0))
	four := add(one.admit(everyRight))
	five := add(one.admitBy(two, capability.InviteOptions{Rights: everyRight}, record.ClockAt(start)-7))
	add(two.admitBy(admin, capability.InviteOptions{Rights: everyRight}, 0))
	people = people[:len(people)-1] // too far down to invite
	late := add(w.owner.admitBy(four, capability.InviteOptions{Rights: capability.AllRights}, 0))
	add(late.admit(everyRight))
	now := w.clock
	for i, a := range people {
		for j := range 4 {
			w.clock = now + record.Clock(7*i+31*j)%43 - 60
			_, _, r := a.invite(capability.InviteOptions{Rights: capability.Read})
			all = append(all, r)
		}
	}
	for i, a := range []*actor{three, four, five, late} {
		again := a.chain.Last()
		all = append(all, []*actor{one, two, admin, five}[i].countersign(&again, now-record.Clock(20*i)))
		again = a.chain.Last()
		all = append(all, []*actor{two, w.owner, one, two}[i].countersign(&again, now-record.Clock(80-20*i)))
	}
	for i, a := range []*actor{w.owner, admin, late} {
		all = append(all, a.describe(name(i), now), a.describe(name(i+3), now+1))
	}
	return w, all
}

// plainly finds what a set keeps by the words of docs/protocol.md, slowly.
func plainly(s *State, l Limits) map[record.ID]bool {
	kept := map[record.ID]bool{}
	certs := map[capability.CertID]map[capability.CertID]bool{} // those that count, and who may account for them
	count := map[capability.CertID]int{}
	total, shared := 0, 0
	for total < l.Records {
		var best *entry
		var group capability.CertID
		for _, e := range s.order {
			if e.Kind == record.Description || kept[e.id] ||
				waits(e, certs) {
				continue
			}
			if e.payer.IsZero() {
				if best == nil || !group.IsZero() || before(e, best) {
					best, group = e, capability.CertID{}
				}
				continue
			}
			for g := range certs[e.payer] {
				if shared >= l.Shared || count[g] >= l.Share || best != nil && group.IsZero() {
					continue
				}
				better := best == nil || count[g] < count[group]
				if !better && count[g] == count[group] {
					better = before(e, best) || e == best && bytes.Compare(g[:], group[:]) < 0
				}
				if better {
					best, group = e, g
				}
			}
		}
		if best == nil {
			return kept
		}
		kept[best.id] = true
		total++
		if !group.IsZero() {
			count[group]++
			shared++
		}
		if best.in != nil && certs[best.in.grant.ID] == nil {
			certs[best.in.grant.ID] = map[capability.CertID]bool{}
		}
		for more := true; more; {
			more = false
			for id := range kept {
				e := s.valid[id]
				if e.in == nil || e.in.Kind != capability.KindMember || e.in.grant.Rights.Has(capability.Admin) {
					continue
				}
				by := map[capability.CertID]bool{e.in.grant.ID: true}
				if !e.payer.IsZero() {
					by = certs[e.payer]
				}
				for g := range by {
					more = more || !certs[e.in.grant.ID][g]
					certs[e.in.grant.ID][g] = true
				}
			}
		}
	}
	return kept
}

func waits(e *entry, certs map[capability.CertID]map[capability.CertID]bool) bool {
	for _, id := range e.rests() {
		if !id.IsZero() && certs[id] == nil {
			return true
		}
	}
	return false
}

func drawLimits(t *rapid.T) Limits {
	return Limits{
		Records: rapid.IntRange(8, 60).Draw(t, "records"), Share: rapid.IntRange(1, 12).Draw(t, "share"),
		Shared: rapid.IntRange(3, 40).Draw(t, "shared"),
	}
}

// Any order of arrival of more than a set takes ends in the same set, and so do members
// that have different parts of it and hand each other what they keep; then they are silent.
func TestAnOverfullSetDoesNotDependOnTheOrderOfArrival(t *testing.T) {
	w, all := crowded(t)
	once := verifyOnce()
	refusals := 0
	unlimited := New(w.lib, Limits{})
	unlimited.verify = once
	addAll(t, unlimited, all...)
	require.Zero(t, unlimited.Waiting())
	tier.Check(t, 100, 20_000, func(t *rapid.T) {
		limits := drawLimits(t)
		fresh := func() *State {
			s := New(w.lib, limits)
			s.verify = once
			return s
		}
		// give hands records over, and says whether any was taken.
		give := func(s *State, rs []record.Record) (news bool) {
			for len(rs) > 0 {
				n := rapid.IntRange(1, len(rs)).Draw(t, "batch")
				before := s.Digest()
				c, errs := s.Apply(rs[:n]...)
				for _, err := range errs {
					if err != nil {
						require.ErrorIs(t, err, ErrFull)
						refusals++
					}
				}
				for _, r := range c.Added {
					require.True(t, s.Has(r.ID()))
				}
				for _, id := range c.Removed {
					require.False(t, s.Has(id))
				}
				require.Equal(t, before == s.Digest(), len(c.Added)+len(c.Removed) == 0)
				require.LessOrEqual(t, s.Len()-len(s.newest), limits.Records)
				require.LessOrEqual(t, s.shared, limits.Shared)
				news, rs = news || len(c.Added) > 0, rs[n:]
			}
			return news
		}
		settle := func(s *State) *State {
			for n := 0; give(s, rapid.Permutation(all).Draw(t, "order")); n++ {
				require.Less(t, n, 30, "it comes to an end")
			}
			return s
		}
		want := settle(fresh())
		kept := plainly(unlimited, limits)
		require.Len(t, kept, want.Len()-len(want.newest))
		for id := range kept {
			require.True(t, want.Has(id))
		}
		requireSame(t, want, settle(fresh()))

		nodes := []*State{fresh(), fresh(), fresh()}
		for _, r := range rapid.Permutation(all).Draw(t, "arrival") {
			for i, has := 0, rapid.IntRange(1, 7).Draw(t, "who"); i < len(nodes); i++ {
				if has&(1<<i) != 0 {
					_, _ = nodes[i].Add(r)
				}
			}
		}
		for n, quiet := 0, 0; quiet < 6; n++ {
			require.Less(t, n, 200, "it comes to an end")
			from, to := nodes[n%3], nodes[(n+1+n/3%2)%3]
			if quiet++; give(to, slices.Collect(from.Records())) {
				quiet = 0
			}
		}
		requireSame(t, nodes[0], nodes[1])
		requireSame(t, nodes[0], nodes[2])
		// From the store they come back as they were.
		again := fresh()
		give(again, slices.Collect(nodes[0].Records()))
		requireSame(t, nodes[0], again)
	})
	require.Positive(t, refusals)
}
