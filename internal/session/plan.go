package session

import (
	"slices"
	"time"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/overlay"
	"github.com/cansync/cansync/transport"
)

const (
	crowdMost  = time.Hour        // before asking again who has no room
	membersFor = 5 * time.Minute  // how long a list of members is taken for current
	lonelyWait = 20 * time.Second // before asking again who refused a node that never had a link
	maxSeen    = 16384            // peers of a library whose last link is remembered
)

// entry is a library and the links it is replicated on. All but lib is guarded by
// the manager's mutex.
type entry struct {
	lib    *Library
	links  map[transport.PeerID]*place
	places map[*place]bool // those of links, and those that are being wound up
	coming int             // links promised in hellos that are not over
	rests  map[transport.PeerID]rest
	seen   map[transport.PeerID]time.Time // when there was a link last

	paces     map[transport.PeerID]*pace
	seek      seek
	inquiries map[*Inquiry]bool
	visits    map[transport.PeerID]bool // members visited, or on the way to

	members []transport.PeerID
	member  map[transport.PeerID]bool // the same as a set
	fetched time.Time                 // when members were; zero for never
	changes int                       // of the control set
	at      int                       // changes when members were fetched
}

// rest is a time during which a peer is not asked for a link.
type rest struct {
	until   time.Time
	crowded int // how often in a row the peer said that it has no room
}

func newEntry(lib *Library) *entry {
	return &entry{
		lib: lib, links: make(map[transport.PeerID]*place), places: make(map[*place]bool), rests: make(map[transport.PeerID]rest),
		seen: make(map[transport.PeerID]time.Time), paces: make(map[transport.PeerID]*pace), inquiries: make(map[*Inquiry]bool), visits: make(map[transport.PeerID]bool),
	}
}

// left remembers that there was a link until now.
func (e *entry) left(peer transport.PeerID, now time.Time) {
	if len(e.seen) >= maxSeen {
		for id := range e.seen {
			delete(e.seen, id)
			break
		}
	}
	e.seen[peer] = now
}

// crowd leaves a peer that has no room alone, longer each time: it may be crowded
// until the weights have turned. A link that lasted counts as room.
func (e *entry) crowd(peer transport.PeerID, lasted time.Duration) {
	n := e.rests[peer].crowded
	if lasted > crowdMost {
		n = 0
	}
	wait := min(strangerMin<<min(2*n, 10), crowdMost)
	e.rest(peer, jitter(wait), n+1)
}

// rest leaves a peer alone for a while.
func (e *entry) rest(peer transport.PeerID, d time.Duration, crowded int) {
	now := time.Now()
	if len(e.rests) >= maxTries {
		for id, r := range e.rests {
			if len(e.rests) >= maxTries || r.until.Before(now) {
				delete(e.rests, id)
			}
		}
	}
	e.rests[peer] = rest{now.Add(d), crowded}
}

// memberLocked reports whether the peer is known as a member of any library.
func (m *Manager) memberLocked(peer transport.PeerID) bool {
	for _, e := range m.libs {
		if e.member[peer] {
			return true
		}
	}
	return false
}

