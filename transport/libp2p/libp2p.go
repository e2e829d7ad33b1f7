// Package libp2p connects nodes over the internet and the local network with
// go-libp2p: QUIC and TCP, TLS 1.3 and Noise, a Kademlia DHT, mDNS, circuit
// relays and hole punching.
//
// [New] takes a [Config] of which only the private key is required. One setting,
// [Network], decides how far the node reaches. The Transport implements
// [transport.Transport] and [transport.Discovery].
//
// Nothing here is shared between two Transports of a process. The loggers of
// go-libp2p and its DHT are global; the transport does not touch them.
package libp2p

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cansync/cansync/transport"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	ma "github.com/multiformats/go-multiaddr"
)

// Transport is a libp2p node. Its methods are safe for concurrent use.
type Transport struct {
	cfg   *settings
	self  transport.PeerID
	gater gater
	host  host.Host
	ids   identify.IDService
	dht   atomic.Pointer[dht.IpfsDHT] // nil in a LAN; set once by New
	mdns  *mdnsService                // nil when off
	watch *watcher

	reserved reservations

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	done   chan struct{} // closed when Close has finished

	mu       sync.Mutex
	isClosed bool
	closeErr error // set before done is closed
	streams  map[*stream]struct{}
	handlers map[protocol.ID]struct{}
	wg       sync.WaitGroup // handlers, calls and goroutines; Add only by begin
}

var (
	_ transport.Transport = (*Transport)(nil)
	_ transport.Discovery = (*Transport)(nil)
)

// New starts a node. It returns once the node listens; peers are met in the
// background. If it fails, nothing is left running; errors that the
// configuration causes match [ErrConfig].
func New(cfg Config) (_ *Transport, err error) {
	s, err := cfg.settings()
	if err != nil {
		return nil, err
	}
	t := &Transport{
		cfg: s, self: publicID(s.PrivateKey), gater: gater{s.Network},
		done: make(chan struct{}), streams: make(map[*stream]struct{}), handlers: make(map[protocol.ID]struct{}),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.reserved.held = make(map[peer.ID][]ma.Multiaddr)
	if t.host, err = newHost(s, t.relayCandidates, &t.reserved); err != nil {
		t.cancel()
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
		}
	}()
	withID, ok := t.host.(interface{ IDService() identify.IDService })
	if !ok {
		return nil, fmt.Errorf("libp2p: host %T has no identify service", t.host)
	}
	t.ids = withID.IDService()
	if t.watch, err = newWatcher(t); err != nil {
		return nil, err
	}
	if err = s.openListeners(t.host); err != nil {
		return nil, err
	}
	if s.Network != LAN {
		d, err := newDHT(t.host, s)
		if err != nil {
			return nil, err
		}
		t.dht.Store(d)
	}
	if !s.DisableMDNS {
		t.mdns = newMDNS(t) // before the goroutines that look at it
	}
	t.spawn(t.watch.run)
	t.spawn(t.measure)
	if len(s.bootstrap)+len(s.relay) > 0 {
		t.spawn(t.keepBootstrapped)
	}
	if len(s.relay) > 0 && s.Reachability != ReachabilityPublic {
		t.spawn(t.keepReservations)
	}
	if t.mdns != nil {
		t.spawn(t.mdns.run)
	}
	s.Logger.Info("transport listens", "peer", t.self.Short(), "network", string(s.Network), "addrs", t.Addrs())
	return t, nil
}

// begin counts a call, a handler or a goroutine in; wg.Done counts it out. It
// fails after Close.
func (t *Transport) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.isClosed {
		return false
	}
	t.wg.Add(1)
	return true
}

// spawn runs f in a goroutine that Close waits for.
func (t *Transport) spawn(f func()) bool {
	if !t.begin() {
		return false
	}
	go func() {
		defer t.wg.Done()
		f()
	}()
	return true
}

func (t *Transport) closed() bool { return t.ctx.Err() != nil }

