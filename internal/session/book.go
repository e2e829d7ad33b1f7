package session

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/dchest/siphash"
	ds "github.com/ipfs/go-datastore"

	"github.com/cansync/cansync/internal/kv"
	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/transport"
)

// Bounds of what is remembered of peers.
const (
	maxBook    = 16384
	maxMet     = 1024 // of them strangers met on the network, who may be made up
	maxAddrs   = 16
	maxAddrLen = 256
)

// book remembers the addresses under which peers may be reached, the most
// recently learned first. When it is full, some peer makes room for a new one, those
// that were only met first.
type book struct {
	mu    sync.Mutex
	addrs map[transport.PeerID][]string
	met   map[transport.PeerID]bool // of whom nobody told
}

func newBook() *book {
	return &book{addrs: make(map[transport.PeerID][]string), met: make(map[transport.PeerID]bool)}
}

// meet learns of a peer that was met on the network and may be anybody.
func (b *book) meet(p transport.PeerInfo) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.addrs[p.ID]; !known {
		if len(b.met) >= maxMet {
			b.dropMet()
		}
		b.met[p.ID] = true
	}
	return b.learnLocked(p, true)
}

// dropMet forgets one of those that were only met.
func (b *book) dropMet() bool {
	for id := range b.met {
		delete(b.met, id)
		delete(b.addrs, id)
		return true
	}
	return false
}

// learn adds addresses and reports whether any was new. Hearsay is what one peer
// tells of another: it stands behind what is known already and takes half of the
// room at most, so that nobody can make a third one unreachable.
func (b *book) learn(p transport.PeerInfo, hearsay bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.met, p.ID)
	return b.learnLocked(p, hearsay)
}

func (b *book) learnLocked(p transport.PeerInfo, hearsay bool) bool {
	old, known := b.addrs[p.ID]
	if !known && len(b.addrs) >= maxBook && !b.dropMet() {
		for id := range b.addrs {
			delete(b.addrs, id)
			break
		}
	}
	next := make([]string, 0, min(maxAddrs, len(p.Addrs)+len(old)))
	fresh := false
	add := func(addrs []string, limit int) {
		for _, a := range addrs {
			if a == "" || len(a) > maxAddrLen || slices.Contains(next, a) || len(next) >= limit {
				continue
			}
			fresh = fresh || !slices.Contains(old, a)
			next = append(next, a)
		}
	}
	if hearsay {
		add(old, maxAddrs)
		add(p.Addrs, max(len(next), maxAddrs/2))
	} else {
		add(p.Addrs, maxAddrs)
		add(old, maxAddrs)
	}
	b.addrs[p.ID] = next
	return fresh || !known
}

func (b *book) get(id transport.PeerID) transport.PeerInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	return transport.PeerInfo{ID: id, Addrs: slices.Clone(b.addrs[id])}
}

// known reports for each peer whether an address of it is known.
func (b *book) known(ids []transport.PeerID) []bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]bool, len(ids))
	for i, id := range ids {
		out[i] = len(b.addrs[id]) > 0
	}
	return out
}

// sample returns up to n of the peers of which an address is known. Which they are
// depends on the key alone, as long as the peers stay the same.
func (b *book) sample(ids []transport.PeerID, n int, key [2]uint64) []transport.PeerInfo {
	type drawn struct {
		lot uint64
		id  transport.PeerID
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var best []drawn
	for _, id := range ids {
		if len(b.addrs[id]) == 0 {
			continue
		}
		d := drawn{siphash.Hash(key[0], key[1], id[:]), id}
		if len(best) == n {
			if n == 0 || d.lot >= best[n-1].lot {
				continue
			}
			best = best[:n-1]
		}
		i, found := slices.BinarySearchFunc(best, d, func(a, b drawn) int { return cmp.Compare(a.lot, b.lot) })
		if !found {
			best = slices.Insert(best, i, d)
		}
	}
	out := make([]transport.PeerInfo, len(best))
	for i, d := range best {
		out[i] = transport.PeerInfo{ID: d.id, Addrs: slices.Clone(b.addrs[d.id])}
	}
	return out
}

func bookKey(parts ...string) ds.Key { return kv.Key(append([]string{"n", "b"}, parts...)...) }

// saveBook keeps the addresses of a peer over restarts.
func (m *Manager) saveBook(id transport.PeerID) {
	b := encodeAddrs(m.book.get(id).Addrs)
	if err := m.cfg.Store.Put(m.ctx, bookKey(kv.Bin(id[:])), b); err != nil && m.ctx.Err() == nil {
		m.log.Warn("addresses of peer not kept", "peer", id.Short(), "error", err)
	}
}

// loadBook reads what was kept. What there is no room for goes: peers come and go over
// the years, and nothing else bounds what is kept of them.
func (m *Manager) loadBook(ctx context.Context) {
	var over []transport.PeerID
	n := 0
	for e, err := range kv.Scan(ctx, m.cfg.Store, bookKey(), false) {
		if err != nil {
			m.log.Warn("addresses of peers not read", "error", err)
			return
		}
		id, err := kv.Last32(e.Key)
		if err != nil {
			continue
		}
		if n++; n > maxBook {
			over = append(over, id)
			continue
		}
		if addrs, err := decodeAddrs(e.Value); err == nil {
			m.book.learn(transport.PeerInfo{ID: id, Addrs: addrs}, false)
		}
	}
	if err := m.dropRows(ctx, over); err != nil {
		m.log.Warn("addresses of too many peers are kept", "error", err)
	}
}

// Forget forgets the addresses of peers, but of those that are members of a library
// that the manager shares, or named by a ticket that waits. It is for when a library
// was removed for good.
func (m *Manager) Forget(ctx context.Context, peers []transport.PeerID) error {
	m.mu.Lock()
	var libs []*entry
	for _, e := range m.libs {
		libs = append(libs, e)
	}
	keep := make(map[transport.PeerID]bool)
	for _, j := range m.joins {
		for _, p := range j.Ticket.Peers {
			keep[p.ID] = true
		}
	}
	m.mu.Unlock()
	for _, e := range libs {
		for _, id := range m.members(e) {
			keep[id] = true
		}
	}
	var gone []transport.PeerID
	for _, id := range peers {
		if !keep[id] {
			m.book.forget(id)
			gone = append(gone, id)
		}
	}
	return m.dropRows(ctx, gone)
}

func (b *book) forget(id transport.PeerID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.addrs, id)
	delete(b.met, id)
}

// dropRows deletes what is kept of peers, some hundreds at a time.
func (m *Manager) dropRows(ctx context.Context, peers []transport.PeerID) error {
	for part := range slices.Chunk(peers, 512) {
		err := kv.Update(ctx, m.cfg.Store, func(txn ds.Txn) error {
			for _, id := range part {
				if err := txn.Delete(ctx, bookKey(kv.Bin(id[:]))); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func encodeAddrs(addrs []string) []byte {
	b := wire.AppendU16(nil, uint16(len(addrs)))
	for _, a := range addrs {
		b = wire.AppendString(b, a)
	}
	return b
}

func decodeAddrs(b []byte) (addrs []string, err error) {
	rd := wire.NewReader(b)
	for range rd.Count(maxAddrs) {
		addrs = append(addrs, rd.String(maxAddrLen))
	}
	return addrs, rd.End()
}
