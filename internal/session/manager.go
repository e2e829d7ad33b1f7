// Package session meets peers and replicates libraries with them.
//
// A hello on a stream of its own shows which libraries two peers share; it stays
// open as their session. For each shared library the opener of the session then
// opens a link, on which the control set and the asset set are reconciled and new
// records are pushed live. Contents travel on further streams, which name the
// session and the library's handle in it, never the library itself. Each library is
// shared, and ends to be, on its own; the session ends with the last.
//
// With whom to share a library is for package overlay to say: with all members of a
// small one, with a few of a large one, each of whom passes on what is new.
//
// The manager's goroutines are the dialler, the search for peers, and for each
// session and link those that serve it; all are joined by Close.
package session

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/transport"
)

// Errors of the manager.
var (
	// ErrClosed says that the manager was closed.
	ErrClosed = errors.New("session: closed")
	// ErrNoSession says that the library is not shared with the peer just now.
	ErrNoSession = errors.New("session: library not shared with this peer now")
)

// Config is what a manager works with; all fields but Degree, Logger and OnPeer are
// required.
type Config struct {
	Transport transport.Transport
	Device    capability.Device
	// Store keeps the addresses of peers over restarts.
	Store store.Store
	Now   func() time.Time
	Rand  io.Reader
	// Degree is the number of neighbours to aim at in each library; 0 means
	// [overlay.DefaultDegree].
	Degree int
	Logger *slog.Logger
	// OnPeer is called when a library begins or ends to be shared with a peer, one
	// call at a time, in order.
	OnPeer func(lib [32]byte, peer transport.PeerID, up bool)
}

// Library is a library of which the node is a member.
type Library struct {
	ID      [32]byte
	Replica *replica.Replica
	// Bundle proves the node's own membership.
	Bundle capability.Bundle
	// Seed keys the choice of neighbours: the same at all members, known to nobody
	// else.
	Seed [16]byte
	// Secrets returns the epoch secrets, the newest first.
	Secrets func() []capability.Secret
	// Meet returns the keys under which members look for each other now, the one
	// to advertise first.
	Meet func(now time.Time) [][32]byte
	// Invites returns the secrets of the open invites.
	Invites func(now time.Time) []capability.Secret
	// Admit answers a request to join.
	Admit func(ctx context.Context, q capability.JoinRequest, peer transport.PeerID, binding [32]byte) capability.JoinReply
	// Members returns the peer ids of the members, for the caller to keep.
	Members func() []transport.PeerID
	// Have reports whether the node's CAN Service holds a content that is in the
	// library.
	Have func(ctx context.Context, d can.Digest) (bool, error)
	// OnRound is called after each reconciliation of the assets with a peer.
	OnRound func(peer transport.PeerID)
	// Author returns the device that announced a content, zero if that is not known,
	// and whether the content is in the library. Nil means that it is not known.
	Author func(ctx context.Context, d can.Digest) (id transport.PeerID, in bool, err error)
	// OnFound is called when a member was found, and is linked now, that holds
	// contents for which [Manager.Seek] was called. It may be nil.
	OnFound func()
}

// Joining is a ticket that waits to be redeemed.
type Joining struct {
	Ticket capability.Ticket
	// Joined is called once with what the ticket gave; an error means that it
	// could not be kept, and the ticket is tried again.
	Joined func(capability.Grant, capability.EpochKeys, capability.Bundle) error
	// Refused is called for each refusal.
	Refused func(error)

	busy bool // what came of the ticket is being kept; guarded by the manager
}

// shared is a library that both sides of a session proved membership of.
type shared struct {
	lib   *Library
	grant capability.Grant
}

// Manager is safe for concurrent use.
type Manager struct {
	cfg  Config
	log  *slog.Logger
	book *book

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	poke   chan struct{} // the dialler should look again
	met    chan transport.PeerInfo

	mu       sync.Mutex
	closed   bool
	libs     map[[32]byte]*entry
	joins    map[[32]byte]*Joining
	sessions map[*session]bool
	changed  chan struct{} // closed and replaced when sessions change
	tries    map[transport.PeerID]*try
	opening  map[transport.PeerID]bool
	serving  int // hellos being answered
	handlers map[string]func(Served)
	notes    []note // calls of OnPeer to be made
	telling  bool   // somebody makes them

	answering map[transport.PeerID]int // hellos being answered, by peer
	attaching map[transport.PeerID]int // streams that have yet to name their session

	randMu sync.Mutex
}

