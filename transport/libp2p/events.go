package libp2p

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cansync/cansync/transport"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
)

const (
	busBuffer   = 1024 // events of the host; a full buffer would stop the host
	eventBuffer = 256  // events for one reader; the oldest give way
)

// watcher turns the events of the host into those of the interface.
type watcher struct {
	t        *Transport
	sub      event.Subscription
	reported map[peer.ID]struct{} // Connected was told; only run uses it

	mu      sync.Mutex
	closed  bool
	readers map[chan transport.Event]struct{}
}

func newWatcher(t *Transport) (*watcher, error) {
	sub, err := t.host.EventBus().Subscribe([]any{
		new(event.EvtPeerConnectednessChanged),
		new(event.EvtPeerIdentificationCompleted),
		new(event.EvtLocalAddressesUpdated),
	}, eventbus.BufSize(busBuffer), eventbus.Name("cansync"))
	if err != nil {
		return nil, fmt.Errorf("libp2p: subscribe to events: %w", err)
	}
	return &watcher{
		t: t, sub: sub,
		reported: make(map[peer.ID]struct{}), readers: make(map[chan transport.Event]struct{}),
	}, nil
}

// run ends when close closes the subscription.
func (w *watcher) run() {
	for e := range w.sub.Out() {
		switch e := e.(type) {
		case event.EvtPeerConnectednessChanged:
			if e.Connectedness == network.NotConnected {
				w.gone(e.Peer)
			} else {
				w.met(e.Peer)
			}
		case event.EvtPeerIdentificationCompleted:
			// In the public network a peer is told of when it said what it is.
			if c := w.t.host.Network().Connectedness(e.Peer); c != network.NotConnected {
				w.met(e.Peer)
			}
		case event.EvtLocalAddressesUpdated:
			if w.t.mdns != nil {
				w.t.mdns.refresh()
			}
			w.emit(transport.Event{Kind: transport.Addresses})
		}
	}
}

func (w *watcher) met(p peer.ID) {
	if _, ok := w.reported[p]; ok || !w.t.ours(p) {
		return
	}
	w.reported[p] = struct{}{}
	id, _ := fromHostID(p) // ours checked it
	w.emit(transport.Event{Kind: transport.Connected, Peer: transport.PeerInfo{ID: id, Addrs: w.t.knownAddrs(p)}})
}

func (w *watcher) gone(p peer.ID) {
	if _, ok := w.reported[p]; !ok {
		return
	}
	delete(w.reported, p)
	id, _ := fromHostID(p)
	w.emit(transport.Event{Kind: transport.Disconnected, Peer: transport.PeerInfo{ID: id}})
}

func (w *watcher) emit(e transport.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for r := range w.readers {
		for {
			select {
			case r <- e:
			default:
				select {
				case <-r:
				default:
				}
				continue
			}
			break
		}
	}
}

func (w *watcher) subscribe() (<-chan transport.Event, func()) {
	r := make(chan transport.Event, eventBuffer)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		close(r)
		return r, func() {}
	}
	w.readers[r] = struct{}{}
	return r, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if _, ok := w.readers[r]; ok {
			delete(w.readers, r)
			close(r)
		}
	}
}

func (w *watcher) close() {
	_ = w.sub.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for r := range w.readers {
		close(r)
	}
	clear(w.readers)
}

const (
	pingEvery   = time.Minute
	pingTimeout = 5 * time.Second
	pingPeers   = 64 // peers measured in one round
)

// measure pings the connected peers now and then, one after the other, so that
// Peers has latencies; the ping service records them.
func (t *Transport) measure() {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-t.ctx.Done():
			return
		case <-tick.C:
		}
		n := 0
		for _, p := range t.host.Network().Peers() {
			if n == pingPeers || t.closed() {
				break
			}
			if t.ours(p) {
				n++
				t.ping(p)
			}
		}
	}
}

func (t *Transport) ping(p peer.ID) {
	ctx, cancel := context.WithTimeout(network.WithNoDial(t.ctx, "ping"), pingTimeout)
	results := ping.Ping(ctx, t.host, p)
	<-results
	cancel()
	for range results {
		// The channel closes once the stream is gone.
	}
}
