package session

import (
	"time"

	"github.com/cansync/cansync/transport"
)

// Blame ends every session with a peer that did wrong and leaves it alone for ten
// minutes. It does not block.
//
// The mark comes first: a session that begins meanwhile is among those that end, or
// finds the mark.
func (m *Manager) Blame(id transport.PeerID) {
	m.mu.Lock()
	t := m.tryLocked(id)
	t.failures, t.next, t.blamed = 10, time.Now().Add(blameWait), true
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

// shunnedLocked reports whether the peer broke the protocol lately.
func (m *Manager) shunnedLocked(id transport.PeerID) bool {
	t := m.tries[id]
	return t != nil && t.shunned()
}
