package session

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/transport"
)

// linkWait is how long a library may be shared without the link that replicates it.
const linkWait = 20 * time.Second

// place is a library as it is shared in a session: the link that replicates it and
// the streams on which contents are served. It ends on its own, and the session
// with the last of its places.
type place struct {
	s      *session
	lib    *Library
	entry  *entry
	handle uint16
	grant  capability.Grant // the peer's
	since  time.Time

	ctx    context.Context // ends with the place
	cancel context.CancelFunc
	wg     sync.WaitGroup // added to only while the place is in force
	moved  atomic.Int64   // when contents moved last: nanoseconds after since, and 1

	link *link // guarded by the manager's mutex
}

// ending says why a place ends, which decides when the peer is tried again.
type ending uint8

const (
	endFailed  ending = iota // the link failed, or never came
	endGone                  // the session ended
	endOurs                  // the node wanted it so
	endCrowded               // the peer has no room
)

// register puts the session in force. Where a library is shared with the peer
// already, the newer session takes over: its opener would not have offered the
// library if it still held the older one. It reports false if nothing is shared, or
// the peer was blamed while it said hello.
func (m *Manager) register(s *session, libs map[uint16]shared) bool {
	now := time.Now()
	m.mu.Lock()
	if m.closed || m.shunnedLocked(s.peer) {
		m.mu.Unlock()
		return false
	}
	var idle []*session
	for handle, sh := range libs {
		e := m.libs[sh.lib.ID]
		if e == nil || e.lib != sh.lib {
			continue
		}
		if old := e.links[s.peer]; old != nil {
			old.cancel()
			delete(old.s.places, old.handle)
			if len(old.s.places) == 0 {
				idle = append(idle, old.s)
			}
		} else {
			m.reportLocked(sh.lib.ID, s.peer, true)
		}
		p := &place{s: s, lib: sh.lib, entry: e, handle: handle, grant: sh.grant, since: now}
		p.ctx, p.cancel = context.WithCancel(s.ctx)
		e.links[s.peer], s.places[handle], e.places[p] = p, p, true
		s.all = append(s.all, p)
		if e.rests[s.peer].crowded == 0 {
			delete(e.rests, s.peer)
		}
	}
	ok := len(s.places) > 0
	if ok {
		m.sessions[s] = true
		m.notifyLocked()
	}
	m.mu.Unlock()
	for _, old := range idle {
		old.close()
	}
	m.flush()
	return ok
}

// unregister takes the session out of force.
func (m *Manager) unregister(s *session) {
	for _, p := range s.all {
		m.end(p, endGone)
	}
	m.mu.Lock()
	delete(m.sessions, s)
	m.notifyLocked()
	m.mu.Unlock()
}

// end takes a place out of force; whoever needs to waits for its wg.
func (m *Manager) end(p *place, why ending) {
	p.cancel()
	m.mu.Lock()
	if p.s.places[p.handle] != p {
		m.mu.Unlock()
		return
	}
	delete(p.s.places, p.handle)
	last := len(p.s.places) == 0
	if e := m.libs[p.lib.ID]; e != nil && e.links[p.s.peer] == p {
		delete(e.links, p.s.peer)
		delete(e.visits, p.s.peer)
		e.left(p.s.peer, m.cfg.Now())
		if why == endCrowded {
			e.crowd(p.s.peer, time.Since(p.since))
		}
	}
	m.settleLocked(p, why)
	m.reportLocked(p.lib.ID, p.s.peer, false)
	m.notifyLocked()
	m.mu.Unlock()
	if last {
		p.s.close()
	}
	m.flush()
	m.Poke()
}

// settleLocked draws the conclusions about a peer from the end of a place.
func (m *Manager) settleLocked(p *place, why ending) {
	t := m.tries[p.s.peer]
	switch {
	case p.link != nil && p.link.synced.Load():
		if soon := time.Now().Add(jitter(dialFirst)); t != nil && !t.shunned() {
			t.failures = 0
			if soon.Before(t.next) {
				t.next = soon
			}
		}
	case why == endFailed && !m.shunnedLocked(p.s.peer):
		m.tryLocked(p.s.peer).fail()
	}
}

