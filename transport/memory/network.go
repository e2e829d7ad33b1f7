// Package memory is a network inside one process: hosts that open streams to one
// another over links whose latency, bandwidth, losses and absence the test sets.
// It uses channels and timers only, so whole networks run in virtual time
// (testing/synctest).
//
// A network and its hosts must be made and used in the same synctest bubble.
package memory

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/cansync/cansync/transport"
)

// Options of a network. The zero value is an ideal one: no latency, no limit, no
// loss, peers known by their addresses only.
type Options struct {
	// Seed feeds the network's randomness (losses).
	Seed uint64
	// Directory lets every host know every other's address. Without, a host must
	// have been told (by [transport.PeerInfo], or by having been connected).
	Directory bool
	// LAN makes hosts meet: each gets a Found event for every host that it can
	// reach, when it or the other comes up, or subscribes, or when a path returns.
	LAN bool
	// Buffer is how many bytes each direction of a stream holds that were written
	// and not yet read, on the way included; 0 means 256 KiB.
	Buffer int
	// Link is what connects two hosts unless SetLink says otherwise.
	Link Link
}

// Link says how two hosts are connected. The zero value is a perfect link.
type Link struct {
	// Latency is the time from one side to the other. Dialling and opening a
	// stream take a round trip each.
	Latency time.Duration
	// Bandwidth limits each direction, in bytes per second; 0 means no limit. All
	// streams of the two hosts share it.
	Bandwidth int64
	// Jitter delays each Write by up to that much more, drawn for each, so that
	// what is sent on one stream overtakes what was sent on another. A stream keeps
	// its order.
	Jitter time.Duration
	// Loss is the probability, 0 to 1, that a Write resets its stream.
	Loss float64
	// Duplicate is the probability, 0 to 1, that a Write resets its stream although
	// the peer still reads what was written: who sends again what failed sends it
	// twice.
	Duplicate float64
	// Down says that there is no path; connections break.
	Down bool
	// Relayed says that the path leads over a relay.
	Relayed bool
}

// Traffic counts what one host sent to another.
type Traffic struct {
	Dials   uint64 // connections made
	Streams uint64 // streams opened
	Writes  uint64 // calls of Write that sent something
	Bytes   uint64 // bytes written

	Lost      uint64 // calls of Write that were lost
	Doubled   uint64 // calls of Write that failed and arrived all the same
	Overtaken uint64 // pieces that arrived before one that was sent earlier
}

// Network connects hosts. All methods are safe for concurrent use; each takes
// effect before it returns.
type Network struct {
	opts Options

	mu     sync.Mutex
	rng    *rand.Rand
	hosts  map[transport.PeerID]*Host
	number map[transport.PeerID]int // for addresses; outlives the host
	byAddr map[string]transport.PeerID
	next   int
	links  map[pair]Link
	group  map[transport.PeerID]int // empty: no partition
	ways   map[way]*direction
	advs   map[[32]byte]map[transport.PeerID]time.Time // when an advertisement ends
}

// pair is two peers in ascending order; way is the direction from one to another.
type (
	pair struct{ a, b transport.PeerID }
	way  struct{ from, to transport.PeerID }
)

func pairOf(a, b transport.PeerID) pair {
	if slices.Compare(a[:], b[:]) > 0 {
		a, b = b, a
	}
	return pair{a, b}
}

// NewNetwork returns a network without hosts.
func NewNetwork(opts Options) *Network {
	if opts.Buffer <= 0 {
		opts.Buffer = 256 << 10
	}
	return &Network{
		opts:   opts,
		rng:    rand.New(rand.NewPCG(opts.Seed, 0x63616e73796e63)),
		hosts:  make(map[transport.PeerID]*Host),
		number: make(map[transport.PeerID]int),
		byAddr: make(map[string]transport.PeerID),
		links:  make(map[pair]Link),
		group:  make(map[transport.PeerID]int),
		ways:   make(map[way]*direction),
		advs:   make(map[[32]byte]map[transport.PeerID]time.Time),
	}
}

// Host returns a new host of the given identity. One that is still up is crashed
// first, as when a machine starts again; it keeps its address.
func (n *Network) Host(id transport.PeerID) *Host {
	n.Crash(id)
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.number[id]; !ok {
		n.move(id)
	}
	h := newHost(n, id)
	n.hosts[id] = h
	if n.opts.LAN {
		n.announce(func(a, b *Host) bool { return a == h || b == h })
	}
	return h
}

// move gives a peer an address that nobody had. Callers hold n.mu.
func (n *Network) move(id transport.PeerID) {
	delete(n.byAddr, addr(n.number[id]))
	n.next++
	n.number[id] = n.next
	n.byAddr[addr(n.next)] = id
}

func addr(n int) string { return fmt.Sprintf("/memory/%d", n) }

// addrs returns the addresses of a peer. Callers hold n.mu.
func (n *Network) addrs(id transport.PeerID) []string {
	if k, ok := n.number[id]; ok {
		return []string{addr(k)}
	}
	return nil
}

// Move gives the peer another address. Its connections break, and it gets an
// Addresses event.
func (n *Network) Move(id transport.PeerID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.number[id]; !ok {
		return
	}
	n.move(id)
	n.drop(func(c *conn) bool { return c.a.id == id || c.b.id == id })
	if h := n.hosts[id]; h != nil {
		h.emit(transport.Event{Kind: transport.Addresses})
	}
}

