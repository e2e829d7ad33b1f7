package simulate

import (
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
)

// World is a number of peers that share a library. Its methods are for the
// goroutine that runs the world's function; they fail the test where something does
// not work that should.
type World struct {
	t      *testing.T
	seed   uint64
	o      Options
	rng    *rand.Rand
	net    *network
	memory *memory.Network // nil when the test has a network of its own
	peers  []*Peer
	lib    cansync.LibraryID
	counts *counters
	assets map[can.Digest]*asset
	order  []can.Digest // keys of assets, oldest first
	active []*trouble
	batch  int     // of how many contents users add less than
	deck   []Fault // what chaos draws from before it repeats itself
}

func newWorld(t *testing.T, seed uint64, o Options, total *counters) *World {
	w := &World{
		t: t, seed: seed, o: o, rng: rand.New(rand.NewPCG(seed, 0x73696d)), counts: &counters{up: total},
		assets: make(map[can.Digest]*asset),
	}
	var net Network
	if o.Network != nil {
		net = o.Network(w.rng.Uint64())
	} else {
		m := newInMemory(memory.Options{Seed: w.rng.Uint64(), Link: o.Link})
		net, w.memory = m, m.net
	}
	w.net = newNetwork(net, o.Link, w.counts)
	return w
}

// begin starts the peers and lets them join.
func (w *World) begin() {
	first := newPeer(w, 0)
	w.peers = append(w.peers, first)
	first.Start()
	l, err := first.node.CreateLibrary(w.t.Context(), "simulated", w.o.Filter)
	require.NoError(w.t, err)
	w.lib, first.joined = l.ID(), true
	if w.o.Policy != "" {
		require.NoError(w.t, l.SetDeletePolicy(w.t.Context(), w.o.Policy))
	}
	for range w.o.Peers - 1 {
		w.AddPeer()
	}
	w.Eventually("all peers are members", 10*time.Minute, func() bool {
		return !slices.ContainsFunc(w.peers, func(p *Peer) bool { return p.Library().Access() == 0 })
	})
}

func (w *World) close() {
	for _, p := range w.peers {
		if p.node != nil {
			if err := p.node.Close(); err != nil {
				w.t.Errorf("close of peer %d: %v", p.index, err)
			}
			p.down()
		}
		if err := p.svc.Close(); err != nil {
			w.t.Errorf("close of the service of peer %d: %v", p.index, err)
		}
	}
	if err := w.net.close(); err != nil {
		w.t.Errorf("close of the network: %v", err)
	}
}

// T is the world's test.
func (w *World) T() *testing.T { return w.t }

// Seed is what the world's randomness is drawn from.
func (w *World) Seed() uint64 { return w.seed }

// Rand is the world's source of randomness, for choices of the test's own.
func (w *World) Rand() *rand.Rand { return w.rng }

// Peers returns all peers, those that are down included, in the order of their
// numbers.
func (w *World) Peers() []*Peer { return slices.Clone(w.peers) }

// Peer returns the peer with the number i.
func (w *World) Peer(i int) *Peer { return w.peers[i] }

// LibraryID is the id of the library that the peers share.
func (w *World) LibraryID() cansync.LibraryID { return w.lib }

// Network is the network between the peers, for what World has no method for, or nil
// when [Options.Network] made another.
func (w *World) Network() *memory.Network { return w.memory }

// Counts returns how often each kind of fault had an effect in this world.
func (w *World) Counts() map[Fault]int {
	w.net.collectAll()
	return w.counts.all()
}

// AddPeer adds a machine and starts its node, which redeems a ticket that a running
// member makes. The new peer need not reach it yet.
func (w *World) AddPeer() *Peer {
	var hosts []*Peer
	for _, p := range w.peers {
		if l := p.Library(); l != nil && l.Access()&cansync.Invite != 0 && p.sane() {
			hosts = append(hosts, p)
		}
	}
	require.NotEmpty(w.t, hosts, "no member is up that could invite")
	// A member that has just joined can't invite before it has the description.
	host, tk := hosts[w.rng.IntN(len(hosts))], cansync.Ticket{}
	w.Eventually("an invitation", 10*time.Minute, func() (ok bool) {
		var err error
		tk, err = host.Library().Invite(w.t.Context(), cansync.InviteOptions{})
		return err == nil
	})
	p := newPeer(w, len(w.peers))
	for _, o := range w.peers {
		w.net.apply(p.index, o.index)
	}
	w.peers = append(w.peers, p)
	p.Start()
	_, err := p.node.Join(w.t.Context(), tk)
	require.NoError(w.t, err)
	p.joined = true
	return p
}

// Sleep lets virtual time pass, and everything happen that happens in it.
func (w *World) Sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// Eventually waits until ok is true, and fails the test when that takes longer.
func (w *World) Eventually(what string, within time.Duration, ok func() bool) {
	w.t.Helper()
	if !w.until(within, ok) {
		w.describe()
		require.FailNow(w.t, "never happened: "+what)
	}
}

func (w *World) until(within time.Duration, ok func() bool) bool {
	// A look costs much more than the time that it is about: the later, the rarer.
	began := time.Now()
	for end := began.Add(within); ; w.Sleep(max(500*time.Millisecond, min(time.Since(began)/10, time.Until(end)))) {
		synctest.Wait()
		if ok() {
			return true
		}
		if !time.Now().Before(end) {
			return false
		}
	}
}

// Partition splits the network: peers in different groups can't reach each other,
// and peers in no group form one more. It replaces an earlier partition.
func (w *World) Partition(groups ...[]*Peer) {
	side, number := make(map[transport.PeerID]int), make(map[int]int)
	for i, g := range groups {
		for _, p := range g {
			side[p.id], number[p.index] = i+1, i+1
		}
	}
	w.counts.add(Split, w.connections(func(a, b transport.PeerID) bool { return side[a] != side[b] }))
	w.net.partition(len(w.peers), number)
}

// Heal ends a partition.
func (w *World) Heal() { w.net.partition(len(w.peers), make(map[int]int)) }

// OneWay keeps one peer from dialling another, or no longer. A connection that
// stands is broken.
func (w *World) OneWay(from, to *Peer, blocked bool) {
	w.net.setOneWay(from.id, to.id, blocked)
	if blocked && from.host != nil {
		from.host.Disconnect(to.id)
	}
}

// Flap breaks and mends the link between two peers n times, each state lasting
// half the period.
func (w *World) Flap(a, b *Peer, period time.Duration, n int) {
	k := couple(a.index, b.index)
	for range n {
		w.counts.add(Flap, w.connections(func(x, y transport.PeerID) bool { return x == a.id && y == b.id || x == b.id && y == a.id }))
		w.net.broken[k] = true
		w.net.apply(k[0], k[1])
		w.Sleep(period / 2)
		delete(w.net.broken, k)
		w.net.apply(k[0], k[1])
		w.Sleep(period / 2)
	}
}

// SetLink makes the link between two peers a flawed one, until Mend.
func (w *World) SetLink(a, b *Peer, l memory.Link) { w.net.flaw(a.index, b.index, l) }

// Mend makes the link between two peers what [Options.Link] says.
func (w *World) Mend(a, b *Peer) { w.net.mend(a.index, b.index) }

// connections counts the connected pairs that satisfy f.
func (w *World) connections(f func(a, b transport.PeerID) bool) int {
	n := 0
	for _, p := range w.peers {
		if p.node == nil {
			continue
		}
		others, err := p.node.Peers()
		if err != nil {
			continue
		}
		for _, o := range others {
			if f(p.id, o.ID) {
				n++
			}
		}
	}
	return (n + 1) / 2 // both ends list it
}
