package session

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/transport"
)

// session is an open hello stream and what is shared under it.
type session struct {
	id     [16]byte
	peer   transport.PeerID
	stream transport.Stream
	opener bool
	libs   map[uint16]shared
	log    *slog.Logger

	ctx    context.Context // ends with the session
	cancel context.CancelFunc
	done   chan struct{}  // closed when nothing of the session runs any more
	news   chan struct{}  // addresses may have changed
	wg     sync.WaitGroup // added to only while the session is registered
}

// close ends the session; serve cleans up behind it.
func (s *session) close() {
	s.cancel()
	_ = s.stream.Reset()
}

const (
	aliveEvery  = 30 * time.Second
	newsSettle  = time.Second
	maxHellos   = 64
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
	if m.closed || m.serving >= maxHellos || crossed {
		m.mu.Unlock()
		_ = st.Reset()
		return
	}
	m.serving++
	m.wg.Add(1)
	m.mu.Unlock()
	defer m.wg.Done()

	h := newHandshake(st)
	_ = st.SetReadDeadline(time.Now().Add(helloWait))
	_ = st.SetWriteDeadline(time.Now().Add(helloWait))
	stop := context.AfterFunc(m.ctx, func() { _ = st.Reset() })
	libs, err := m.answer(h)
	stop()
	m.mu.Lock()
	m.serving--
	m.mu.Unlock()
	if err != nil || len(libs) == 0 {
		if hush(err) != nil {
			m.log.Debug("hello failed", "peer", peer.Short(), "error", err)
			_ = st.Reset()
			return
		}
		_ = st.Close()
		return
	}
	m.serve(h, libs, false)
}

// greet opens a session with a peer about what is not yet shared with it. It
// reports whether the peer and the node have anything in common, and whether a
// ticket was redeemed, so that there is a library to greet the peer about again: it
// is known as a member only when the control set is here.
func (m *Manager) greet(ctx context.Context, p transport.PeerInfo) (common, again bool, err error) {
	m.mu.Lock()
	if m.closed || m.opening[p.ID] {
		m.mu.Unlock()
		return false, false, nil
	}
	m.opening[p.ID] = true
	var libs []*Library
	for _, e := range m.libs {
		if e.links[p.ID] == nil {
			libs = append(libs, e.lib)
		}
	}
	var joins []*Joining
	for _, j := range m.joins {
		joins = append(joins, j)
	}
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.opening, p.ID)
		m.mu.Unlock()
	}()
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
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		_ = st.Reset()
		return true, false, ErrClosed
	}
	m.wg.Add(1)
	m.mu.Unlock()
	go func() { defer m.wg.Done(); m.serve(h, both, true) }()
	return true, again, nil
}

// joined hands on what came of a ticket and reports whether it was redeemed.
func (m *Manager) joined(o joinOutcome) bool {
	if o.err != nil {
		o.joining.Refused(o.err)
		return false
	}
	id := o.joining.Ticket.Library()
	m.mu.Lock()
	current := m.joins[id] == o.joining
	delete(m.joins, id)
	m.mu.Unlock()
	if !current {
		return false
	}
	if err := o.joining.Joined(o.grant, o.keys, o.bundle); err != nil {
		o.joining.Refused(err)
		m.mu.Lock()
		if !m.closed && m.libs[id] == nil {
			m.joins[id] = o.joining
		}
		m.mu.Unlock()
		return false
	}
	return true
}

// serve runs a session until its stream fails, the peer ends it, or the manager
// is closed.
func (m *Manager) serve(h *handshake, libs map[uint16]shared, opener bool) {
	s := &session{
		id: sessionID(h.bind), peer: h.peer, stream: h.stream, opener: opener, libs: libs,
		log:  m.log.With("peer", h.peer.Short()),
		done: make(chan struct{}), news: make(chan struct{}, 1),
	}
	s.ctx, s.cancel = context.WithCancel(m.ctx)
	defer s.cancel()
	defer close(s.done)
	_ = h.stream.SetWriteDeadline(time.Time{})
	if !m.register(s) {
		s.close()
		return
	}
	s.wg.Go(func() { m.tell(s) })
	if opener {
		for handle, sh := range libs {
			s.wg.Go(func() { m.openLink(s, handle, sh) })
		}
	}
	err := m.listen(s, h.frames)
	s.close()
	down := m.unregister(s)
	s.wg.Wait()
	for _, id := range down {
		m.report(id, s.peer, false)
	}
	if hush(err) != nil && m.ctx.Err() == nil {
		s.log.Info("session ended", "error", err)
	}
	m.Poke()
}

