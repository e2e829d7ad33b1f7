package session

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	ds "github.com/ipfs/go-datastore"

	"github.com/cansync/cansync/internal/kv"
	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/transport"
)

// Timing of the dialler.
const (
	dialWait    = 20 * time.Second
	dialFirst   = time.Second     // before the second attempt
	dialMost    = 5 * time.Minute // between attempts at a member
	strangerMin = 5 * time.Minute // before asking again one who shares nothing
	blameWait   = 10 * time.Minute
	dialAtOnce  = 8
	maxTries    = 8192
	maxFound    = 256 // peers met on the network that are no known members
)

// try is what came of the attempts at a peer.
type try struct {
	failures int
	next     time.Time
	busy     bool
}

// dial connects to members that are not connected, and to peers found on the
// network, until the manager is closed.
func (m *Manager) dial(events <-chan transport.Event) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, dialAtOnce)
	found := make(map[transport.PeerID]bool)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
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
				if len(found) < maxFound {
					found[e.Peer.ID] = true
				}
				if m.book.learn(e.Peer) {
					m.forget(e.Peer.ID)
				}
			case transport.Disconnected:
				delete(found, e.Peer.ID)
			}
		case p := <-m.met:
			if len(found) < maxFound {
				found[p.ID] = true
			}
			if m.book.learn(p) {
				m.forget(p.ID)
			}
		case <-m.poke:
			m.spread()
		case <-timer.C:
		}
		wait := dialMost
		for _, id := range m.wanted(found) {
			due := m.due(id)
			if due > 0 {
				wait = min(wait, due)
				continue
			}
			select {
			case slots <- struct{}{}:
			default: // all busy; the next to end pokes
				continue
			}
			m.begin(id)
			wg.Go(func() {
				m.attempt(id)
				<-slots
				m.Poke()
			})
		}
		timer.Reset(wait)
	}
}

// meet hands a peer found by a search to the dialler.
func (m *Manager) meet(p transport.PeerInfo) {
	select {
	case m.met <- p:
	case <-m.ctx.Done():
	}
}

// wanted returns the peers with whom something should be shared and is not.
func (m *Manager) wanted(found map[transport.PeerID]bool) []transport.PeerID {
	self := m.cfg.Transport.ID()
	m.mu.Lock()
	defer m.mu.Unlock()
	want := make(map[transport.PeerID]bool)
	for _, e := range m.libs {
		for _, id := range e.lib.Members() {
			if e.links[id] == nil {
				want[id] = true
			}
		}
		for id := range found {
			if e.links[id] == nil {
				want[id] = true
			}
		}
	}
	for _, j := range m.joins {
		for _, p := range j.Ticket.Peers {
			want[p.ID] = true
		}
		for id := range found {
			want[id] = true
		}
	}
	delete(want, self)
	out := make([]transport.PeerID, 0, len(want))
	for id := range want {
		out = append(out, id)
	}
	return out
}

// due returns how long to wait before the next attempt at a peer.
func (m *Manager) due(id transport.PeerID) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tries[id]
	switch {
	case t == nil:
		return 0
	case t.busy:
		return dialMost
	}
	return max(0, time.Until(t.next))
}

func (m *Manager) begin(id transport.PeerID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tries[id] == nil {
		if len(m.tries) >= maxTries {
			clear(m.tries)
		}
		m.tries[id] = new(try)
	}
	m.tries[id].busy = true
}

// attempt tries to share with a peer what is not shared yet.
func (m *Manager) attempt(id transport.PeerID) {
	ctx, cancel := context.WithTimeout(m.ctx, dialWait)
	defer cancel()
	common, again, err := m.greet(ctx, m.book.get(id))
	for again && err == nil {
		common, again, err = m.greet(ctx, m.book.get(id))
	}
	if err != nil && m.ctx.Err() == nil {
		m.log.Debug("peer not reached", "peer", id.Short(), "error", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tries[id]
	if t == nil { // forgotten meanwhile, since something changed
		return
	}
	t.busy = false
	switch {
	case err != nil:
		wait := min(dialFirst<<min(t.failures, 20), dialMost)
		t.failures++
		t.next = time.Now().Add(wait/2 + rand.N(wait/2+1))
	case !common:
		t.next = time.Now().Add(jitter(strangerMin))
	default:
		// In force now. Should it break, or not cover all, wait a moment.
		t.failures = 1
		t.next = time.Now().Add(jitter(dialFirst))
	}
}

// forget makes a peer due at once, since something about it is new.
func (m *Manager) forget(id transport.PeerID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.tries[id]; t != nil && t.busy {
		delete(m.tries, id) // what is under way may use the old address
		return
	}
	delete(m.tries, id)
}

// blame leaves a peer that broke the protocol alone for a while.
func (m *Manager) blame(id transport.PeerID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tries[id] = &try{failures: 10, next: time.Now().Add(blameWait)}
}

func bookKey(parts ...string) ds.Key { return kv.Key(append([]string{"n", "b"}, parts...)...) }

// saveBook keeps the addresses of a peer over restarts.
func (m *Manager) saveBook(id transport.PeerID) {
	p := m.book.get(id)
	b := wire.AppendU16(nil, uint16(len(p.Addrs)))
	for _, a := range p.Addrs {
		b = wire.AppendString(b, a)
	}
	if err := m.cfg.Store.Put(m.ctx, bookKey(kv.Bin(id[:])), b); err != nil && m.ctx.Err() == nil {
		m.log.Warn("addresses of peer not kept", "peer", id.Short(), "error", err)
	}
}

func (m *Manager) loadBook(ctx context.Context) {
	for e, err := range kv.Scan(ctx, m.cfg.Store, bookKey(), false) {
		if err != nil {
			m.log.Warn("addresses of peers not read", "error", err)
			return
		}
		id, err := kv.Last32(e.Key)
		if err != nil {
			continue
		}
		rd := wire.NewReader(e.Value)
		p := transport.PeerInfo{ID: id}
		for range rd.Count(maxAddrs) {
			p.Addrs = append(p.Addrs, rd.String(maxAddrLen))
		}
		if rd.End() == nil {
			m.book.learn(p)
		}
	}
}
