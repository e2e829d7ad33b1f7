package session

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/transport"
)

const (
	visitWait = 30 * time.Second // for a visited member to reconcile
	busyFor   = 30 * time.Second // that a link counts as busy after contents moved on it
)

// Seek has the node look for a content that no member has to whom the library is
// linked: after a while, and as long as it is told so again and again, it visits
// other members and asks. When one has it, Library.OnFound is called, and the
// library is shared with that member until no contents moved for 30 seconds. It does
// not block.
func (m *Manager) Seek(lib [32]byte, d can.Digest) {
	m.mu.Lock()
	e := m.libs[lib]
	// With nobody linked it is for the dialler to find somebody.
	fresh := e != nil && len(e.links) > 0 && len(e.members) > len(e.links) && e.seek.want(d, time.Now(), len(e.members), rand.N[time.Duration])
	m.mu.Unlock()
	if fresh {
		m.Poke()
	}
}

// outing returns the members to visit now, and after how long to look again.
func (m *Manager) outing(e *entry) (ids []transport.PeerID, wait time.Duration) {
	wait = planEvery
	now := time.Now()
	m.mu.Lock()
	idle := len(e.seek.wants) == 0 && len(e.inquiries) == 0
	m.mu.Unlock()
	if idle {
		return nil, wait
	}
	author, want, due := m.errand(e, now)
	members := m.members(e)
	known := m.book.known(members)
	m.mu.Lock()
	defer m.mu.Unlock()
	room := seekBatch - len(e.visits)
	take := func(ok func(transport.PeerID) bool) {
		if room > 0 && !author.IsZero() && ok(author) && m.freeLocked(e, author, now) {
			ids, room = append(ids, author), room-1
		}
		for _, address := range []bool{true, false} { // those without one may still be found
			for _, i := range rand.Perm(len(members)) {
				if room <= 0 {
					return
				}
				if id := members[i]; known[i] == address && id != author && ok(id) && m.freeLocked(e, id, now) {
					ids, room = append(ids, id), room-1
				}
			}
		}
	}
	if due && room > 0 {
		take(func(id transport.PeerID) bool { return e.seek.may(id, want.since, now) })
		e.seek.batch(now, len(members))
	}
	for q := range e.inquiries {
		if q.due(now) && room > 0 {
			take(func(id transport.PeerID) bool { return q.may(id, now) && !contains(ids, id) })
			q.batch(now)
		}
	}
	if room <= 0 {
		return ids, wait // the end of a visit pokes
	}
	if _, w, ok := e.seek.first(now); ok {
		wait = min(wait, max(w.next.Sub(now), time.Second))
	}
	for q := range e.inquiries {
		if q.reach {
			wait = min(wait, max(q.next.Sub(now), time.Second))
		}
	}
	return ids, wait
}

func contains(ids []transport.PeerID, id transport.PeerID) bool {
	for i := range ids {
		if ids[i] == id {
			return true
		}
	}
	return false
}

// errand returns the content for which a visit is due and who announced it. What is
// no longer in the library is not sought any more.
func (m *Manager) errand(e *entry, now time.Time) (author transport.PeerID, want sought, due bool) {
	for {
		m.mu.Lock()
		d, w, ok := e.seek.first(now)
		m.mu.Unlock()
		if !ok || w.next.After(now) {
			return author, want, false
		}
		if e.lib.Author == nil {
			return author, w, true
		}
		if id, in, err := e.lib.Author(m.ctx, d); err != nil || in {
			return id, w, true
		}
		m.mu.Lock()
		e.seek.drop(d)
		m.mu.Unlock()
	}
}

// freeLocked reports whether a member may be visited: it has no link, and no attempt
// at it is under way or was in vain lately. That it had no room for a neighbour does
// not matter: a visitor soon goes.
func (m *Manager) freeLocked(e *entry, id transport.PeerID, now time.Time) bool {
	if id == m.cfg.Transport.ID() || e.links[id] != nil || e.visits[id] {
		return false
	}
	t := m.tries[id]
	return t == nil || !t.busy && !t.next.After(now)
}

// setOutLocked takes note that the visits of an attempt begin.
func (m *Manager) setOutLocked(w *want) {
	now := time.Now()
	for _, e := range w.visits {
		if e.links[w.id] != nil {
			continue // the member was quicker; who is linked is asked anyway
		}
		e.visits[w.id] = true
		for q := range e.inquiries {
			q.asked[w.id] = now
		}
	}
}

// stayedLocked ends the visits of which no link came.
func (m *Manager) stayedLocked(w *want) {
	for _, e := range w.visits {
		if e.links[w.id] == nil {
			delete(e.visits, w.id)
		}
	}
}

// visit asks a member for what the node came for, stays while contents move, and
// leaves again, unless the member turned out a neighbour to be.
func (m *Manager) visit(e *entry, p *place, l *link) {
	defer p.wg.Done()
	found := m.ask(e, p, l)
	m.mu.Lock()
	e.seek.went(p.s.peer, time.Now(), false) // until contents have moved
	m.mu.Unlock()
	if found && e.lib.OnFound != nil {
		e.lib.OnFound()
	}
	rest := time.Duration(0)
	if found {
		rest = busyFor // for contents to begin to move
	}
	for rest = max(rest, p.busyUntil()); rest > 0 && p.ctx.Err() == nil; rest = p.busyUntil() {
		timer := time.NewTimer(rest)
		select {
		case <-timer.C:
		case <-p.ctx.Done():
		}
		timer.Stop()
	}
	v := m.view(e)
	near := v.Near(p.s.peer)
	m.mu.Lock()
	delete(e.visits, p.s.peer)
	if p.moved.Load() > 0 {
		e.seek.went(p.s.peer, time.Now(), true)
	}
	m.mu.Unlock()
	if near {
		m.Poke() // there is room for another visit
	} else {
		m.end(p, endOurs)
	}
}

// ask asks a visited member what it holds of what is sought and inquired about. It
// reports whether it has something that is sought.
func (m *Manager) ask(e *entry, p *place, l *link) (found bool) {
	ctx, cancel := context.WithTimeout(p.ctx, visitWait)
	defer cancel()
	select {
	case <-l.settled:
	case <-ctx.Done():
		return false
	}
	m.mu.Lock()
	ds := e.seek.all()
	inquiries := make([]*Inquiry, 0, len(e.inquiries))
	for q := range e.inquiries {
		inquiries = append(inquiries, q)
	}
	m.mu.Unlock()
	have, _ := l.ask(ctx, ds)
	m.mu.Lock()
	for i, d := range ds {
		if have[i] == saidYes { // should it not come, it is told of again
			found = true
			e.seek.drop(d)
		}
	}
	m.mu.Unlock()
	for _, q := range inquiries {
		q.visit(p)
	}
	return found
}

// moving takes note that contents move.
func (p *place) moving() { p.moved.Store(int64(time.Since(p.since)) + 1) }

// busy reports whether contents moved lately.
func (p *place) busy() bool { return p.busyUntil() > 0 }

// busyUntil returns for how long the link still counts as busy if nothing more moves.
func (p *place) busyUntil() time.Duration {
	at := p.moved.Load()
	if at == 0 {
		return 0
	}
	return max(0, time.Duration(at)+busyFor-time.Since(p.since))
}
