package overlay

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cansync/cansync/transport"
)

var start = time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)

// testID returns the id of the n-th peer.
func testID(n int) transport.PeerID {
	return sha256.Sum256(binary.LittleEndian.AppendUint64(nil, uint64(n)))
}

func weigh(r ranker, a, b transport.PeerID) uint64 { return r.weight(r.point(&a), r.point(&b)) }

// drawView draws what a node may see of a library.
func drawView(t *rapid.T, most int) View {
	v := View{Self: testID(0), Now: start, Degree: rapid.IntRange(0, 12).Draw(t, "degree")}
	n := rapid.IntRange(0, most).Draw(t, "peers")
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "rng"), 1))
	binary.LittleEndian.PutUint64(v.Seed[:], rng.Uint64())
	for i := range n {
		p := Peer{
			ID: testID(i + 1), State: State(rng.IntN(5)), Settled: rng.IntN(4) > 0, Busy: rng.IntN(4) == 0,
			Address: rng.IntN(3) > 0, Failures: max(0, rng.IntN(6)-3),
		}
		if rng.IntN(3) == 0 {
			p.LastSeen = start.Add(-time.Duration(rng.IntN(20*24)) * time.Hour)
		}
		v.Peers = append(v.Peers, p)
	}
	if rng.IntN(2) == 0 {
		v.Peers = append(v.Peers, Peer{ID: v.Self})
	}
	return v
}

func TestPlanKeepsItsWord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawView(t, 60)
		p := v.Plan()
		d := v.degree()
		by := make(map[transport.PeerID]Peer)
		links, near := 0, 0
		for _, peer := range v.Peers {
			if peer.ID == v.Self {
				continue
			}
			by[peer.ID] = peer
			if peer.State.Linked() {
				links++
			}
			if peer.State != Waiting {
				near++
			}
		}
		named := make(map[transport.PeerID]bool)
		for _, list := range [][]transport.PeerID{p.Dial, p.Later, p.Drop} {
			for _, id := range list {
				require.Contains(t, by, id)
				require.False(t, named[id], "named twice")
				named[id] = true
			}
		}
		for _, id := range p.Dial {
			require.Equal(t, Idle, by[id].State)
		}
		for _, id := range p.Later {
			require.Equal(t, Waiting, by[id].State)
		}
		for _, id := range p.Drop {
			require.True(t, by[id].State.Linked())
			require.True(t, by[id].Settled)
			if by[id].Busy {
				require.Equal(t, Accepted, by[id].State)
				require.Greater(t, links, 2*d+chosen(d), "busy, and there is room")
			}
			require.False(t, v.Near(id), "near")
		}
		require.LessOrEqual(t, len(p.Dial), d+1)
		require.LessOrEqual(t, len(p.Later), d)
		if len(by) <= d {
			require.Empty(t, p.Drop)
			for id, peer := range by {
				require.Equal(t, peer.State == Idle, slices.Contains(p.Dial, id))
				require.Equal(t, peer.State == Waiting, slices.Contains(p.Later, id))
			}
			return
		}
		if len(p.Drop) > 0 {
			require.GreaterOrEqual(t, links-len(p.Drop), chosen(d), "too few links left")
		}
		if links == 0 && near > 0 {
			idle := slices.ContainsFunc(v.Peers, func(p Peer) bool { return p.State == Idle && p.ID != v.Self })
			dialing := slices.ContainsFunc(v.Peers, func(p Peer) bool { return p.State == Dialing })
			require.True(t, !idle || dialing || len(p.Dial) > 0, "alone and idle")
		}
	})
}

func TestPlanDoesNotDependOnOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawView(t, 60)
		want := v.Plan()
		accept := v.Accept(testID(3))
		rand.Shuffle(len(v.Peers), func(i, j int) { v.Peers[i], v.Peers[j] = v.Peers[j], v.Peers[i] })
		require.Equal(t, want, v.Plan())
		require.Equal(t, accept, v.Accept(testID(3)))
	})
}