// New starts a manager. The caller closes it before the transport and the store.
func New(cfg Config) *Manager {
	m := &Manager{
		cfg: cfg, log: cfg.Logger, book: newBook(), poke: make(chan struct{}, 1), met: make(chan transport.PeerInfo),
		libs: make(map[[32]byte]*entry), joins: make(map[[32]byte]*Joining),
		sessions: make(map[*session]bool), changed: make(chan struct{}),
		tries: make(map[transport.PeerID]*try), opening: make(map[transport.PeerID]bool),
		handlers:  make(map[string]func(Served)),
		answering: make(map[transport.PeerID]int), attaching: make(map[transport.PeerID]int),
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.loadBook(m.ctx)
	cfg.Transport.Handle(protoHello, m.onHello)
	cfg.Transport.Handle(protoSync, m.onSync)
	events, stop := cfg.Transport.Events()
	m.wg.Go(func() { defer stop(); m.dial(events) })
	if d, ok := cfg.Transport.(transport.Discovery); ok {
		m.wg.Go(func() { m.discover(d) })
	}
	return m
}

// Close ends every session and waits for everything that the manager started.
func (m *Manager) Close() error {
	m.mu.Lock()
	m.closed = true
	all := make([]*session, 0, len(m.sessions))
	for s := range m.sessions {
		all = append(all, s)
	}
	protos := []string{protoHello, protoSync}
	for p := range m.handlers {
		protos = append(protos, p)
	}
	m.mu.Unlock()
	for _, p := range protos {
		m.cfg.Transport.Handle(p, nil)
	}
	m.cancel()
	for _, s := range all {
		s.close()
	}
	m.wg.Wait()
	return nil
}

// Add begins to share a library. Its replica must stay open until Remove or Close
// returned.
func (m *Manager) Add(lib *Library) {
	m.mu.Lock()
	if m.closed || m.libs[lib.ID] != nil {
		m.mu.Unlock()
		return
	}
	e := newEntry(lib)
	m.libs[lib.ID] = e
	m.forgetAllLocked()
	m.notifyLocked()
	m.mu.Unlock()
	lib.Replica.Observe(func(ap replica.Applied) { m.forward(e, ap) })
	m.Poke()
}

// Remove ends to share a library and waits until no link or stream uses it.
func (m *Manager) Remove(id [32]byte) {
	m.mu.Lock()
	e := m.libs[id]
	delete(m.libs, id)
	delete(m.joins, id)
	var places []*place
	if e != nil {
		for p := range e.places { // those that have just ended, too
			places = append(places, p)
		}
	}
	m.mu.Unlock()
	for _, p := range places {
		m.end(p, endOurs)
	}
	for _, p := range places {
		p.wg.Wait()
	}
}

// Join begins to redeem a ticket.
func (m *Manager) Join(j *Joining) {
	m.mu.Lock()
	if !m.closed {
		m.joins[j.Ticket.Library()] = j
		m.forgetAllLocked()
		m.notifyLocked()
	}
	m.mu.Unlock()
	for _, p := range j.Ticket.Peers {
		if m.book.learn(p, false) {
			m.saveBook(p.ID) // a restart before the first meeting must not lose them
		}
	}
	m.Poke()
}

// Learn takes in addresses of peers, from a ticket or a host.
func (m *Manager) Learn(peers ...transport.PeerInfo) {
	m.learn(func(transport.PeerID) bool { return false }, peers)
}

func (m *Manager) learn(hearsay func(transport.PeerID) bool, peers []transport.PeerInfo) {
	fresh := false
	for _, p := range peers {
		second := hearsay(p.ID)
		if p.ID != m.cfg.Transport.ID() && m.book.learn(p, second) {
			if second {
				m.hint(p.ID)
			} else {
				m.forget(p.ID)
			}
			m.saveBook(p.ID)
			fresh = true
		}
	}
	if fresh {
		m.spread()
	}
	m.Poke()
}

// Known returns the addresses known of a peer.
func (m *Manager) Known(id transport.PeerID) transport.PeerInfo { return m.book.get(id) }

// Poke makes the dialler look at once for peers to connect to.
func (m *Manager) Poke() {
	select {
	case m.poke <- struct{}{}:
	default:
	}
}

// SetView tells the peers of a library that the node's view of it changed; the
// replica was told before.
func (m *Manager) SetView(id [32]byte, v filter.View) {
	for _, p := range m.places(id) {
		select { // the newest view counts
		case <-p.link.mine:
		default:
		}
		select {
		case p.link.mine <- v:
		default:
		}
	}
}

// Resync reconciles a library with every connected peer now.
func (m *Manager) Resync(id [32]byte) {
	for _, p := range m.places(id) {
		p.link.resync()
	}
}

// Peer is a member that the library is shared with now.
type Peer struct {
	ID transport.PeerID
	// Rights are the peer's.
	Rights capability.Rights
	// Synced says that the asset sets were reconciled at least once since the
	// link came up.
	Synced bool
}

// Peers returns the members that the library is shared with now.
func (m *Manager) Peers(id [32]byte) []Peer {
	var out []Peer
	for _, p := range m.places(id) {
		out = append(out, Peer{p.s.peer, p.grant.Rights, p.link.synced.Load()})
	}
	return out
}

// Shared returns the libraries that are shared with a peer now.
func (m *Manager) Shared(peer transport.PeerID) [][32]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out [][32]byte
	for id, e := range m.libs {
		if p := e.links[peer]; p != nil && p.link != nil {
			out = append(out, id)
		}
	}
	return out
}

// places returns the places of a library that have a link.
func (m *Manager) places(id [32]byte) []*place {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []*place
	if e := m.libs[id]; e != nil {
		for _, p := range e.links {
			if p.link != nil {
				out = append(out, p)
			}
		}
	}
	return out
}

func (m *Manager) libraries() []*Library {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]*Library, 0, len(m.libs))
	for _, e := range m.libs {
		out = append(out, e.lib)
	}
	return out
}

// forward pushes what is new to every peer but the one it came from.
func (m *Manager) forward(e *entry, ap replica.Applied) {
	if len(ap.Records) == 0 {
		return
	}
	m.mu.Lock()
	if ap.Control {
		e.changes++      // there may be new members
		m.notifyLocked() // an invite opens a new place to meet
	}
	var links []*link
	for peer, p := range e.links {
		if peer != ap.From && p.link != nil {
			links = append(links, p.link)
		}
	}
	m.mu.Unlock()
	for _, l := range links {
		l.push(ap)
	}
	if ap.Control {
		m.Poke()
	}
}

// jitter spreads what happens at intervals by a fifth.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}
