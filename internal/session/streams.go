package session

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/transport"
)

// maxAttaching is how many streams of one peer may be about to name their session.
const maxAttaching = 256

// Served is a stream that a member opened for a library.
type Served struct {
	Library [32]byte
	Peer    transport.PeerID
	Rights  capability.Rights
	Stream  transport.Stream
	// Context ends when the library is no longer shared with the peer.
	Context context.Context
}

// Open opens a stream of the protocol to a member, for a library that is shared
// with it now; otherwise it returns [ErrNoSession]. The caller owns the stream,
// which is reset when the library ends to be shared with the peer.
func (m *Manager) Open(ctx context.Context, lib [32]byte, peer transport.PeerID, proto string, opts transport.OpenOptions) (transport.Stream, error) {
	m.mu.Lock()
	var p *place
	if e := m.libs[lib]; e != nil {
		p = e.links[peer]
	}
	m.mu.Unlock()
	if p == nil {
		return nil, fmt.Errorf("%w: %s", ErrNoSession, peer.Short())
	}
	st, err := m.attach(ctx, p, proto, opts)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(p.ctx, func() { _ = st.Reset() })
	return &held{Stream: st, p: p, stop: stop}, nil
}

// held is a stream that ends with its place, which is busy while bytes move on it.
type held struct {
	transport.Stream
	p    *place
	stop func() bool
}

func (h *held) Read(b []byte) (int, error) {
	n, err := h.Stream.Read(b)
	if n > 0 {
		h.p.moving()
	}
	return n, err
}

func (h *held) Write(b []byte) (int, error) {
	n, err := h.Stream.Write(b)
	if n > 0 {
		h.p.moving()
	}
	return n, err
}

func (h *held) Close() error { h.stop(); return h.Stream.Close() }
func (h *held) Reset() error { h.stop(); return h.Stream.Reset() }

// Serve answers streams of the protocol. fn owns the stream, returns soon after
// Context ends, and is joined by Close.
func (m *Manager) Serve(proto string, fn func(Served)) {
	m.mu.Lock()
	m.handlers[proto] = fn
	m.mu.Unlock()
	m.cfg.Transport.Handle(proto, func(st transport.Stream) {
		p, ok := m.attached(st)
		if !ok {
			return
		}
		defer p.wg.Done()
		stop := context.AfterFunc(p.ctx, func() { _ = st.Reset() })
		defer stop()
		fn(Served{
			Library: p.lib.ID, Peer: p.s.peer, Rights: p.grant.Rights,
			Stream: &held{Stream: st, p: p, stop: stop}, Context: p.ctx,
		})
	})
}

// attach opens a stream that belongs to a place.
func (m *Manager) attach(ctx context.Context, p *place, proto string, opts transport.OpenOptions) (transport.Stream, error) {
	st, err := m.cfg.Transport.Open(ctx, transport.PeerInfo{ID: p.s.peer}, proto, opts)
	if err != nil {
		return nil, err
	}
	_ = st.SetWriteDeadline(time.Now().Add(attachWait))
	if _, err := st.Write(attach{p.s.id, p.handle}.encode()); err != nil {
		_ = st.Reset()
		return nil, err
	}
	_ = st.SetWriteDeadline(time.Time{})
	return st, nil
}

// attached reads the first frame of a stream and finds the place that it names, for
// which the caller calls wg.Done. It resets streams that name none, at once if the
// peer has no session at all.
func (m *Manager) attached(st transport.Stream) (*place, bool) {
	peer := st.Peer()
	if m.arrive(peer) {
		defer m.leave(peer)
		_ = st.SetReadDeadline(time.Now().Add(attachWait))
		if a, err := readAttach(st); err == nil {
			if p, ok := m.find(peer, a); ok {
				_ = st.SetReadDeadline(time.Time{})
				return p, true
			}
		}
	}
	_ = st.Reset()
	return nil, false
}

// arrive counts a stream that has yet to name its session. Only peers that have a
// session, or say hello just now, may open streams.
func (m *Manager) arrive(peer transport.PeerID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.attaching[peer] >= maxAttaching || !m.meetingLocked(peer) {
		return false
	}
	m.attaching[peer]++
	return true
}

func (m *Manager) leave(peer transport.PeerID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.attaching[peer]--; m.attaching[peer] == 0 {
		delete(m.attaching, peer)
	}
}

// meetingLocked reports whether there is a session with the peer, or may be soon.
func (m *Manager) meetingLocked(peer transport.PeerID) bool {
	if m.opening[peer] || m.answering[peer] > 0 {
		return true
	}
	for s := range m.sessions {
		if s.peer == peer {
			return true
		}
	}
	return false
}

// readAttach reads byte by byte, since what follows belongs to another reader.
func readAttach(r io.Reader) (a attach, err error) {
	b := make([]byte, len(attach{}.encode()))
	if _, err := io.ReadFull(r, b); err != nil {
		return a, err
	}
	typ, body, err := wire.NewFrameReader(bytes.NewReader(b), attachFrame).Read()
	if err != nil {
		return a, err
	}
	if typ != frameAttach {
		return a, fmt.Errorf("%w: frame %d before any session is named", errPeer, typ)
	}
	return decodeAttach(body)
}

// find looks a place up. While the peer says hello it waits a little, since the
// stream may overtake the last frame of the hello.
func (m *Manager) find(peer transport.PeerID, a attach) (*place, bool) {
	timer := time.NewTimer(attachWait)
	defer timer.Stop()
	for {
		m.mu.Lock()
		for s := range m.sessions {
			if s.id == a.session && s.peer == peer {
				p := s.places[a.handle]
				if p != nil {
					p.wg.Add(1)
				}
				m.mu.Unlock()
				return p, p != nil
			}
		}
		wait := m.opening[peer] || m.answering[peer] > 0
		changed := m.changed
		m.mu.Unlock()
		if !wait {
			return nil, false
		}
		select {
		case <-changed:
		case <-timer.C:
			return nil, false
		case <-m.ctx.Done():
			return nil, false
		}
	}
}
