package simlibp2ptest

import (
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	golibp2p "github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/marcopolo/simnet"
	"github.com/quic-go/quic-go"
	"go.uber.org/fx"

	"github.com/cansync/cansync/simulate"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/libp2p"
	"github.com/cansync/cansync/transport/memory"
)

// packets is a network of libp2p hosts that speak QUIC over simulated packets.
// Links lose, delay, reorder and double packets; their bandwidth is that of each
// host, 20 Mbit/s.
type packets struct {
	sim *simnet.Simnet

	mu    sync.Mutex
	rng   *rand.Rand
	links map[[2]int]memory.Link
	ways  map[[2]int]*way
	conns map[int]*endpoint // the newest of each peer
}

// way counts what one peer sent to another.
type way struct {
	memory.Traffic
	last time.Time // when the latest of what was sent arrives
}

var _ simulate.Network = (*packets)(nil)

func newPackets(seed uint64) simulate.Network {
	p := &packets{
		rng: rand.New(rand.NewPCG(seed, 0x7061636b)), links: make(map[[2]int]memory.Link),
		ways: make(map[[2]int]*way), conns: make(map[int]*endpoint),
	}
	// What has no receiver, such as a peer that is down, is dropped with a complaint.
	p.sim = &simnet.Simnet{LatencyFunc: p.latency, Logger: slog.New(slog.DiscardHandler)}
	p.sim.Start()
	return p
}

func numberOf(a net.Addr) int {
	ip := a.(*net.UDPAddr).IP.To4()
	return int(ip[2])<<8 + int(ip[3]) - 1
}

// Transport implements [simulate.Network].
func (p *packets) Transport(peer int, seed [32]byte) (transport.Transport, error) {
	return libp2p.New(libp2p.Config{
		PrivateKey: ed25519.NewKeyFromSeed(seed[:]), Network: libp2p.Private,
		Listen:       []string{fmt.Sprintf("/ip4/%s/udp/8000/quic-v1", simnet.IntToPublicIPv4(peer))},
		Reachability: libp2p.ReachabilityPublic, DisableMDNS: true,
		HostOptions: []golibp2p.Option{p.quic(peer), golibp2p.DisableIdentifyAddressDiscovery()},
	})
}

// quic puts a host onto the network, as x/simlibp2p does, behind an [endpoint].
func (p *packets) quic(peer int) golibp2p.Option {
	ip := simnet.IntToPublicIPv4(peer)
	const mbps = 1_000_000
	link := simnet.NodeBiDiLinkSettings{Downlink: simnet.LinkSettings{BitsPerSecond: 20 * mbps}, Uplink: simnet.LinkSettings{BitsPerSecond: 20 * mbps}}
	return golibp2p.QUICReuse(
		func(l fx.Lifecycle, reset quic.StatelessResetKey, token quic.TokenGeneratorKey, opts ...quicreuse.Option) (*quicreuse.ConnManager, error) {
			cm, err := quicreuse.NewConnManager(reset, token, opts...)
			if err == nil {
				l.Append(fx.StopHook(cm.Close)) // nobody else closes it
			}
			return cm, err
		},
		quicreuse.OverrideSourceIPSelector(func() (quicreuse.SourceIPSelector, error) { return source(ip), nil }),
		quicreuse.OverrideListenUDP(func(_ string, a *net.UDPAddr) (net.PacketConn, error) {
			e := &endpoint{SimConn: p.sim.NewEndpoint(a, link), net: p}
			p.mu.Lock()
			p.conns[peer] = e
			p.mu.Unlock()
			return e, nil
		}))
}

// source is the address that a host sends from.
type source net.IP

// PreferredSourceIPForDestination implements quicreuse.SourceIPSelector.
func (s source) PreferredSourceIPForDestination(*net.UDPAddr) (net.IP, error) { return net.IP(s), nil }

// endpoint is a host's place in the network. One that is dead sends and gets
// nothing, as of a machine without power.
type endpoint struct {
	*simnet.SimConn
	net  *packets
	dead atomic.Bool
}

// WriteTo implements net.PacketConn.
func (e *endpoint) WriteTo(b []byte, to net.Addr) (int, error) {
	copies := e.net.send(numberOf(e.UnicastAddr()), numberOf(to), len(b))
	if e.dead.Load() {
		copies = 0
	}
	for range copies {
		if n, err := e.SimConn.WriteTo(b, to); err != nil {
			return n, err
		}
	}
	return len(b), nil
}

// ReadFrom implements net.PacketConn.
func (e *endpoint) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, a, err := e.SimConn.ReadFrom(b)
		if err != nil || !e.dead.Load() {
			return n, a, err
		}
	}
}

func (p *packets) way(from, to int) *way {
	k := [2]int{from, to}
	if p.ways[k] == nil {
		p.ways[k] = new(way)
	}
	return p.ways[k]
}

func (p *packets) link(a, b int) memory.Link { return p.links[[2]int{min(a, b), max(a, b)}] }

// send draws how often a packet is delivered.
func (p *packets) send(from, to, size int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, w := p.link(from, to), p.way(from, to)
	w.Writes++
	w.Bytes += uint64(size)
	switch {
	case l.Down:
		return 0
	case l.Loss > 0 && p.rng.Float64() < l.Loss:
		w.Lost++
		return 0
	case l.Duplicate > 0 && p.rng.Float64() < l.Duplicate:
		w.Doubled++
		return 2
	}
	return 1
}

// latency draws how long a packet is on its way.
func (p *packets) latency(k *simnet.Packet) time.Duration {
	from, to := numberOf(k.From), numberOf(k.To)
	p.mu.Lock()
	defer p.mu.Unlock()
	l, w := p.link(from, to), p.way(from, to)
	d := max(l.Latency, time.Millisecond)
	if l.Jitter > 0 {
		d += time.Duration(p.rng.Int64N(int64(l.Jitter)))
	}
	if at := time.Now().Add(d); at.Before(w.last) {
		w.Overtaken++
	} else {
		w.last = at
	}
	return d
}

// SetLink implements [simulate.Network].
func (p *packets) SetLink(a, b int, l memory.Link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links[[2]int{min(a, b), max(a, b)}] = l
}

// Traffic implements [simulate.Network].
func (p *packets) Traffic(from, to int) memory.Traffic {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.way(from, to).Traffic
}

// Crash implements [simulate.Network].
func (p *packets) Crash(peer int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.conns[peer]; e != nil {
		e.dead.Store(true)
	}
}

// Close implements [simulate.Network].
func (p *packets) Close() error {
	p.sim.Close()
	return nil
}
