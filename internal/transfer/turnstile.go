package transfer

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/cansync/cansync/transport"
)

// flow tells apart what a peer is served, or serves, side by side.
type flow uint64

const (
	// flowSmall are all small contents, flowLarge all large ones. A fetcher has a flow
	// above that for each large content.
	flowSmall flow = iota
	flowLarge
)

// turnstile hands out a fixed number of places. Where they are short, peers are given
// equal shares of bytes, whatever number of requests each has; and so are the flows of
// one peer. One peer never holds more places
// than its share, and leaves one for each of the others: one that asks for one thing
// after the other would else always find them taken when it comes back.
type turnstile struct {
	share int

	mu    sync.Mutex
	free  int
	held  map[transport.PeerID]int
	peers fairly[transport.PeerID]
	lines map[transport.PeerID]*line
}

// line is what a peer waits for.
type line struct {
	flows   fairly[flow]
	waiting map[flow][]*ticket
}

type ticket struct {
	flow flow
	cost int
	come chan struct{} // closed when it is its turn
}

func newTurnstile(places, share int) *turnstile {
	return &turnstile{
		share: share, free: places,
		held: make(map[transport.PeerID]int), lines: make(map[transport.PeerID]*line),
	}
}

// enter waits for a place in which about cost bytes are moved; who got one calls
// leave. step, which may be nil, is called every second of waiting.
func (t *turnstile) enter(ctx context.Context, p transport.PeerID, k flow, cost int, step func()) error {
	w := &ticket{flow: k, cost: cost, come: make(chan struct{})}
	t.mu.Lock()
	l := t.lines[p]
	if l == nil {
		l = &line{waiting: make(map[flow][]*ticket)}
		t.lines[p] = l
	}
	t.peers.arrive(p)
	l.flows.arrive(k)
	l.waiting[k] = append(l.waiting[k], w)
	t.admit()
	t.mu.Unlock()
	err := w.wait(ctx, step)
	if err == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-w.come: // it came at the same moment
		t.put(p)
	default:
		t.drop(p, w)
	}
	return err
}

func (w *ticket) wait(ctx context.Context, step func()) error {
	select {
	case <-w.come:
		return nil
	default:
	}
	var beat <-chan time.Time
	if step != nil {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		beat = tick.C
	}
	for {
		select {
		case <-w.come:
			return nil
		case <-beat:
			step()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (t *turnstile) leave(p transport.PeerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.put(p)
}

// charge notes that what passes in a place is more than was said on entering.
func (t *turnstile) charge(p transport.PeerID, k flow, more int) {
	if more <= 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.peers.charge(p, more)
	if l := t.lines[p]; l != nil {
		l.flows.charge(k, more)
	}
}

// waiters returns how many peers wait or hold places.
func (t *turnstile) waiters() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.lines)
}

func (t *turnstile) put(p transport.PeerID) {
	t.free++
	t.held[p]--
	t.tidy(p)
	t.admit()
}

// tidy forgets a peer that neither waits nor holds a place; its debt to the others
// stays, as long as there are others.
func (t *turnstile) tidy(p transport.PeerID) {
	if t.held[p] > 0 {
		return
	}
	delete(t.held, p)
	if l := t.lines[p]; l != nil && len(l.waiting) == 0 {
		delete(t.lines, p)
	}
	if len(t.lines) == 0 {
		t.peers.clear()
	}
}

// admit lets in whom it can.
func (t *turnstile) admit() {
	for t.free > 0 {
		kept := 0
		t.peers.active(func(p transport.PeerID) {
			if t.held[p] == 0 {
				kept++
			}
		})
		p, ok := t.peers.next(func(p transport.PeerID) bool {
			return t.held[p] == 0 || t.held[p] < t.share && t.free > kept
		})
		if !ok {
			return
		}
		l := t.lines[p]
		k, _ := l.flows.next(func(flow) bool { return true })
		w := l.waiting[k][0]
		if l.waiting[k] = l.waiting[k][1:]; len(l.waiting[k]) == 0 {
			delete(l.waiting, k)
		}
		t.peers.serve(p, w.cost)
		l.flows.serve(k, w.cost)
		t.free--
		t.held[p]++
		close(w.come)
	}
}

// drop takes a ticket out of its line.
func (t *turnstile) drop(p transport.PeerID, w *ticket) {
	l := t.lines[p]
	l.waiting[w.flow] = slices.DeleteFunc(l.waiting[w.flow], func(o *ticket) bool { return o == w })
	if len(l.waiting[w.flow]) == 0 {
		delete(l.waiting, w.flow)
	}
	t.peers.leave(p)
	l.flows.leave(w.flow)
	t.tidy(p)
}