// review ends the places that never got a link.
func (m *Manager) review(s *session) {
	m.mu.Lock()
	var bare []*place
	for _, p := range s.places {
		if p.link == nil && time.Since(p.since) > linkWait {
			bare = append(bare, p)
		}
	}
	m.mu.Unlock()
	for _, p := range bare {
		s.log.Info("link never opened")
		m.end(p, endFailed)
	}
}

// note is a call of OnPeer to be made.
type note struct {
	lib  [32]byte
	peer transport.PeerID
	up   bool
}

// reportLocked queues a call of OnPeer. Calls are made one at a time, in the order
// of what they tell, by flush.
func (m *Manager) reportLocked(lib [32]byte, peer transport.PeerID, up bool) {
	if m.cfg.OnPeer != nil {
		m.notes = append(m.notes, note{lib, peer, up})
	}
}

func (m *Manager) flush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.telling {
		return // who tells now goes on
	}
	m.telling = true
	for len(m.notes) > 0 {
		n := m.notes[0]
		m.notes = m.notes[1:]
		m.mu.Unlock()
		m.cfg.OnPeer(n.lib, n.peer, n.up)
		m.mu.Lock()
	}
	m.telling = false
}

func (m *Manager) notifyLocked() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// openLink opens and serves the link of a place, as the opener of the session.
func (m *Manager) openLink(p *place) {
	ctx, cancel := context.WithTimeout(p.ctx, attachWait)
	defer cancel()
	st, err := m.attach(ctx, p, protoSync, transport.OpenOptions{})
	if err != nil {
		if p.ctx.Err() == nil {
			p.s.log.Info("link not opened", "error", err)
		}
		m.end(p, endFailed)
		return
	}
	m.runLink(p, st)
}

// onSync serves the link that the opener of a session opened.
func (m *Manager) onSync(st transport.Stream) {
	p, ok := m.attached(st)
	if !ok {
		return
	}
	defer p.wg.Done()
	if p.s.opener { // it is ours to open links
		_ = st.Reset()
		return
	}
	m.runLink(p, st)
}

// runLink serves a link as long as it is in force.
func (m *Manager) runLink(p *place, st transport.Stream) {
	stop := context.AfterFunc(p.ctx, func() { _ = st.Reset() })
	defer stop()
	s := p.s
	l := &link{
		lib: p.lib, peer: s.peer, grant: p.grant, stream: st, opener: s.opener, log: s.log, jitter: jitter, now: m.cfg.Now,
		heard: make(chan struct{}), settled: make(chan struct{}), asks: newAsks(), out: newOutbox(), in: make(chan inbound, readAhead), again: make(chan struct{}, 1), parting: make(chan struct{}, 1),
		mine: make(chan filter.View, 1), own: filter.View{p.lib.Replica.OwnView()}, seen: m.newSeen(),
	}
	l.onRound = func(first bool) {
		if first {
			close(l.settled)
			m.Poke()
		}
		p.lib.OnRound(s.peer)
	}
	m.mu.Lock()
	if s.places[p.handle] != p || p.link != nil {
		m.mu.Unlock()
		_ = st.Reset()
		return
	}
	p.link, l.pace, l.outset = l, newPace(), newOutset()
	if e := m.libs[p.lib.ID]; e != nil {
		l.pace = e.paceLocked(s.peer)
	}
	p.wg.Add(1) // in force, so nobody waits yet
	if e := m.libs[p.lib.ID]; e != nil && e.visits[s.peer] {
		p.wg.Add(1)
		go m.visit(e, p, l)
	}
	m.mu.Unlock()
	defer p.wg.Done()
	l.own = filter.View{p.lib.Replica.OwnView()} // SetView reaches the link from here on
	err := l.run(p.ctx)
	over := p.ctx.Err() != nil
	why := endFailed
	switch {
	case errors.Is(err, errCrowded):
		why = endCrowded
	case errors.Is(err, errParted), errors.Is(err, capability.ErrExpired):
		why = endOurs
	}
	// Whether or not the place is over: the link has reset its stream, and the peer may
	// have ended the session since. And before the end, which lets the dialler look
	// for another.
	if errors.Is(err, errPeer) {
		m.Blame(s.peer)
	}
	m.end(p, why)
	if hush(err) != nil && !over && why != endCrowded && !errors.Is(err, errParted) && !errors.Is(err, context.Canceled) {
		s.log.Warn("link failed", "error", err)
	}
}
