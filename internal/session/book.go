package session

import (
	"slices"
	"sync"

	"github.com/cansync/cansync/transport"
)

// Bounds of what is remembered of peers.
const (
	maxBook    = 4096
	maxAddrs   = 16
	maxAddrLen = 256
)

// book remembers the addresses under which peers may be reached, the most
// recently learned first.
type book struct {
	mu    sync.Mutex
	addrs map[transport.PeerID][]string
}

func newBook() *book { return &book{addrs: make(map[transport.PeerID][]string)} }

// learn adds addresses and reports whether any was new.
func (b *book) learn(p transport.PeerInfo) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	old, known := b.addrs[p.ID]
	if !known && len(b.addrs) >= maxBook {
		return false
	}
	next := make([]string, 0, maxAddrs)
	fresh := false
	for _, a := range p.Addrs {
		if a == "" || len(a) > maxAddrLen || slices.Contains(next, a) || len(next) == maxAddrs {
			continue
		}
		fresh = fresh || !slices.Contains(old, a)
		next = append(next, a)
	}
	for _, a := range old {
		if len(next) < maxAddrs && !slices.Contains(next, a) {
			next = append(next, a)
		}
	}
	b.addrs[p.ID] = next
	return fresh || !known
}

func (b *book) get(id transport.PeerID) transport.PeerInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	return transport.PeerInfo{ID: id, Addrs: slices.Clone(b.addrs[id])}
}

func (b *book) peers() []transport.PeerInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]transport.PeerInfo, 0, len(b.addrs))
	for id, a := range b.addrs {
		out = append(out, transport.PeerInfo{ID: id, Addrs: slices.Clone(a)})
	}
	return out
}
