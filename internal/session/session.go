package session

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/overlay"
	"github.com/cansync/cansync/transport"
)

// session is an open hello stream and what is shared under it. It ends with its
// stream, or when nothing is shared under it any more.
type session struct {
	id     [16]byte
	peer   transport.PeerID
	stream transport.Stream
	opener bool
	log    *slog.Logger
	lot    [2]uint64 // chooses the members whose addresses are told

	ctx    context.Context // ends with the session
	cancel context.CancelFunc
	news   chan struct{}  // addresses may have changed
	wg     sync.WaitGroup // what serves the session beside the caller of serve

	places map[uint16]*place // in force, by handle; guarded by the manager's mutex
	all    []*place          // all that ever were, from register on

	mu    sync.Mutex
	heard []transport.PeerInfo // of peers not known to be members
}

// close ends the session; serve cleans up behind it.
func (s *session) close() {
	s.cancel()
	_ = s.stream.Reset()
}

const (
	maxHellos   = 64 // being answered at once
	keptHellos  = 16 // more, of known members: strangers are as many as somebody makes up
	peerHellos  = 4  // of one peer
	attachWait  = 10 * time.Second
	attachFrame = 64
)

// onHello answers a peer's hello and serves the session that comes of it.
func (m *Manager) onHello(st transport.Stream) {
	peer := st.Peer()
	m.mu.Lock()
	// When two peers greet each other at once, the hello of the smaller id counts.
	self := m.cfg.Transport.ID()
	crossed := m.opening[peer] && bytes.Compare(self[:], peer[:]) < 0
	shunned := m.shunnedLocked(peer)
	full := m.serving >= maxHellos && (m.serving >= maxHellos+keptHellos || !m.memberLocked(peer))
	if m.closed || full || m.answering[peer] >= peerHellos || crossed || shunned {
		m.mu.Unlock()
		_ = st.Reset()
		return
	}
	m.serving++
	m.answering[peer]++
	m.wg.Add(1)
	m.mu.Unlock()
	defer m.wg.Done()

	h := newHandshake(st)
	_ = st.SetReadDeadline(time.Now().Add(helloWait))
	_ = st.SetWriteDeadline(time.Now().Add(helloWait))
	stop := context.AfterFunc(m.ctx, func() { _ = st.Reset() })
	libs, err := m.answer(h)
	stop()
	var s *session
	if err == nil && len(libs) > 0 {
		s = m.begun(h, libs, false)
	}
	h.release()
	m.mu.Lock()
	m.serving--
	if m.answering[peer]--; m.answering[peer] == 0 {
		delete(m.answering, peer)
	}
	m.mu.Unlock()
	switch {
	case s != nil:
		m.serve(s, h)
	case hush(err) != nil:
		m.log.Debug("hello failed", "peer", peer.Short(), "error", err)
		_ = st.Reset()
	case len(libs) > 0: // nothing of it is shared any more
		_ = st.Reset()
	default:
		_ = st.Close()
	}
}

// offers returns what to greet a peer about: the libraries in which it is a
// neighbour to be, those of which it is not known to be no member, and the tickets.
func (m *Manager) offers(peer transport.PeerID, chosen map[*Library]bool) (libs []*Library, joins []*Joining) {
	m.mu.Lock()
	entries := make([]*entry, 0, len(m.libs))
	for _, e := range m.libs {
		if e.links[peer] == nil {
			entries = append(entries, e)
		}
	}
	for _, j := range m.joins {
		if !j.busy && len(joins) < capability.MaxTags/2 {
			joins = append(joins, j)
		}
	}
	m.mu.Unlock()
	room := capability.MaxTags - len(joins)
	take := func(lib *Library) {
		if n := len(lib.Secrets()); n <= room {
			room -= n
			libs = append(libs, lib)
		}
	}
	for _, e := range entries {
		if chosen[e.lib] {
			take(e.lib)
		}
	}
	for _, e := range entries {
		if !chosen[e.lib] && !slices.Contains(m.members(e), peer) {
			take(e.lib)
		}
	}
	return libs, joins
}