func TestWeightIsSymmetricAndTurns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := testID(rapid.IntRange(0, 1000).Draw(t, "a")), testID(rapid.IntRange(1001, 2000).Draw(t, "b"))
		r := newRanker([16]byte{1}, start)
		require.Equal(t, weigh(r, a, b), weigh(r, b, a))
		changes := 0
		last := weigh(r, a, b)
		const turns = 5
		for range turns * 12 {
			r.now += uint64(Turn/time.Second) / 12
			if w := weigh(r, a, b); w != last {
				last = w
				changes++
			}
		}
		require.Equal(t, turns, changes)
		require.NotEqual(t, weigh(newRanker([16]byte{2}, start), a, b), weigh(newRanker([16]byte{1}, start), a, b))
	})
}

func TestWeightsTurnAtDifferentTimes(t *testing.T) {
	a := testID(0)
	changed := 0
	for i := range 1000 {
		b := testID(i + 1)
		r := newRanker([16]byte{1}, start)
		w := weigh(r, a, b)
		r.now += uint64(Turn/time.Second) / 60
		if weigh(r, a, b) != w {
			changed++
		}
	}
	require.InDelta(t, 1000/60., changed, 15, "a sixtieth of the pairs turns in a sixtieth of the time")
	require.Positive(t, changed)
}

// idle is a view of n peers of whom the addresses are known.
func idle(n int) View {
	v := View{Self: testID(0), Now: start}
	for i := range n {
		v.Peers = append(v.Peers, Peer{ID: testID(i + 1), Address: true})
	}
	return v
}

func set(v *View, id transport.PeerID, change func(*Peer)) {
	for i := range v.Peers {
		if v.Peers[i].ID == id {
			change(&v.Peers[i])
		}
	}
}

func TestPlanPrefersWhomItDoesNotDoubt(t *testing.T) {
	v := idle(100)
	k := chosen(DefaultDegree)
	require.Equal(t, 5, k)
	with := func(list []transport.PeerID, more transport.PeerID) []transport.PeerID {
		return append(slices.Clone(list), more)
	}
	require.Len(t, v.Plan().Dial, k)
	last := &v.Peers[len(v.Peers)-1]
	last.State, last.Failures = Waiting, 1
	first := v.Plan().Dial
	require.Len(t, first, DefaultDegree, "alone and not answered: a whole degree at once")
	last.State, last.Failures = Idle, 0
	require.Equal(t, first[:k], v.Plan().Dial, "not alone: what it chooses")
	set(&v, first[7], func(p *Peer) { p.State = Opened })
	require.Equal(t, first[:k], v.Plan().Dial, "not alone: what it chooses")

	set(&v, first[0], func(p *Peer) { p.Failures = 1 })
	require.Equal(t, with(first[1:6], first[0]), v.Plan().Dial, "the doubted one is the probe")
	set(&v, first[1], func(p *Peer) { p.Address = false })
	require.Equal(t, with(first[2:7], first[0]), v.Plan().Dial, "one probe at a time")
	set(&v, first[0], func(p *Peer) { p.State = Dialing })
	require.Equal(t, first[2:7], v.Plan().Dial, "none while one is under way")
	set(&v, first[0], func(p *Peer) { p.State = Waiting })
	require.Equal(t, []transport.PeerID{first[0]}, v.Plan().Later)
	set(&v, first[0], func(p *Peer) { *p = Peer{ID: p.ID, Address: true, LastSeen: start.Add(-Stale - 1)} })
	require.Equal(t, with(first[2:7], first[0]), v.Plan().Dial, "stale is in doubt")
	set(&v, first[0], func(p *Peer) { p.LastSeen = start.Add(-Stale) })
	require.Equal(t, first[0], v.Plan().Dial[0])

	v = idle(100)
	for i := range v.Peers {
		v.Peers[i].Address = false
	}
	require.Equal(t, first[:k], v.Plan().Dial, "with nobody better, the doubted fill up")
}

