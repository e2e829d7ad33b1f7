package transfer

import (
	"context"
	"slices"
	"sync"

	"github.com/cansync/cansync/transport"
)

// turnstile hands out a fixed number of places, to waiting peers in turn, whatever
// number of requests each has. One peer never holds more than its share.
type turnstile struct {
	share int

	mu    sync.Mutex
	free  int
	held  map[transport.PeerID]int
	queue map[transport.PeerID][]chan struct{}
	ring  []transport.PeerID // those with a queue, next first
}

func newTurnstile(places, share int) *turnstile {
	return &turnstile{
		share: share, free: places,
		held: make(map[transport.PeerID]int), queue: make(map[transport.PeerID][]chan struct{}),
	}
}

// enter waits for a place; who got one calls leave.
func (t *turnstile) enter(ctx context.Context, p transport.PeerID) error {
	ch := make(chan struct{})
	t.mu.Lock()
	if len(t.queue[p]) == 0 {
		t.ring = append(t.ring, p)
	}
	t.queue[p] = append(t.queue[p], ch)
	t.admit()
	t.mu.Unlock()
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-ch: // it came at the same moment
		t.put(p)
	default:
		t.drop(p, ch)
	}
	return ctx.Err()
}

func (t *turnstile) leave(p transport.PeerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.put(p)
}

func (t *turnstile) put(p transport.PeerID) {
	t.free++
	if t.held[p]--; t.held[p] == 0 {
		delete(t.held, p)
	}
	t.admit()
}

// admit lets in whom it can.
func (t *turnstile) admit() {
	for i := 0; t.free > 0 && i < len(t.ring); {
		p := t.ring[i]
		if t.held[p] >= t.share {
			i++
			continue
		}
		ch := t.queue[p][0]
		t.free--
		t.held[p]++
		close(ch)
		t.ring = slices.Delete(t.ring, i, i+1)
		if t.queue[p] = t.queue[p][1:]; len(t.queue[p]) == 0 {
			delete(t.queue, p)
		} else {
			t.ring = append(t.ring, p)
		}
	}
}

func (t *turnstile) drop(p transport.PeerID, ch chan struct{}) {
	q := slices.DeleteFunc(t.queue[p], func(c chan struct{}) bool { return c == ch })
	if t.queue[p] = q; len(q) == 0 {
		delete(t.queue, p)
		t.ring = slices.DeleteFunc(t.ring, func(o transport.PeerID) bool { return o == p })
	}
}