// members returns the members of a library but the node itself, each once. The
// caller doesn't change the list.
func (m *Manager) members(e *entry) []transport.PeerID {
	now := time.Now()
	m.mu.Lock()
	changes := e.changes
	if !e.fetched.IsZero() && e.at == changes && now.Sub(e.fetched) < membersFor {
		defer m.mu.Unlock()
		return e.members
	}
	m.mu.Unlock()
	ids := e.lib.Members()
	if len(ids) == 0 { // the control set has yet to come
		for _, c := range slices.Concat(e.lib.Bundle.Chain, e.lib.Bundle.Support) {
			if c.Kind == capability.KindMember {
				ids = append(ids, c.Subject)
			}
		}
	}
	self := m.cfg.Transport.ID()
	once := make(map[transport.PeerID]bool, len(ids))
	n := 0
	for _, id := range ids {
		if id != self && !once[id] {
			once[id] = true
			ids[n] = id
			n++
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.at <= changes { // nobody fetched newer ones meanwhile
		e.members, e.member, e.fetched, e.at = ids[:n:n], once, now, changes
	}
	return e.members
}

// view returns a library as the planning sees it.
func (m *Manager) view(e *entry) overlay.View {
	ids := m.members(e)
	known := m.book.known(ids)
	v := overlay.View{
		Self: m.cfg.Transport.ID(), Seed: e.lib.Seed, Degree: m.cfg.Degree, Now: m.cfg.Now(),
		Peers: make([]overlay.Peer, 0, len(ids)+4),
	}
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	linked := 0
	for i, id := range ids {
		p := overlay.Peer{ID: id, Address: known[i], LastSeen: e.seen[id]}
		if t := m.tries[id]; t != nil {
			p.Failures = t.failures
			switch {
			case t.busy:
				p.State = overlay.Dialing
			case t.next.After(now):
				p.State = overlay.Waiting
			}
		}
		if r, ok := e.rests[id]; ok && p.State == overlay.Idle && r.until.After(now) {
			p.State = overlay.Waiting
		}
		if l := e.links[id]; l != nil {
			l.describe(&p)
			p.Busy = p.Busy || e.visits[id]
			linked++
		}
		v.Peers = append(v.Peers, p)
	}
	if linked < len(e.links) { // with members of whom the control set does not say so yet
		listed := make(map[transport.PeerID]bool, linked)
		for _, p := range v.Peers {
			if p.State.Linked() {
				listed[p.ID] = true
			}
		}
		for id, l := range e.links {
			if !listed[id] {
				p := overlay.Peer{ID: id, Address: true}
				l.describe(&p)
				p.Busy = p.Busy || e.visits[id]
				v.Peers = append(v.Peers, p)
			}
		}
	}
	return v
}

// describe fills in what a link is to the planning.
func (p *place) describe(o *overlay.Peer) {
	o.State = overlay.Accepted
	if p.s.opener {
		o.State = overlay.Opened
	}
	o.Settled = p.link != nil && p.link.synced.Load()
	o.Busy = p.busy()
}

// degree returns the degree in force.
func (m *Manager) degree() int {
	if m.cfg.Degree <= 0 {
		return overlay.DefaultDegree
	}
	return min(m.cfg.Degree, overlay.MaxDegree)
}

// room reports whether the node would take a link of the peer. Only a node with
// many links looks closer.
func (m *Manager) room(e *entry, peer transport.PeerID) bool {
	d, limit := m.degree(), overlay.Limit(m.cfg.Degree)
	m.mu.Lock()
	n := e.load(peer)
	m.mu.Unlock()
	switch {
	case n < d+limit/2: // twice the degree and the guests
		return true
	case n >= limit:
		return false
	}
	v := m.view(e)
	return v.Accept(peer)
}

// roomy returns the libraries in which there is room for a link of the peer.
func (m *Manager) roomy(peer transport.PeerID) (libs []*Library) {
	m.mu.Lock()
	entries := make([]*entry, 0, len(m.libs))
	for _, e := range m.libs {
		entries = append(entries, e)
	}
	m.mu.Unlock()
	for _, e := range entries {
		if m.room(e, peer) {
			libs = append(libs, e.lib)
		}
	}
	return libs
}

// load returns how many links there are, or will be soon, beside one with the peer.
func (e *entry) load(peer transport.PeerID) int {
	n := len(e.links) + e.coming
	if e.links[peer] != nil {
		n--
	}
	return n
}

// reserve promises a link to a peer, for the caller to release after the session
// was registered or given up.
func (m *Manager) reserve(lib *Library, peer transport.PeerID) (release func(), ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.libs[lib.ID]
	if e == nil || e.lib != lib || e.load(peer) >= overlay.Limit(m.cfg.Degree) {
		return nil, false
	}
	e.coming++
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		e.coming--
	}, true
}

// want is a peer to greet, and the libraries in which it is a neighbour to be, or to
// be visited.
type want struct {
	id     transport.PeerID
	libs   map[*Library]bool
	visits []*entry
}

// survey plans every library. It ends the links that there are too many of and
// returns the peers to greet now, the best of each library first, and after how long
// to look again.
func (m *Manager) survey(found map[transport.PeerID]bool) (wants []*want, wake time.Duration) {
	m.mu.Lock()
	libs := make([]*entry, 0, len(m.libs))
	for _, e := range m.libs {
		libs = append(libs, e)
	}
	strangers := make(map[transport.PeerID]bool)
	for _, j := range m.joins {
		for _, p := range j.Ticket.Peers {
			strangers[p.ID] = true
		}
	}
	if len(m.joins) > 0 {
		for id := range found {
			strangers[id] = true
		}
	}
	m.mu.Unlock()

	wake = planEvery
	by := make(map[transport.PeerID]*want)
	add := func(id transport.PeerID) *want {
		w := by[id]
		if w == nil {
			w = &want{id: id, libs: make(map[*Library]bool)}
			by[id] = w
			wants = append(wants, w)
		}
		return w
	}
	plans := make([]overlay.Plan, len(libs))
	outings := make([][]transport.PeerID, len(libs))
	for i, e := range libs {
		v := m.view(e)
		plans[i] = v.Plan()
		out, look := m.outing(e)
		outings[i], wake = out, min(wake, look)
		m.mu.Lock()
		for _, id := range plans[i].Drop {
			if p := e.links[id]; p != nil && p.link != nil {
				p.link.part()
			}
		}
		for _, id := range plans[i].Later {
			wake = min(wake, m.dueLocked(id, e))
		}
		for id := range found {
			if e.links[id] == nil && !slices.Contains(e.members, id) {
				strangers[id] = true
			}
		}
		m.mu.Unlock()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(strangers, m.cfg.Transport.ID())
	for id := range strangers {
		if due := m.dueLocked(id, nil); due > 0 {
			wake = min(wake, due)
			continue
		}
		add(id)
	}
	for at, more := 0, true; more; at++ {
		more = false
		for i, e := range libs {
			if at < len(plans[i].Dial) {
				more = true
				add(plans[i].Dial[at]).libs[e.lib] = true
			}
		}
	}
	for i, e := range libs {
		for _, id := range outings[i] {
			w := add(id)
			w.libs[e.lib] = true
			w.visits = append(w.visits, e)
		}
	}
	return wants, wake
}

// dueLocked returns how long to wait before a peer may be greeted, about a library
// if one is given.
func (m *Manager) dueLocked(id transport.PeerID, e *entry) (due time.Duration) {
	if t := m.tries[id]; t != nil {
		if t.busy {
			return planEvery // the attempt's end pokes
		}
		due = time.Until(t.next)
	}
	if e != nil {
		if r, ok := e.rests[id]; ok {
			due = max(due, time.Until(r.until))
		}
	}
	return max(0, due)
}
