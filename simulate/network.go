package simulate

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
)

// Network connects the peers of a world, which it knows by their numbers. The
// goroutine that runs the world's function calls its methods; the nodes call the
// transports that it makes.
type Network interface {
	// Transport makes the transport of a peer's node that starts, with the identity
	// of the seed. The peer's earlier one was closed or crashed by then.
	Transport(peer int, seed [32]byte) (transport.Transport, error)
	// SetLink sets the link between two peers, in both directions, whether they are
	// up or not. Before, it is a perfect one.
	SetLink(a, b int, l memory.Link)
	// Traffic counts what one peer sent to another since the start, where Writes,
	// Lost, Doubled and Overtaken may count packets instead of calls.
	Traffic(from, to int) memory.Traffic
	// Crash takes a peer off the network without a word to the others.
	Crash(peer int)
	// Close ends the network; no transport is open any more.
	Close() error
}

// inMemory is a [Network] within the process.
type inMemory struct {
	net *memory.Network
	ids map[int]transport.PeerID
	set map[[2]int]memory.Link // links of peers that have no id yet
}

func newInMemory(o memory.Options) *inMemory {
	return &inMemory{net: memory.NewNetwork(o), ids: make(map[int]transport.PeerID), set: make(map[[2]int]memory.Link)}
}

// Transport implements [Network].
func (m *inMemory) Transport(peer int, seed [32]byte) (transport.Transport, error) {
	id := capability.DeviceFromSeed(seed).PeerID()
	_, known := m.ids[peer]
	m.ids[peer] = id
	if !known {
		for k, l := range m.set {
			if k[0] == peer || k[1] == peer {
				m.SetLink(k[0], k[1], l)
			}
		}
	}
	return m.net.Host(id), nil
}

// SetLink implements [Network].
func (m *inMemory) SetLink(a, b int, l memory.Link) {
	m.set[couple(a, b)] = l
	x, ok := m.ids[a]
	y, also := m.ids[b]
	if ok && also {
		m.net.SetLink(x, y, l)
	}
}

// Traffic implements [Network].
func (m *inMemory) Traffic(from, to int) memory.Traffic { return m.net.Traffic(m.ids[from], m.ids[to]) }

// Crash implements [Network].
func (m *inMemory) Crash(peer int) { m.net.Crash(m.ids[peer]) }

// Close implements [Network].
func (m *inMemory) Close() error { return nil }

// network is a [Network] with what it lacks: partitions, paths that lead one way,
// and counts of what faults did.
type network struct {
	Network
	counts *counters
	base   memory.Link
	group  map[int]int            // by number; in no group is group 0
	flaws  map[[2]int]memory.Link // of couples
	before map[[2]int]memory.Traffic
	broken map[[2]int]bool // flapping

	mu     sync.Mutex
	oneWay map[[2]transport.PeerID]bool // who can't dial whom
}

func newNetwork(n Network, base memory.Link, c *counters) *network {
	return &network{
		Network: n, counts: c, base: base, group: make(map[int]int),
		flaws: make(map[[2]int]memory.Link), before: make(map[[2]int]memory.Traffic), broken: make(map[[2]int]bool),
		oneWay: make(map[[2]transport.PeerID]bool),
	}
}

// couple is two numbers in ascending order.
func couple(a, b int) [2]int { return [2]int{min(a, b), max(a, b)} }

// link is how two peers are connected now.
func (n *network) link(a, b int) memory.Link {
	l, ok := n.flaws[couple(a, b)]
	if !ok {
		l = n.base
	}
	l.Down = l.Down || n.group[a] != n.group[b] || n.broken[couple(a, b)]
	return l
}

func (n *network) apply(a, b int) { n.SetLink(a, b, n.link(a, b)) }

// partition puts peers into groups; peers is how many there are.
func (n *network) partition(peers int, groups map[int]int) {
	n.group = groups
	for a := range peers {
		for b := range a {
			n.apply(a, b)
		}
	}
}

// flaw sets a link that counts as a fault until mend.
func (n *network) flaw(a, b int, l memory.Link) {
	n.mend(a, b)
	n.flaws[couple(a, b)] = l
	n.before[couple(a, b)] = n.both(a, b)
	n.apply(a, b)
}

func (n *network) mend(a, b int) {
	n.collect(a, b)
	delete(n.flaws, couple(a, b))
	n.apply(a, b)
}

func (n *network) both(a, b int) memory.Traffic {
	t, u := n.Traffic(a, b), n.Traffic(b, a)
	return memory.Traffic{
		Writes: t.Writes + u.Writes, Lost: t.Lost + u.Lost, Doubled: t.Doubled + u.Doubled, Overtaken: t.Overtaken + u.Overtaken,
	}
}

// collect counts what became of the traffic over a flawed link since the last time.
func (n *network) collect(a, b int) {
	l, ok := n.flaws[couple(a, b)]
	if !ok {
		return
	}
	was, now := n.before[couple(a, b)], n.both(a, b)
	n.before[couple(a, b)] = now
	for kind, c := range map[Fault]struct {
		set bool
		n   uint64
	}{
		Slow:      {l.Latency > 0, now.Writes - was.Writes},
		Loss:      {l.Loss > 0, now.Lost - was.Lost},
		Reorder:   {l.Jitter > 0, now.Overtaken - was.Overtaken},
		Duplicate: {l.Duplicate > 0, now.Doubled - was.Doubled},
	} {
		if c.set {
			n.counts.add(kind, int(c.n))
		}
	}
}

func (n *network) collectAll() {
	for k := range n.flaws {
		n.collect(k[0], k[1])
	}
}

// close ends the network and the counting.
func (n *network) close() error {
	n.collectAll()
	return n.Close()
}

func (n *network) setOneWay(from, to transport.PeerID, blocked bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if blocked {
		n.oneWay[[2]transport.PeerID{from, to}] = true
	} else {
		delete(n.oneWay, [2]transport.PeerID{from, to})
	}
}

func (n *network) blocked(from, to transport.PeerID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.oneWay[[2]transport.PeerID{from, to}]
}

// host makes the transport of a peer.
func (n *network) host(peer int, seed [32]byte) (*host, error) {
	t, err := n.Transport(peer, seed)
	if err != nil {
		return nil, err
	}
	return &host{Transport: t, net: n}, nil
}

// host is a transport that can't dial everybody.
type host struct {
	transport.Transport
	net *network
}

// Open implements [transport.Transport].
func (h *host) Open(ctx context.Context, p transport.PeerInfo, protocol string, o transport.OpenOptions) (transport.Stream, error) {
	if h.net.blocked(h.ID(), p.ID) && !h.connected(p.ID) {
		h.net.counts.add(OneWay, 1)
		return nil, fmt.Errorf("simulate: no way out: %w", transport.ErrUnreachable)
	}
	return h.Transport.Open(ctx, p, protocol, o)
}

func (h *host) connected(id transport.PeerID) bool {
	return slices.ContainsFunc(h.Peers(), func(p transport.Peer) bool { return p.ID == id })
}

// finder is a host whose transport finds peers by a key.
type finder struct {
	*host
	transport.Discovery
}

// whole returns the host with all that its transport can do.
func (h *host) whole() transport.Transport {
	if d, ok := h.Transport.(transport.Discovery); ok {
		return finder{h, d}
	}
	return h
}

var (
	_ transport.Transport = (*host)(nil)
	_ transport.Discovery = finder{}
)