func TestPlanDropsWhatItOutgrew(t *testing.T) {
	v := idle(100)
	v.Degree = 2 * DefaultDegree
	best := v.Plan().Dial // more than it would choose otherwise
	v.Degree = DefaultDegree
	k, far := chosen(DefaultDegree), 0
	for _, id := range best[:k-1] {
		set(&v, id, func(p *Peer) { p.State, p.Settled = Opened, true })
	}
	for i := range v.Peers {
		if far < 3 && !slices.Contains(best, v.Peers[i].ID) {
			v.Peers[i].State, v.Peers[i].Settled = Opened, far > 0
			far++
		}
	}
	require.Equal(t, best[k-1:k], v.Plan().Dial)
	require.Empty(t, v.Plan().Drop, "not before all chosen are linked")
	set(&v, best[k-1], func(p *Peer) { p.State = Accepted })
	require.Len(t, v.Plan().Drop, 2, "the unsettled one stays")
	set(&v, v.Plan().Drop[0], func(p *Peer) { p.State = Accepted })
	require.Len(t, v.Plan().Drop, 1, "what the peer opened is for the peer to drop")
}

func TestPlanKeepsLinksThatThePeerChooses(t *testing.T) {
	wanted, unwanted := 0, 0
	for seed := range byte(6) {
		v := idle(150)
		v.Seed[0] = seed
		all := best{v: &v, most: len(v.Peers)}
		rank := newRanker(v.Seed, v.Now)
		for i := range v.Peers {
			all.add(ranked{weigh(rank, v.Self, v.Peers[i].ID), i})
		}
		for _, r := range all.list[:chosen(DefaultDegree)] {
			v.Peers[r.at].State, v.Peers[r.at].Settled = Opened, true
		}
		for i, r := range all.list[chosen(DefaultDegree):40] {
			p := &v.Peers[r.at]
			// What the peer would choose, were it to plan.
			w := View{Self: p.ID, Seed: v.Seed, Now: v.Now, Peers: append(idle(150).Peers, Peer{ID: v.Self, Address: true})}
			chooses := slices.Contains(w.Plan().Dial, v.Self)
			p.State, p.Settled = Opened, true
			dropped := slices.Contains(v.Plan().Drop, p.ID)
			p.State = Idle
			near := chosen(DefaultDegree)+i < DefaultDegree
			require.Equal(t, !near && !chooses, dropped)
			switch {
			case near:
			case chooses:
				wanted++
			default:
				unwanted++
			}
		}
	}
	require.Positive(t, wanted, "nobody far chose the node: nothing was tested")
	require.Positive(t, unwanted)
}

func TestAcceptLeavesADoorOpen(t *testing.T) {
	v := idle(300)
	stranger := testID(100000)
	links := 0
	for v.Accept(stranger) {
		require.Less(t, links, 30)
		v.Peers[links].State = Accepted // as yet unsettled
		links++
	}
	require.Equal(t, 2*DefaultDegree+chosen(DefaultDegree), links)
	require.True(t, v.Accept(v.Peers[0].ID), "who has a link may replace it")
	require.False(t, v.Accept(v.Self))

	require.Empty(t, v.Plan().Drop, "guests stay until they settled")
	for i := range links {
		v.Peers[i].Settled = true
	}
	drop := v.Plan().Drop
	require.Len(t, drop, chosen(DefaultDegree), "then the worst go")
	rank := newRanker(v.Seed, v.Now)
	least := weigh(rank, v.Self, drop[len(drop)-1])
	for i := range links {
		if !slices.Contains(drop, v.Peers[i].ID) {
			require.Less(t, weigh(rank, v.Self, v.Peers[i].ID), least)
		}
	}
	for _, id := range drop {
		set(&v, id, func(p *Peer) { p.State, p.Failures = Idle, 0 })
	}
	require.True(t, v.Accept(stranger), "a door is open again")

	// Full to the brim, those that it chooses are let in nevertheless, up to the limit.
	for i := range links {
		v.Peers[i].State = Accepted
	}
	let := 0
	for i := links; i < len(v.Peers); i++ {
		if v.Accept(v.Peers[i].ID) {
			v.Peers[i].State = Accepted
			let++
		}
	}
	require.Positive(t, let)
	require.LessOrEqual(t, links+let, Limit(0))
}

func BenchmarkPlan(b *testing.B) {
	v := idle(10_000)
	for i := range 8 {
		v.Peers[i*1000].State = Opened
	}
	for b.Loop() {
		v.Plan()
	}
}