// Partition splits the network: peers in different groups cannot reach each
// other, and their connections break. Peers in no group form one more. It
// replaces an earlier partition.
func (n *Network) Partition(groups ...[]transport.PeerID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := n.reachable()
	n.group = make(map[transport.PeerID]int)
	for i, g := range groups {
		for _, id := range g {
			n.group[id] = i + 1
		}
	}
	n.changed(before)
}

// Heal ends the partition. Links stay as they are.
func (n *Network) Heal() { n.Partition() }

// SetLink sets the link between two peers, in both directions. Streams that are
// open feel the new latency, bandwidth and loss; Relayed holds for new ones.
func (n *Network) SetLink(a, b transport.PeerID, l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := n.reachable()
	n.links[pairOf(a, b)] = l
	n.way(a, b).link.Store(&l)
	n.way(b, a).link.Store(&l)
	n.changed(before)
}

// Link returns the link between two peers.
func (n *Network) Link(a, b transport.PeerID) Link {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.link(a, b)
}

func (n *Network) link(a, b transport.PeerID) Link {
	if l, ok := n.links[pairOf(a, b)]; ok {
		return l
	}
	return n.opts.Link
}

// Disconnect breaks the connections between two peers.
func (n *Network) Disconnect(a, b transport.PeerID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drop(func(c *conn) bool { return pairOf(c.a.id, c.b.id) == pairOf(a, b) })
}

// Crash takes a host off the network without a word: its streams are reset, and
// its calls fail with [transport.ErrClosed]. It does not wait for the host's
// handlers; Close of the host does.
func (n *Network) Crash(id transport.PeerID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.hosts[id]; h != nil {
		h.down()
	}
}

// Traffic returns what from sent to to, since the start of the network.
func (n *Network) Traffic(from, to transport.PeerID) Traffic {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.way(from, to).traffic()
}

// Total returns what all hosts sent together.
func (n *Network) Total() Traffic {
	n.mu.Lock()
	defer n.mu.Unlock()
	var sum Traffic
	for _, w := range n.ways {
		t := w.traffic()
		sum.Dials += t.Dials
		sum.Streams += t.Streams
		sum.Writes += t.Writes
		sum.Bytes += t.Bytes
		sum.Lost += t.Lost
		sum.Doubled += t.Doubled
		sum.Overtaken += t.Overtaken
	}
	return sum
}

// way returns the direction from one peer to another. Callers hold n.mu.
func (n *Network) way(from, to transport.PeerID) *direction {
	k := way{from, to}
	d := n.ways[k]
	if d == nil {
		d = &direction{n: n}
		l := n.link(from, to)
		d.link.Store(&l)
		n.ways[k] = d
	}
	return d
}

// path says whether two hosts can reach each other. Callers hold n.mu.
func (n *Network) path(a, b transport.PeerID) bool {
	return n.hosts[a] != nil && n.hosts[b] != nil && n.group[a] == n.group[b] && !n.link(a, b).Down
}

// reachable returns the pairs of hosts between which there is a path, where
// somebody must be told of changes. Callers hold n.mu.
func (n *Network) reachable() map[pair]bool {
	if !n.opts.LAN {
		return nil
	}
	m := make(map[pair]bool)
	for a := range n.hosts {
		for b := range n.hosts {
			if a != b && n.path(a, b) {
				m[pairOf(a, b)] = true
			}
		}
	}
	return m
}

// changed breaks the connections that have no path any more, and makes hosts
// meet that could not reach each other before. Callers hold n.mu.
func (n *Network) changed(before map[pair]bool) {
	n.drop(func(c *conn) bool { return !n.path(c.a.id, c.b.id) })
	if n.opts.LAN {
		n.announce(func(a, b *Host) bool { return !before[pairOf(a.id, b.id)] })
	}
}

// announce sends Found events between reachable hosts, in a fixed order. Callers
// hold n.mu.
func (n *Network) announce(who func(a, b *Host) bool) {
	all := n.sorted()
	for _, a := range all {
		for _, b := range all {
			if a != b && who(a, b) && n.path(a.id, b.id) {
				a.remember(b.id, n.addrs(b.id))
				a.emit(transport.Event{Kind: transport.Found, Peer: n.info(b.id)})
			}
		}
	}
}

func (n *Network) info(id transport.PeerID) transport.PeerInfo {
	return transport.PeerInfo{ID: id, Addrs: n.addrs(id)}
}

// sorted returns the hosts in the order of their first appearance.
func (n *Network) sorted() []*Host {
	all := make([]*Host, 0, len(n.hosts))
	for _, h := range n.hosts {
		all = append(all, h)
	}
	slices.SortFunc(all, func(a, b *Host) int { return cmp.Compare(n.number[a.id], n.number[b.id]) })
	return all
}

// drop breaks connections. Callers hold n.mu.
func (n *Network) drop(which func(*conn) bool) {
	for _, h := range n.sorted() {
		for _, c := range h.conns {
			if which(c) {
				c.close()
			}
		}
	}
}

// chance draws whether something of the probability p happens.
func (n *Network) chance(p float64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rng.Float64() < p
}

// upTo draws a duration below d.
func (n *Network) upTo(d time.Duration) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Duration(n.rng.Int64N(int64(d)))
}
