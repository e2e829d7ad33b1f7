package session

import (
	"bytes"
	"fmt"
	"time"

	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/transport"
)

const (
	aliveEvery = 30 * time.Second
	newsSettle = time.Second
	heedEvery  = 5 * time.Second // what a peer tells more often waits
)

// listen reads the session's stream: signs of life and addresses.
func (m *Manager) listen(s *session, frames *wire.FrameReader) error {
	var heeded time.Time
	for {
		_ = s.stream.SetReadDeadline(time.Now().Add(silence))
		typ, body, err := frames.Read()
		if err != nil {
			return foreign(err)
		}
		if typ == frameAddrs {
			peers, err := decodePeers(body)
			if err != nil {
				return fmt.Errorf("%w: %w", errPeer, err)
			}
			s.hear(peers)
			if now := time.Now(); now.Sub(heeded) >= heedEvery {
				heeded = now
				m.heed(s) // else tell does, a little later
			}
		}
	}
}

// heed learns what the session's peer told of members. What is told of others may
// be of members about whom the control set has yet to say so, and is kept for then.
func (m *Manager) heed(s *session) {
	s.mu.Lock()
	heard := s.heard
	s.heard = nil
	s.mu.Unlock()
	if len(heard) == 0 {
		return
	}
	member := map[transport.PeerID]bool{s.peer: true}
	for _, id := range m.comrades(s) {
		member[id] = true
	}
	var known, others []transport.PeerInfo
	for _, p := range heard {
		if member[p.ID] {
			known = append(known, p)
		} else {
			others = append(others, p)
		}
	}
	s.mu.Lock()
	if s.heard == nil { // nothing newer came
		s.heard = others
	}
	s.mu.Unlock()
	if len(known) > 0 {
		m.learn(func(id transport.PeerID) bool { return id != s.peer }, known)
	}
}

func (s *session) hear(peers []transport.PeerInfo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = peers
}

// comrades returns the members of the libraries shared in the session.
func (m *Manager) comrades(s *session) (ids []transport.PeerID) {
	m.mu.Lock()
	var libs []*entry
	for _, p := range s.places {
		if e := m.libs[p.lib.ID]; e != nil && e.lib == p.lib {
			libs = append(libs, e)
		}
	}
	m.mu.Unlock()
	for _, e := range libs {
		ids = append(ids, m.members(e)...)
	}
	return ids
}

// tell writes signs of life, and addresses when they change. It also looks after
// the session's links, since it wakes now and then anyway.
func (m *Manager) tell(s *session) {
	defer s.close()
	tick := time.NewTicker(aliveEvery)
	defer tick.Stop()
	var last []byte
	for {
		m.review(s)
		m.heed(s)
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

// addresses returns the node's own addresses and those of some members of the
// session's libraries: of other members in other sessions, so that all get around.
func (m *Manager) addresses(s *session) []transport.PeerInfo {
	self := m.cfg.Transport.ID()
	ids := m.comrades(s)
	n := 0
	for _, id := range ids {
		if id != self && id != s.peer {
			ids[n] = id
			n++
		}
	}
	out := []transport.PeerInfo{{ID: self, Addrs: m.cfg.Transport.Addrs()}}
	return append(out, m.book.sample(ids[:n], maxAddrPeers-1, s.lot)...)
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
