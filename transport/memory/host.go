package memory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cansync/cansync/transport"
)

// Bounds of what a host remembers.
const (
	maxBook   = 4096 // peers whose addresses are known
	maxAddrs  = 8    // addresses of one peer
	maxEvents = 64   // events that wait for a slow reader
)

// Host is a node's place in the network. It implements [transport.Transport] and
// [transport.Discovery].
type Host struct {
	n    *Network
	id   transport.PeerID
	gone chan struct{} // closed when the host is down
	wg   sync.WaitGroup

	// The network's mutex guards the rest.
	closed   bool
	handlers map[string]func(transport.Stream)
	conns    map[transport.PeerID]*conn
	book     map[transport.PeerID][]string
	subs     map[*sub]struct{}
}

var (
	_ transport.Transport = (*Host)(nil)
	_ transport.Discovery = (*Host)(nil)
)

func newHost(n *Network, id transport.PeerID) *Host {
	return &Host{
		n: n, id: id, gone: make(chan struct{}),
		handlers: make(map[string]func(transport.Stream)),
		conns:    make(map[transport.PeerID]*conn),
		book:     make(map[transport.PeerID][]string),
		subs:     make(map[*sub]struct{}),
	}
}

// ID implements [transport.Transport].
func (h *Host) ID() transport.PeerID { return h.id }

// Addrs implements [transport.Transport]: one address like /memory/1, or none
// when the host is closed.
func (h *Host) Addrs() []string {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	if h.closed {
		return nil
	}
	return h.n.addrs(h.id)
}

// remember adds addresses of a peer, the newest first. Callers hold n.mu.
func (h *Host) remember(id transport.PeerID, addrs []string) {
	if len(addrs) == 0 {
		return
	}
	known, ok := h.book[id]
	if !ok && len(h.book) >= maxBook {
		for other := range h.book { // any that is not connected may go
			if h.conns[other] == nil {
				delete(h.book, other)
				break
			}
		}
	}
	var all []string
	for _, a := range slices.Concat(addrs[:min(len(addrs), maxAddrs)], known) {
		if len(all) < maxAddrs && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	h.book[id] = all
}

// Open implements [transport.Transport].
func (h *Host) Open(ctx context.Context, peer transport.PeerInfo, protocol string, opts transport.OpenOptions) (transport.Stream, error) {
	c, err := h.dial(ctx, peer)
	if err != nil {
		return nil, err
	}
	n := h.n
	n.mu.Lock()
	link := n.link(h.id, peer.ID)
	n.mu.Unlock()
	if opts.Bulk && link.Relayed {
		return nil, fmt.Errorf("memory: %s: %w", peer.ID.Short(), transport.ErrLimited)
	}
	if err := h.pause(ctx, 2*link.Latency); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if h.closed {
		return nil, transport.ErrClosed
	}
	if c.closed {
		return nil, fmt.Errorf("memory: %s: connection lost: %w", peer.ID.Short(), transport.ErrUnreachable)
	}
	to := c.a
	if to == h {
		to = c.b
	}
	fn := to.handlers[protocol]
	if fn == nil {
		return nil, fmt.Errorf("memory: %s: %q: %w", peer.ID.Short(), protocol, transport.ErrNoProtocol)
	}
	near, far := c.open(h, to, link.Relayed)
	to.wg.Go(func() { fn(far) })
	return near, nil
}

// dial returns a connection to the peer, making one where there is none.
func (h *Host) dial(ctx context.Context, peer transport.PeerInfo) (*conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n := h.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if h.closed {
		return nil, transport.ErrClosed
	}
	if peer.ID == h.id {
		return nil, fmt.Errorf("memory: dial to self: %w", transport.ErrUnreachable)
	}
	h.remember(peer.ID, peer.Addrs)
	if c := h.conns[peer.ID]; c != nil {
		return c, nil
	}
	if err := h.known(peer.ID); err != nil {
		return nil, err
	}
	trip := 2 * n.link(h.id, peer.ID).Latency
	n.mu.Unlock()
	err := h.pause(ctx, trip)
	n.mu.Lock()
	switch {
	case err != nil:
		return nil, err
	case h.closed:
		return nil, transport.ErrClosed
	case h.conns[peer.ID] != nil: // the other side was quicker
		return h.conns[peer.ID], nil
	case !n.path(h.id, peer.ID):
		return nil, fmt.Errorf("memory: %s: no path: %w", peer.ID.Short(), transport.ErrUnreachable)
	}
	return n.connect(h, n.hosts[peer.ID]), nil
}

// known says whether one of the peer's known addresses is the peer's. Callers
// hold n.mu.
func (h *Host) known(id transport.PeerID) error {
	if h.n.opts.Directory {
		return nil
	}
	errs := []error{fmt.Errorf("memory: %s: %w", id.Short(), transport.ErrUnreachable)}
	addrs := h.book[id]
	if len(addrs) == 0 {
		errs = append(errs, errors.New("no address known"))
	}
	for _, a := range addrs {
		owner, ok := h.n.byAddr[a]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("%s: nobody there", a))
		case owner != id:
			errs = append(errs, fmt.Errorf("%s: another peer", a))
		default:
			return nil
		}
	}
	return errors.Join(errs...)
}

