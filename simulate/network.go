package simulate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
)

// network is the in-memory network with what it lacks: paths that lead one way,
// and counts of what faults did.
type network struct {
	*memory.Network
	counts *counters

	mu     sync.Mutex
	oneWay map[[2]transport.PeerID]bool // who can't dial whom
	flawed map[[2]transport.PeerID]memory.Link
}

func newNetwork(o memory.Options, c *counters) *network {
	return &network{
		Network: memory.NewNetwork(o), counts: c,
		oneWay: make(map[[2]transport.PeerID]bool), flawed: make(map[[2]transport.PeerID]memory.Link),
	}
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

// flaw sets a link that counts as a fault until mend.
func (n *network) flaw(a, b transport.PeerID, l memory.Link) {
	n.mu.Lock()
	n.flawed[pair(a, b)] = l
	n.mu.Unlock()
	n.SetLink(a, b, l)
}

func (n *network) mend(a, b transport.PeerID, l memory.Link) {
	n.mu.Lock()
	delete(n.flawed, pair(a, b))
	n.mu.Unlock()
	n.SetLink(a, b, l)
}

// wrote counts what a write met on its way.
func (n *network) wrote(a, b transport.PeerID, err error) {
	n.mu.Lock()
	l := n.flawed[pair(a, b)]
	n.mu.Unlock()
	switch {
	case l.Loss > 0 && errors.Is(err, transport.ErrReset):
		n.counts.add(Loss, 1)
	case l.Latency > 0 && err == nil:
		n.counts.add(Slow, 1)
	}
}

func pair(a, b transport.PeerID) [2]transport.PeerID {
	if slices.Compare(a[:], b[:]) > 0 {
		a, b = b, a
	}
	return [2]transport.PeerID{a, b}
}

// host is a place in the network.
type host struct {
	*memory.Host
	net *network
}

var (
	_ transport.Transport = (*host)(nil)
	_ transport.Discovery = (*host)(nil)
)

func (n *network) host(id transport.PeerID) *host { return &host{Host: n.Host(id), net: n} }

// Open implements transport.Transport.
func (h *host) Open(ctx context.Context, p transport.PeerInfo, protocol string, o transport.OpenOptions) (transport.Stream, error) {
	if h.net.blocked(h.ID(), p.ID) && !h.connected(p.ID) {
		h.net.counts.add(OneWay, 1)
		return nil, fmt.Errorf("simulate: no way out: %w", transport.ErrUnreachable)
	}
	s, err := h.Host.Open(ctx, p, protocol, o)
	if err != nil {
		return nil, err
	}
	return &stream{Stream: s, h: h, peer: p.ID}, nil
}

func (h *host) connected(id transport.PeerID) bool {
	return slices.ContainsFunc(h.Peers(), func(p transport.Peer) bool { return p.ID == id })
}

// Handle implements transport.Transport.
func (h *host) Handle(protocol string, fn func(transport.Stream)) {
	if fn == nil {
		h.Host.Handle(protocol, nil)
		return
	}
	h.Host.Handle(protocol, func(s transport.Stream) { fn(&stream{Stream: s, h: h, peer: s.Peer()}) })
}

// stream tells the network what its writes met.
type stream struct {
	transport.Stream
	h    *host
	peer transport.PeerID
}

// Write implements transport.Stream.
func (s *stream) Write(b []byte) (int, error) {
	n, err := s.Stream.Write(b)
	s.h.net.wrote(s.h.ID(), s.peer, err)
	return n, err
}