// join ends ctx with the transport, too.
func (t *Transport) join(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(t.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

func (t *Transport) remember(s *stream) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.isClosed {
		return false
	}
	t.streams[s] = struct{}{}
	return true
}

func (t *Transport) forget(s *stream) {
	t.mu.Lock()
	delete(t.streams, s)
	t.mu.Unlock()
}

// Close implements [transport.Transport]. It must not be called by a handler,
// for which it waits.
func (t *Transport) Close() error {
	t.mu.Lock()
	if t.isClosed {
		t.mu.Unlock()
		<-t.done
		return t.closeErr
	}
	t.isClosed = true
	streams, handlers := t.streams, t.handlers
	t.streams, t.handlers = nil, nil
	t.mu.Unlock()

	t.cancel()
	for p := range handlers {
		t.host.RemoveStreamHandler(p)
	}
	// A reset may wait for a peer until its connection is closed below.
	resets := make(chan struct{})
	go func() {
		defer close(resets)
		for s := range streams {
			_ = s.Reset()
		}
	}()
	var errs []error
	if d := t.dht.Load(); d != nil {
		errs = append(errs, d.Close())
	}
	errs = append(errs, t.host.Close())
	<-resets
	if t.watch != nil {
		t.watch.close()
	}
	t.wg.Wait()
	t.closeErr = errors.Join(errs...)
	close(t.done)
	return t.closeErr
}

// ID implements [transport.Transport].
func (t *Transport) ID() transport.PeerID { return t.self }

// Addrs implements [transport.Transport]: multiaddrs without the /p2p part, those
// behind a relay and those mapped by a router included.
func (t *Transport) Addrs() []string {
	if t.closed() {
		return nil
	}
	return formatAddrs(t.addrs())
}

func (t *Transport) addrs() []ma.Multiaddr {
	addrs := t.host.Addrs()
	// Right after the start, the host does not know all of its own addresses yet.
	if own, err := t.host.Network().InterfaceListenAddresses(); err == nil {
		// A listener behind relays has no address of its own among them.
		addrs = append(addrs, ma.FilterAddrs(own, func(a ma.Multiaddr) bool { return addrIP(a) != nil })...)
	}
	addrs = ma.FilterAddrs(addrs, t.gater.dialable)
	return ma.Unique(addrs)
}

// FullAddrs are [Transport.Addrs] with the /p2p/<id> of the node, as Bootstrap
// and Relay of a Config want them.
func (t *Transport) FullAddrs() []string {
	addrs := t.Addrs()
	for i := range addrs {
		addrs[i] += "/p2p/" + t.self.String()
	}
	return addrs
}

// Handle implements [transport.Transport].
func (t *Transport) Handle(proto string, fn func(transport.Stream)) {
	id := protocol.ID(proto)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.isClosed {
		return
	}
	if fn == nil {
		delete(t.handlers, id)
		t.host.RemoveStreamHandler(id)
		return
	}
	t.handlers[id] = struct{}{}
	t.host.SetStreamHandler(id, func(in network.Stream) { t.serve(in, fn) })
}

func (t *Transport) serve(in network.Stream, fn func(transport.Stream)) {
	name, err := fromHostID(in.Conn().RemotePeer())
	if err != nil || !t.begin() {
		_ = in.Reset()
		return
	}
	defer t.wg.Done()
	s := &stream{t: t, in: in, rw: in, peer: name, relayed: isRelayed(in.Conn().RemoteMultiaddr())}
	if !t.remember(s) {
		_ = in.Reset()
		return
	}
	fn(s)
}

// Peers implements [transport.Transport]. In the public network only peers that
// say they are cansync nodes are listed, not the strangers of the DHT. The
// latency is a moving average, measured about once a minute.
func (t *Transport) Peers() []transport.Peer {
	if t.closed() {
		return nil
	}
	var out []transport.Peer
	for _, p := range t.host.Network().Peers() {
		if !t.ours(p) {
			continue
		}
		id, _ := fromHostID(p) // ours checked it
		relayed, conns := true, 0
		for _, c := range t.host.Network().ConnsToPeer(p) {
			if c.IsClosed() {
				continue
			}
			conns++
			relayed = relayed && isRelayed(c.RemoteMultiaddr())
		}
		if conns == 0 {
			continue
		}
		out = append(out, transport.Peer{
			PeerInfo: transport.PeerInfo{ID: id, Addrs: t.knownAddrs(p)},
			Relayed:  relayed,
			Latency:  t.host.Peerstore().LatencyEWMA(p),
		})
	}
	return out
}

// knownAddrs are the addresses at which the peer may be dialled again, or else
// those of its connections.
func (t *Transport) knownAddrs(p peer.ID) []string {
	addrs := ma.FilterAddrs(t.host.Peerstore().Addrs(p), t.gater.dialable)
	if len(addrs) == 0 {
		for _, c := range t.host.Network().ConnsToPeer(p) {
			addrs = append(addrs, c.RemoteMultiaddr())
		}
	}
	return formatAddrs(addrs)
}

// ours reports whether a peer is worth telling of.
func (t *Transport) ours(p peer.ID) bool {
	if _, err := fromHostID(p); err != nil {
		return false
	}
	if t.cfg.Network != Public {
		return true
	}
	agent, err := t.host.Peerstore().Get(p, "AgentVersion")
	name, ok := agent.(string)
	return err == nil && ok && (name == userAgent || strings.HasPrefix(name, userAgent+"/"))
}

// Disconnect implements [transport.Transport]. The DHT may dial the peer again if
// it is one of its servers.
func (t *Transport) Disconnect(p transport.PeerID) {
	if !t.begin() {
		return
	}
	defer t.wg.Done()
	if id, err := toHostID(p); err == nil {
		if err := t.host.Network().ClosePeer(id); err != nil {
			t.cfg.Logger.Debug("closing a peer's connections", "peer", p.Short(), "error", err)
		}
	}
}

// Events implements [transport.Transport].
func (t *Transport) Events() (<-chan transport.Event, func()) { return t.watch.subscribe() }
