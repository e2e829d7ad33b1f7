package libp2p

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	golibp2p "github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/autorelay"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	madns "github.com/multiformats/go-multiaddr-dns"
)

// userAgent is what the node calls itself before others know it; the version
// stays out of it.
const userAgent = "cansync"

// newHost builds a host that does not listen yet. When it fails, nothing of it
// is left.
func newHost(s *settings, relays autorelay.PeerSource, reserved *reservations) (h host.Host, err error) {
	var undo []func() error
	defer func() {
		if err == nil {
			return
		}
		for _, f := range undo {
			err = errors.Join(err, f())
		}
	}()
	key, err := crypto.UnmarshalEd25519PrivateKey(s.PrivateKey)
	if err != nil {
		return nil, configErr("private key: %w", err)
	}
	// The host closes these three, but not when its construction fails.
	resources, err := s.Limits.resourceManager(s.Metrics != nil)
	if err != nil {
		return nil, fmt.Errorf("libp2p: resource manager: %w", err)
	}
	undo = append(undo, resources.Close)
	conns, err := connmgr.NewConnManager(s.Limits.LowWater, s.Limits.HighWater, connmgr.WithGracePeriod(time.Minute))
	if err != nil {
		return nil, fmt.Errorf("libp2p: connection manager: %w", err)
	}
	undo = append(undo, conns.Close)
	peers, err := pstoremem.NewPeerstore()
	if err != nil {
		return nil, fmt.Errorf("libp2p: peerstore: %w", err)
	}
	undo = append(undo, peers.Close)

	opts := []golibp2p.Option{
		golibp2p.Identity(key),
		golibp2p.UserAgent(userAgent),
		golibp2p.Peerstore(peers),
		golibp2p.ResourceManager(resources),
		golibp2p.ConnectionManager(conns),
		golibp2p.ConnectionGater(gater{s.Network}),
		golibp2p.Transport(tcp.NewTCPTransport),
		golibp2p.Transport(libp2pquic.NewTransport),
		golibp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		golibp2p.MultiaddrResolver(resolver{s.dnsNames, swarm.ResolverFromMaDNS{Resolver: madns.DefaultResolver}}),
		golibp2p.SwarmOpts(swarm.WithDialRanker(rankDials)),
	}
	if len(s.onlySecurity) > 0 {
		opts = append(opts, s.onlySecurity...)
	} else {
		opts = append(opts, golibp2p.Security(libp2ptls.ID, libp2ptls.New), golibp2p.Security(noise.ID, noise.New))
	}
	opts = append(opts, s.reachOptions(relays, reserved)...)
	if s.Metrics == nil {
		opts = append(opts, golibp2p.DisableMetrics())
	} else {
		opts = append(opts, golibp2p.PrometheusRegisterer(s.Metrics))
	}
	return golibp2p.New(append(opts, s.HostOptions...)...)
}

// reachOptions are the options that depend on the network.
func (s *settings) reachOptions(relays autorelay.PeerSource, reserved *reservations) []golibp2p.Option {
	if s.Network == LAN {
		return []golibp2p.Option{
			golibp2p.DisableRelay(),
			// With the answer given, AutoNAT asks nobody.
			golibp2p.ForceReachabilityPrivate(),
			golibp2p.AddrsFactory(func(addrs []ma.Multiaddr) []ma.Multiaddr {
				return ma.FilterAddrs(addrs, isLocalAddr)
			}),
		}
	}
	opts := []golibp2p.Option{
		golibp2p.EnableRelay(),
		golibp2p.EnableHolePunching(),
		golibp2p.EnableAutoNATv2(),
	}
	if s.Reachability != ReachabilityPrivate {
		// A node that cannot be dialled would not use its AutoNAT service, and
		// go-libp2p v0.51 would not close it.
		opts = append(opts, golibp2p.EnableNATService())
	}
	switch s.Reachability {
	case ReachabilityPublic:
		opts = append(opts, golibp2p.ForceReachabilityPublic())
	case ReachabilityPrivate:
		opts = append(opts, golibp2p.ForceReachabilityPrivate())
	}
	if s.ServeRelay != nil {
		opts = append(opts, golibp2p.EnableRelayService(s.relayOptions()...))
	}
	switch {
	case len(s.relay) > 0:
		opts = append(opts, golibp2p.AddrsFactory(reserved.announce))
	case s.Network == Public:
		opts = append(opts, golibp2p.EnableAutoRelayWithPeerSource(relays, autorelay.WithMinInterval(30*time.Second)))
	}
	if s.Network == Public && reachesOut(s.listen) {
		opts = append(opts, golibp2p.NATPortMap())
	}
	return opts
}

// relayCandidates offers peers of the DHT as relays.
func (t *Transport) relayCandidates(ctx context.Context, num int) <-chan peer.AddrInfo {
	out := make(chan peer.AddrInfo, max(num, 0))
	defer close(out)
	d := t.dht.Load()
	if d == nil {
		return out
	}
	peers := d.RoutingTable().ListPeers()
	rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
	for _, p := range peers {
		if len(out) >= num || ctx.Err() != nil {
			break
		}
		if _, err := fromHostID(p); err != nil {
			continue
		}
		if t.host.Network().Connectedness(p) == network.Limited {
			continue
		}
		if addrs := t.host.Peerstore().Addrs(p); len(addrs) > 0 {
			out <- peer.AddrInfo{ID: p, Addrs: addrs}
		}
	}
	return out
}
