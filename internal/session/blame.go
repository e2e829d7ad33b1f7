package session

import "github.com/cansync/cansync/transport"

// Blame ends every session with a peer that did wrong and leaves it alone for ten
// minutes. It does not block.
func (m *Manager) Blame(id transport.PeerID) {
	m.blame(id)
	m.mu.Lock()
	var ends []*session
	for s := range m.sessions {
		if s.peer == id {
			ends = append(ends, s)
		}
	}
	m.mu.Unlock()
	for _, s := range ends {
		s.close()
	}
}
