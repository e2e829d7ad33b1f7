package memory

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/cansync/cansync/transport"
)

// maxAdvertised bounds how many keys the network holds advertisements for.
const maxAdvertised = 1 << 16

// Advertise implements [transport.Discovery]. The network itself remembers the
// advertisement, until the ttl ends or the host is closed.
func (h *Host) Advertise(ctx context.Context, key [32]byte, ttl time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n := h.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if h.closed {
		return transport.ErrClosed
	}
	now := time.Now()
	if n.advs[key] == nil {
		if len(n.advs) >= maxAdvertised {
			n.expire(now)
		}
		n.advs[key] = make(map[transport.PeerID]time.Time)
	}
	n.advs[key][h.id] = now.Add(ttl)
	return nil
}

// expire forgets advertisements that have ended. Callers hold n.mu.
func (n *Network) expire(now time.Time) {
	for key, m := range n.advs {
		for id, end := range m {
			if !end.After(now) {
				delete(m, id)
			}
		}
		if len(m) == 0 {
			delete(n.advs, key)
		}
	}
}

// Find implements [transport.Discovery]. It yields the peers that advertise the
// key now and can be reached, in the order of their ids, and ends.
func (h *Host) Find(ctx context.Context, key [32]byte) iter.Seq2[transport.PeerInfo, error] {
	return func(yield func(transport.PeerInfo, error) bool) {
		found, err := h.find(ctx, key)
		if err != nil {
			yield(transport.PeerInfo{}, err)
			return
		}
		for _, p := range found {
			if err := ctx.Err(); err != nil {
				yield(transport.PeerInfo{}, err)
				return
			}
			if !yield(p, nil) {
				return
			}
		}
	}
}

func (h *Host) find(ctx context.Context, key [32]byte) ([]transport.PeerInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n := h.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if h.closed {
		return nil, transport.ErrClosed
	}
	now := time.Now()
	var all []transport.PeerInfo
	for id, end := range n.advs[key] {
		if id != h.id && end.After(now) && n.path(h.id, id) {
			h.remember(id, n.addrs(id))
			all = append(all, n.info(id))
		}
	}
	slices.SortFunc(all, func(a, b transport.PeerInfo) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return all, nil
}
