package libp2p

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cansync/cansync/transport"
	"github.com/ipfs/go-cid"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/multiformats/go-multihash"
)

const (
	// privatePrefix keeps the DHT of private networks apart from the public one.
	privatePrefix = "/cansync"
	// findPeers bounds the peers that one Find yields.
	findPeers = 64
	// routeWait is how long a call waits for a first peer of the DHT.
	routeWait = 15 * time.Second
	routePoll = 100 * time.Millisecond

	bootstrapDial  = 10 * time.Second
	bootstrapFirst = 2 * time.Second
	bootstrapLast  = 2 * time.Minute
)

// newDHT joins the DHT of the network: the public one as a client unless the
// node turns out to be reachable, a private one as a server unless it turns out
// not to be.
func newDHT(h host.Host, s *settings) (*dht.IpfsDHT, error) {
	opts := []dht.Option{dht.BootstrapPeers(s.bootstrap...)}
	if s.Network == Public {
		opts = append(opts,
			dht.Mode(dht.ModeAuto),
			dht.QueryFilter(dht.PublicQueryFilter),
			dht.RoutingTableFilter(dht.PublicRoutingTableFilter),
			// Addresses behind the NAT are nobody's business out there.
			dht.AddressFilter(func(addrs []ma.Multiaddr) []ma.Multiaddr {
				return ma.FilterAddrs(addrs, manet.IsPublicAddr)
			}),
		)
	} else {
		opts = append(opts,
			dht.ProtocolPrefix(privatePrefix),
			dht.Mode(dht.ModeAutoServer),
			// It holds provider records and nothing else.
			dht.DisableValues(),
		)
	}
	d, err := dht.New(h, opts...)
	if err != nil {
		return nil, fmt.Errorf("libp2p: DHT: %w", err)
	}
	return d, nil
}

// keepBootstrapped keeps a connection to the bootstrap peers and relays: at once,
// then with growing pauses while none of them answers.
func (t *Transport) keepBootstrapped() {
	peers := append([]peer.AddrInfo(nil), t.cfg.bootstrap...)
	peers = append(peers, t.cfg.relay...)
	for _, p := range peers {
		t.host.Peerstore().AddAddrs(p.ID, p.Addrs, peerstore.PermanentAddrTTL)
		t.host.ConnManager().Protect(p.ID, "cansync-bootstrap")
	}
	pause := bootstrapFirst
	for {
		if t.dialAll(peers) {
			pause = bootstrapLast
			if d := t.dht.Load(); d != nil && d.RoutingTable().Size() == 0 {
				d.RefreshRoutingTable()
				pause = bootstrapFirst
			}
		}
		// Full jitter keeps nodes that lost the same peer from coming back at once.
		timer := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-t.ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		pause = min(2*pause, bootstrapLast)
	}
}

// dialAll reports whether every peer is connected afterwards in a private
// network, where they are few and each counts, and any of them in the public one.
func (t *Transport) dialAll(peers []peer.AddrInfo) bool {
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	for _, p := range peers {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(t.ctx, bootstrapDial)
			defer cancel()
			if err := t.host.Connect(ctx, peer.AddrInfo{ID: p.ID}); err != nil && !t.closed() {
				t.cfg.Logger.Debug("bootstrap peer not reached", "peer", p.ID.String(), "error", err)
			}
		})
	}
	wg.Wait()
	up := 0
	for _, p := range peers {
		if t.host.Network().Connectedness(p.ID) == network.Connected {
			up++
		}
	}
	return up == len(peers) || (t.cfg.Network == Public && up > 0)
}

// rendezvous makes the DHT's key of ours. The key looks like a hash, since it is
// one: nothing in it says what is met there.
func rendezvous(key [32]byte) (cid.Cid, error) {
	mh, err := multihash.Encode(key[:], multihash.SHA2_256)
	if err != nil {
		return cid.Undef, fmt.Errorf("libp2p: key: %w", err)
	}
	return cid.NewCidV1(cid.Raw, mh), nil
}

// waitRoutes waits until the DHT knows somebody to ask.
func (t *Transport) waitRoutes(ctx context.Context, d *dht.IpfsDHT) error {
	if d.RoutingTable().Size() > 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, routeWait)
	defer cancel()
	tick := time.NewTicker(routePoll)
	defer tick.Stop()
	for d.RoutingTable().Size() == 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: the DHT knows no peer yet: %w", transport.ErrUnreachable, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

// Advertise implements [transport.Discovery] with a provider record. Such a
// record lives as long as the DHT says (48 hours in the public one) whatever the
// ttl, and is not renewed: the caller advertises again. In a LAN it does nothing.
func (t *Transport) Advertise(ctx context.Context, key [32]byte, ttl time.Duration) error {
	if !t.begin() {
		return transport.ErrClosed
	}
	defer t.wg.Done()
	d := t.dht.Load()
	if d == nil || ttl <= 0 {
		return nil
	}
	c, err := rendezvous(key)
	if err != nil {
		return err
	}
	ctx, cancel := t.join(ctx)
	defer cancel()
	if err = t.waitRoutes(ctx, d); err == nil {
		err = d.Provide(ctx, c, true)
	}
	switch {
	case err == nil:
		return nil
	case t.closed():
		return transport.ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		return fmt.Errorf("libp2p: advertise: %w", err)
	}
}

// Find implements [transport.Discovery]. It yields at most 64 peers, the node
// itself never. In a LAN it yields nothing: peers are met by mDNS there.
func (t *Transport) Find(ctx context.Context, key [32]byte) iter.Seq2[transport.PeerInfo, error] {
	return func(yield func(transport.PeerInfo, error) bool) {
		if !t.begin() {
			yield(transport.PeerInfo{}, transport.ErrClosed)
			return
		}
		err := t.find(ctx, key, func(p transport.PeerInfo) bool { return yield(p, nil) })
		t.wg.Done()
		if err != nil {
			yield(transport.PeerInfo{}, err)
		}
	}
}

func (t *Transport) find(ctx context.Context, key [32]byte, yield func(transport.PeerInfo) bool) error {
	d := t.dht.Load()
	if d == nil {
		return nil
	}
	c, err := rendezvous(key)
	if err != nil {
		return err
	}
	ctx, cancel := t.join(ctx)
	defer cancel()
	if err := t.waitRoutes(ctx, d); err != nil {
		if t.closed() {
			return transport.ErrClosed
		}
		return err
	}
	// Records of the node itself, and of peers that cannot be cansync's, count
	// against the DHT's bound, not against ours.
	found := 0
	for p := range d.FindProvidersAsync(ctx, c, 2*findPeers) {
		id, err := fromHostID(p.ID)
		if err != nil || p.ID == t.host.ID() {
			continue
		}
		info := transport.PeerInfo{ID: id, Addrs: formatAddrs(ma.FilterAddrs(p.Addrs, t.gater.dialable))}
		if found++; !yield(info) || found == findPeers {
			return nil
		}
	}
	if t.closed() {
		return transport.ErrClosed
	}
	return ctx.Err()
}