// register puts the session in force. Where a library is shared with the peer
// already, the newer session takes over: its opener would not have offered the
// library if it still held the older one.
func (m *Manager) register(s *session) bool {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return false
	}
	m.sessions[s] = true
	var old []*place
	var up [][32]byte
	for handle, sh := range s.libs {
		e := m.libs[sh.lib.ID]
		if e == nil || e.lib != sh.lib {
			continue
		}
		if p := e.links[s.peer]; p != nil {
			old = append(old, p)
		} else {
			up = append(up, sh.lib.ID)
		}
		e.links[s.peer] = &place{s: s, handle: handle, grant: sh.grant, cancel: func() {}}
	}
	m.notifyLocked()
	m.mu.Unlock()
	for _, p := range old {
		p.cancel()
	}
	for _, id := range up {
		m.report(id, s.peer, true)
	}
	return true
}

// unregister takes the session out of force and returns the libraries that are no
// longer shared with the peer.
func (m *Manager) unregister(s *session) (down [][32]byte) {
	m.mu.Lock()
	delete(m.sessions, s)
	for _, sh := range s.libs {
		if e := m.libs[sh.lib.ID]; e != nil && e.links[s.peer] != nil && e.links[s.peer].s == s {
			delete(e.links, s.peer)
			down = append(down, sh.lib.ID)
		}
	}
	m.notifyLocked()
	m.mu.Unlock()
	return down
}

func (m *Manager) notifyLocked() {
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *Manager) report(lib [32]byte, peer transport.PeerID, up bool) {
	if m.cfg.OnPeer != nil {
		m.cfg.OnPeer(lib, peer, up)
	}
}

// listen reads the session's stream: signs of life and addresses.
func (m *Manager) listen(s *session, frames *wire.FrameReader) error {
	for {
		_ = s.stream.SetReadDeadline(time.Now().Add(silence))
		typ, body, err := frames.Read()
		if err != nil {
			return err
		}
		if typ == frameAddrs {
			peers, err := decodePeers(body)
			if err != nil {
				return err
			}
			m.Learn(m.relevant(s, peers)...)
		}
	}
}

// relevant keeps the peers that are members of a library shared in the session.
func (m *Manager) relevant(s *session, peers []transport.PeerInfo) []transport.PeerInfo {
	member := map[transport.PeerID]bool{s.peer: true}
	for _, sh := range s.libs {
		for _, id := range sh.lib.Members() {
			member[id] = true
		}
	}
	var out []transport.PeerInfo
	for _, p := range peers {
		if member[p.ID] {
			out = append(out, p)
		}
	}
	return out
}

// tell writes signs of life, and addresses when they change.
func (m *Manager) tell(s *session) {
	defer s.close()
	tick := time.NewTicker(aliveEvery)
	defer tick.Stop()
	var last []byte
	for {
		frame := encodePeers(m.addresses(s))
		if bytes.Equal(frame, last) {
			frame = wire.AppendFrame(nil, frameAlive, nil)
		} else {
			last = frame
		}
		_ = s.stream.SetWriteDeadline(time.Now().Add(writeWait))
		if _, err := s.stream.Write(frame); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-s.news:
			select { // several changes come together
			case <-time.After(newsSettle):
			case <-s.ctx.Done():
				return
			}
		case <-s.ctx.Done():
			return
		}
	}
}

// addresses returns the node's own addresses and those of members of the
// session's libraries.
func (m *Manager) addresses(s *session) []transport.PeerInfo {
	self := m.cfg.Transport.ID()
	out := []transport.PeerInfo{{ID: self, Addrs: m.cfg.Transport.Addrs()}}
	seen := map[transport.PeerID]bool{self: true, s.peer: true}
	for _, sh := range s.libs {
		for _, id := range sh.lib.Members() {
			if seen[id] {
				continue
			}
			seen[id] = true
			if p := m.book.get(id); len(p.Addrs) > 0 && len(out) < maxAddrPeers {
				out = append(out, p)
			}
		}
	}
	return out
}

// spread makes every session look whether there are addresses to tell.
func (m *Manager) spread() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for s := range m.sessions {
		select {
		case s.news <- struct{}{}:
		default:
		}
	}
}