// pause waits, unless ctx ends or the host is closed.
func (h *Host) pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-h.gone:
		return transport.ErrClosed
	}
}

// Handle implements [transport.Transport].
func (h *Host) Handle(protocol string, fn func(transport.Stream)) {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	switch {
	case h.closed:
	case fn == nil:
		delete(h.handlers, protocol)
	default:
		h.handlers[protocol] = fn
	}
}

// Peers implements [transport.Transport], in the order of peer ids.
func (h *Host) Peers() []transport.Peer {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	all := make([]transport.Peer, 0, len(h.conns))
	for id := range h.conns {
		l := h.n.link(h.id, id)
		all = append(all, transport.Peer{PeerInfo: h.n.info(id), Relayed: l.Relayed, Latency: 2 * l.Latency})
	}
	slices.SortFunc(all, func(a, b transport.Peer) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return all
}

// Disconnect implements [transport.Transport].
func (h *Host) Disconnect(peer transport.PeerID) { h.n.Disconnect(h.id, peer) }

// Close implements [transport.Transport]. It must not be called by a handler of
// the host, for which it waits.
func (h *Host) Close() error {
	h.n.mu.Lock()
	h.down()
	h.n.mu.Unlock()
	h.wg.Wait()
	return nil
}

// down takes the host off the network. Callers hold n.mu.
func (h *Host) down() {
	if h.closed {
		return
	}
	for _, c := range h.conns {
		c.close()
	}
	h.closed = true
	close(h.gone)
	clear(h.handlers)
	for s := range h.subs {
		close(s.ch)
	}
	clear(h.subs)
	if h.n.hosts[h.id] == h {
		delete(h.n.hosts, h.id)
	}
	for _, m := range h.n.advs {
		delete(m, h.id)
	}
}

// sub is a reader of events.
type sub struct{ ch chan transport.Event }

// Events implements [transport.Transport].
func (h *Host) Events() (<-chan transport.Event, func()) {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	s := &sub{ch: make(chan transport.Event, maxEvents)}
	if h.closed {
		close(s.ch)
		return s.ch, func() {}
	}
	h.subs[s] = struct{}{}
	if h.n.opts.LAN {
		for _, o := range h.n.sorted() {
			if o != h && h.n.path(h.id, o.id) {
				h.remember(o.id, h.n.addrs(o.id))
				s.send(transport.Event{Kind: transport.Found, Peer: h.n.info(o.id)})
			}
		}
	}
	return s.ch, func() {
		h.n.mu.Lock()
		defer h.n.mu.Unlock()
		if _, ok := h.subs[s]; ok {
			delete(h.subs, s)
			close(s.ch)
		}
	}
}

// emit tells every reader. Callers hold n.mu.
func (h *Host) emit(e transport.Event) {
	for s := range h.subs {
		s.send(e)
	}
}

// send drops the oldest event when the reader is late. Callers hold n.mu, so
// there is one sender.
func (s *sub) send(e transport.Event) {
	for {
		select {
		case s.ch <- e:
			return
		default:
		}
		select {
		case <-s.ch:
		default:
		}
	}
}
