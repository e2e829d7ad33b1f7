package session

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cansync/cansync/transport"
)

// Timing of the dialler.
const (
	dialWait    = 20 * time.Second
	dialFirst   = time.Second     // before the second attempt
	dialMost    = 5 * time.Minute // between attempts at a member
	strangerMin = 5 * time.Minute // before asking again one who shares nothing or has no room
	blameWait   = 10 * time.Minute
	dialAtOnce  = 8
	planEvery   = 5 * time.Minute        // whatever happens: neighbours change with time
	planSettle  = 100 * time.Millisecond // between two looks at what to do
	hintEvery   = 30 * time.Second       // between attempts at a peer of which others tell new addresses
	maxTries    = 16384
	maxFound    = 256 // peers met on the network that are no known members
)

// try is what came of the attempts at a peer.
type try struct {
	failures int
	refusals int // hellos in a row without anything in common
	next     time.Time
	at       time.Time // of the last attempt
	busy     bool
	hinted   bool // others told of a new address meanwhile
	blamed   bool // the peer broke the protocol
}

// fail counts a failure and waits the longer the more there were.
func (t *try) fail() {
	wait := min(dialFirst<<min(t.failures, 20), dialMost)
	t.failures++
	t.next = time.Now().Add(wait/2 + rand.N(wait/2+1))
}

// tryLocked returns what is remembered of a peer, to be changed.
func (m *Manager) tryLocked(id transport.PeerID) *try {
	t := m.tries[id]
	if t == nil {
		if len(m.tries) >= maxTries {
			for old, t := range m.tries {
				if !t.busy {
					delete(m.tries, old)
					break
				}
			}
		}
		t = new(try)
		m.tries[id] = t
	}
	return t
}

// dial connects to the neighbours to be in every library, and to peers found on the
// network, until the manager is closed.
func (m *Manager) dial(events <-chan transport.Event) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, dialAtOnce)
	found := make(map[transport.PeerID]bool)
	meet := func(p transport.PeerInfo) {
		if !found[p.ID] && len(found) >= maxFound {
			for id := range found { // any of them: strangers must not keep others out
				delete(found, id)
				break
			}
		}
		found[p.ID] = true
		if m.book.meet(p) {
			m.hint(p.ID)
			m.spread()
		}
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last time.Time // of the last look
	for {
		look := false
		select {
		case <-m.ctx.Done():
			return
		case e, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			switch e.Kind {
			case transport.Addresses:
				m.spread()
				continue
			case transport.Found:
				meet(e.Peer)
			case transport.Disconnected:
				delete(found, e.Peer.ID)
			}
		case p := <-m.met:
			meet(p)
		case <-m.poke:
		case <-timer.C:
			look = true
		}
		if !look { // what comes in a burst is looked at once
			timer.Reset(max(0, time.Until(last.Add(planSettle))))
			continue
		}
		wants, wake := m.survey(found)
		last = time.Now()
		for _, w := range wants {
			select {
			case slots <- struct{}{}:
			default: // all busy; the next to end pokes
				continue
			}
			m.begin(w)
			wg.Go(func() {
				m.attempt(w)
				<-slots
				m.Poke()
			})
		}
		timer.Reset(max(wake, planSettle))
	}
}

// meet hands a peer found by a search to the dialler.
func (m *Manager) meet(p transport.PeerInfo) {
	select {
	case m.met <- p:
	case <-m.ctx.Done():
	}
}

func (m *Manager) begin(w *want) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tryLocked(w.id)
	t.busy, t.at, t.hinted = true, time.Now(), false
	m.setOutLocked(w)
}

// attempt tries to share with a peer what is not shared yet.
func (m *Manager) attempt(w *want) {
	ctx, cancel := context.WithTimeout(m.ctx, dialWait)
	defer cancel()
	common, again, err := m.greet(ctx, m.book.get(w.id), w.libs)
	for again && err == nil {
		common, again, err = m.greet(ctx, m.book.get(w.id), w.libs)
	}
	if err != nil && m.ctx.Err() == nil {
		m.log.Debug("peer not reached", "peer", w.id.Short(), "error", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stayedLocked(w)
	t := m.tries[w.id]
	if t == nil || !t.busy { // forgotten meanwhile, since something changed
		return
	}
	t.busy = false
	switch {
	case t.blamed && t.next.After(time.Now()):
	case err != nil && !m.linkedLocked(w.id):
		t.fail()
	case err == nil && !common:
		wait := strangerMin
		if m.lonelyLocked(w.libs) {
			wait = min(lonelyWait<<min(t.refusals, 10), wait)
		}
		t.refusals++
		t.next = time.Now().Add(jitter(wait))
	default:
		// In force now, maybe by the peer's own hello. Should it break, or not cover
		// all, wait a moment.
		t.next, t.refusals, t.blamed = time.Now().Add(jitter(dialFirst)), 0, false
	}
	if t.hinted && !t.shunned() {
		t.hasten()
	}
}

// lonelyLocked reports whether the node never had a link in one of the libraries,
// so that the peers that it knows are all it has.
func (m *Manager) lonelyLocked(libs map[*Library]bool) bool {
	for lib := range libs {
		if e := m.libs[lib.ID]; e != nil && e.lib == lib && len(e.links) == 0 && len(e.seen) == 0 {
			return true
		}
	}
	return false
}

// linkedLocked reports whether any library is shared with the peer.
func (m *Manager) linkedLocked(id transport.PeerID) bool {
	for _, e := range m.libs {
		if e.links[id] != nil {
			return true
		}
	}
	return false
}

// forget makes a peer due at once, since something about it is new. Who broke the
// protocol, or has no room, is left alone all the same.
func (m *Manager) forget(id transport.PeerID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.libs {
		if r, ok := e.rests[id]; ok && r.crowded == 0 {
			delete(e.rests, id)
		}
	}
	// What is under way may use the old address; it finds itself forgotten.
	if t := m.tries[id]; t != nil && !t.shunned() {
		delete(m.tries, id)
	}
}

// hint makes a peer due, since others told of a new address: at once, unless it was
// tried lately. Anybody may tell what is not so, again and again.
func (m *Manager) hint(id transport.PeerID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tries[id]
	if t != nil && (t.shunned() || t.busy) {
		t.hinted = t.busy
		return
	}
	if t != nil {
		t.hasten()
	}
	if t == nil || !t.next.After(time.Now()) {
		for _, e := range m.libs {
			if r, ok := e.rests[id]; ok && r.crowded == 0 {
				delete(e.rests, id)
			}
		}
	}
}

// hasten brings the next attempt forward.
func (t *try) hasten() {
	if soon := t.at.Add(hintEvery); soon.Before(t.next) {
		t.next = soon
	}
}

// shunned reports whether the peer broke the protocol lately.
func (t *try) shunned() bool { return t.blamed && t.next.After(time.Now()) }

// forgetAll makes all peers due at once: whoever had nothing in common with the
// node may have now.
func (m *Manager) forgetAllLocked() {
	for id, t := range m.tries {
		if !t.shunned() {
			delete(m.tries, id)
		}
	}
}