// openLink opens and serves the link of a library, as the opener of the session.
func (m *Manager) openLink(s *session, handle uint16, sh shared) {
	ctx, cancel := context.WithTimeout(s.ctx, attachWait)
	defer cancel()
	st, err := m.attach(ctx, s, handle, protoSync, transport.OpenOptions{})
	if err != nil {
		s.log.Info("link not opened", "error", err)
		s.close()
		return
	}
	m.runLink(s, sh.lib, st)
}

// attach opens a stream that belongs to a library of a session.
func (m *Manager) attach(ctx context.Context, s *session, handle uint16, proto string, opts transport.OpenOptions) (transport.Stream, error) {
	st, err := m.cfg.Transport.Open(ctx, transport.PeerInfo{ID: s.peer}, proto, opts)
	if err != nil {
		return nil, err
	}
	_ = st.SetWriteDeadline(time.Now().Add(attachWait))
	if _, err := st.Write(attach{s.id, handle}.encode()); err != nil {
		_ = st.Reset()
		return nil, err
	}
	_ = st.SetWriteDeadline(time.Time{})
	return st, nil
}

// onSync serves the link that the opener of a session opened.
func (m *Manager) onSync(st transport.Stream) {
	s, sh, ok := m.attached(st)
	if !ok {
		return
	}
	defer s.wg.Done()
	if s.opener { // it is ours to open links
		_ = st.Reset()
		return
	}
	m.runLink(s, sh.lib, st)
}

// attached reads the first frame of a stream and finds the session and library it
// names, for which the caller calls s.wg.Done. It resets streams that name none.
func (m *Manager) attached(st transport.Stream) (*session, shared, bool) {
	_ = st.SetReadDeadline(time.Now().Add(attachWait))
	// The frame is read byte by byte, since what follows belongs to another reader.
	var b [4 + 1 + 16 + 2]byte
	if err := readFull(st, b[:]); err == nil {
		typ, body, err := wire.NewFrameReader(bytes.NewReader(b[:]), attachFrame).Read()
		if err == nil && typ == frameAttach {
			if a, err := decodeAttach(body); err == nil {
				if s, sh, ok := m.find(st.Peer(), a); ok {
					_ = st.SetReadDeadline(time.Time{})
					return s, sh, true
				}
			}
		}
	}
	_ = st.Reset()
	return nil, shared{}, false
}

// find looks a session up; it waits a little, since the stream may overtake the
// last frame of the hello.
func (m *Manager) find(peer transport.PeerID, a attach) (*session, shared, bool) {
	timer := time.NewTimer(attachWait)
	defer timer.Stop()
	for {
		m.mu.Lock()
		for s := range m.sessions {
			if s.id == a.session && s.peer == peer {
				sh, ok := s.libs[a.handle]
				if ok {
					s.wg.Add(1)
				}
				m.mu.Unlock()
				return s, sh, ok
			}
		}
		changed := m.changed
		m.mu.Unlock()
		select {
		case <-changed:
		case <-timer.C:
			return nil, shared{}, false
		case <-m.ctx.Done():
			return nil, shared{}, false
		}
	}
}

// runLink serves a link as long as it is in force. When it fails, so does the
// session, and the peers meet anew.
func (m *Manager) runLink(s *session, lib *Library, st transport.Stream) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = st.Reset() })
	defer stop()
	l := &link{
		lib: lib, peer: s.peer, stream: st, opener: s.opener, log: s.log, jitter: jitter,
		out: newOutbox(), in: make(chan inbound, 4), again: make(chan struct{}, 1),
		mine: make(chan filter.View, 1), own: filter.View{lib.Replica.OwnView()},
	}
	l.onRound = func(*link) { lib.OnRound(s.peer) }
	m.mu.Lock()
	e := m.libs[lib.ID]
	var p *place
	if e != nil && e.lib == lib {
		p = e.links[s.peer]
	}
	if p == nil || p.s != s || p.link != nil {
		m.mu.Unlock()
		_ = st.Reset()
		return
	}
	p.link, p.cancel = l, cancel
	m.mu.Unlock()
	err := l.run(ctx)
	if ctx.Err() == nil {
		s.close() // unless another session took over
	}
	if hush(err) != nil && !errors.Is(err, context.Canceled) {
		s.log.Warn("link failed", "error", err)
		if errors.Is(err, errPeer) {
			m.blame(s.peer)
		}
	}
}