// greet opens a session with a peer about the chosen libraries, and those that it
// may be a member of, as far as they are not shared with it. It
// reports whether the peer and the node have anything in common, and whether a
// ticket was redeemed, so that there is a library to greet the peer about again: it
// is known as a member only when the control set is here.
func (m *Manager) greet(ctx context.Context, p transport.PeerInfo, chosen map[*Library]bool) (common, again bool, err error) {
	m.mu.Lock()
	if m.closed || m.opening[p.ID] {
		m.mu.Unlock()
		return true, false, nil
	}
	m.opening[p.ID] = true
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.opening, p.ID)
		m.mu.Unlock()
	}()
	libs, joins := m.offers(p.ID, chosen)
	if len(libs) == 0 && len(joins) == 0 {
		return true, false, nil
	}
	st, err := m.cfg.Transport.Open(ctx, p, protoHello, transport.OpenOptions{})
	if err != nil {
		return false, false, err
	}
	_ = st.SetReadDeadline(time.Now().Add(helloWait))
	_ = st.SetWriteDeadline(time.Now().Add(helloWait))
	stop := context.AfterFunc(ctx, func() { _ = st.Reset() })
	h := newHandshake(st)
	both, outcomes, err := m.open(h, libs, joins)
	stop()
	if err != nil {
		_ = st.Reset()
		return false, false, err
	}
	for _, o := range outcomes {
		again = m.joined(o) || again
	}
	if len(both) == 0 {
		_ = st.Close()
		return len(outcomes) > 0, again, nil
	}
	m.refused(p.ID, libs, both)
	s := m.begun(h, both, true)
	if s == nil {
		_ = st.Reset()
		return true, again, m.ctx.Err()
	}
	m.wg.Go(func() { m.serve(s, h) }) // the dialler, which runs this, is in the group
	return true, again, nil
}

// refused makes the libraries wait that the peer was greeted about in vain, be it no
// member or have no room. When it shared nothing at all, attempt says how long.
func (m *Manager) refused(peer transport.PeerID, libs []*Library, both map[uint16]shared) {
	taken := make(map[*Library]bool, len(both))
	for _, sh := range both {
		taken[sh.lib] = true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, lib := range libs {
		e := m.libs[lib.ID]
		if e == nil || e.lib != lib || taken[lib] {
			continue
		}
		e.rest(peer, jitter(strangerMin), e.rests[peer].crowded)
	}
}

// joined hands on what came of a ticket and reports whether it was redeemed.
func (m *Manager) joined(o joinOutcome) bool {
	if o.err != nil {
		o.joining.Refused(o.err)
		return false
	}
	id := o.joining.Ticket.Library()
	m.mu.Lock()
	current := m.joins[id] == o.joining && !o.joining.busy
	if current {
		o.joining.busy = true
	}
	m.mu.Unlock()
	if !current {
		return false
	}
	err := o.joining.Joined(o.grant, o.keys, o.bundle)
	m.mu.Lock()
	o.joining.busy = false
	if err == nil && m.joins[id] == o.joining { // neither removed nor replaced meanwhile
		delete(m.joins, id)
	}
	m.mu.Unlock()
	if err != nil {
		o.joining.Refused(err)
	}
	return err == nil
}

// begun puts the session that a hello led to in force, nil if the manager was closed
// or nothing is shared any more.
func (m *Manager) begun(h *handshake, libs map[uint16]shared, opener bool) *session {
	s := &session{
		id: sessionID(h.bind), peer: h.peer, stream: h.stream, opener: opener,
		log: m.log.With("peer", h.peer.Short()), lot: m.lot(),
		news: make(chan struct{}, 1), places: make(map[uint16]*place),
	}
	s.ctx, s.cancel = context.WithCancel(m.ctx)
	_ = h.stream.SetWriteDeadline(time.Time{})
	if !m.register(s, libs) {
		s.cancel()
		return nil
	}
	return s
}

// serve runs a session in force until its stream fails, the peer ends it, nothing
// is shared under it any more, or the manager is closed.
func (m *Manager) serve(s *session, h *handshake) {
	defer s.cancel()
	s.wg.Go(func() { m.tell(s) })
	if s.opener {
		for _, p := range s.all {
			s.wg.Go(func() { m.openLink(p) })
		}
	}
	err := m.listen(s, h.frames)
	over := s.ctx.Err() != nil
	if errors.Is(err, errPeer) {
		m.Blame(s.peer) // before the end, which lets the dialler look for another
	}
	s.close()
	m.unregister(s)
	s.wg.Wait()
	for _, p := range s.all {
		p.wg.Wait()
		m.mu.Lock()
		delete(p.entry.places, p)
		m.mu.Unlock()
	}
	if hush(err) != nil && !over {
		s.log.Info("session ended", "error", err)
	}
	m.Poke()
}

// lot draws a random number of 128 bits.
func (m *Manager) lot() (n [2]uint64) {
	k := m.key()
	return [2]uint64{binary.LittleEndian.Uint64(k[:8]), binary.LittleEndian.Uint64(k[8:])}
}

func (m *Manager) newSeen() *overlay.Seen { return overlay.NewSeen(0, m.key()) }

// key draws random bytes that need not be secret for longer than a session.
func (m *Manager) key() (k [16]byte) {
	m.randMu.Lock()
	defer m.randMu.Unlock()
	if _, err := io.ReadFull(m.cfg.Rand, k[:]); err != nil {
		m.log.Warn("no randomness", "error", err)
	}
	return k
}
