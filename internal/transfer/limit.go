package transfer

import (
	"context"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"

	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/transport"
)

// MinRate is the smallest limit in bytes per second: lower ones are raised to it,
// since a peer would take a slower transfer for a stalled one.
const MinRate = 8 << 10

// Limiter holds back traffic by token buckets for the node, for each library and
// for each peer; all that apply must agree. Peers that want all they can get have
// equal shares of a bucket. One limiter counts one direction. The zero value limits
// nothing. It is safe for concurrent use, and changes take effect within a quarter of
// a second.
type Limiter struct {
	mu    sync.Mutex
	node  *bucket
	libs  map[[32]byte]*bucket
	peers map[transport.PeerID]*bucket
}

// bucket is a token bucket at which peers queue in fair order.
type bucket struct {
	*rate.Limiter
	turn   *turnstile
	lifted atomic.Bool // the limit is no more
}

// SetNode limits all traffic together, in bytes per second; 0 lifts the limit.
func (l *Limiter) SetNode(bytesPerSecond int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.node = setRate(l.node, bytesPerSecond)
}

// SetLibrary limits the traffic of a library; 0 lifts the limit.
func (l *Limiter) SetLibrary(lib [32]byte, bytesPerSecond int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.libs == nil {
		l.libs = make(map[[32]byte]*bucket)
	}
	if l.libs[lib] = setRate(l.libs[lib], bytesPerSecond); l.libs[lib] == nil {
		delete(l.libs, lib)
	}
}

// SetPeer limits the traffic with a peer; 0 lifts the limit.
func (l *Limiter) SetPeer(peer transport.PeerID, bytesPerSecond int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.peers == nil {
		l.peers = make(map[transport.PeerID]*bucket)
	}
	if l.peers[peer] = setRate(l.peers[peer], bytesPerSecond); l.peers[peer] == nil {
		delete(l.peers, peer)
	}
}

// setRate makes a bucket that holds a quarter of a second.
func setRate(b *bucket, bps int64) *bucket {
	if bps <= 0 {
		if b != nil {
			b.lifted.Store(true)
		}
		return nil
	}
	bps = max(bps, MinRate)
	burst := int(min(bps/4, 1<<20))
	if b == nil {
		return &bucket{Limiter: rate.NewLimiter(rate.Limit(bps), burst), turn: newTurnstile(1, 1)}
	}
	b.SetLimit(rate.Limit(bps))
	b.SetBurst(burst)
	return b
}

// buckets returns those that apply, the peer's own first: waiting there keeps nobody
// else waiting.
func (l *Limiter) buckets(lib [32]byte, peer transport.PeerID) (out [3]*bucket, n int) {
	if l == nil {
		return out, 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range [...]*bucket{l.peers[peer], l.libs[lib], l.node} {
		if b != nil {
			out[n] = b
			n++
		}
	}
	return out, n
}

// limited reports whether any limit applies.
func (l *Limiter) limited(lib [32]byte, peer transport.PeerID) bool {
	_, n := l.buckets(lib, peer)
	return n > 0
}

// wait blocks until n bytes may pass, and calls step about every second of that.
func (l *Limiter) wait(ctx context.Context, lib [32]byte, peer transport.PeerID, k flow, n int, step func()) error {
	for n > 0 {
		bs, m := l.buckets(lib, peer)
		if m == 0 {
			return nil
		}
		part := n
		for _, b := range bs[:m] {
			part = min(part, b.part())
		}
		for _, b := range bs[:m] {
			if err := b.take(ctx, peer, k, part, step); err != nil {
				return err
			}
		}
		n -= part
	}
	return nil
}

// part returns how much is taken at once: so little that peers with small requests
// come to their share beside those with large ones, and less than the bucket holds.
func (b *bucket) part() int {
	return max(1, min(b.Burst(), max(16<<10, int(b.Limit()/64))))
}

// take waits for n tokens, or for a full bucket if it has become smaller than that.
func (b *bucket) take(ctx context.Context, peer transport.PeerID, k flow, n int, step func()) error {
	if err := b.turn.enter(ctx, peer, k, n, step); err != nil {
		return err
	}
	defer b.turn.leave(peer)
	for !b.lifted.Load() {
		k := min(n, max(1, b.Burst()))
		err := b.WaitN(ctx, k)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case b.Burst() >= k: // it would take longer than ctx allows
			return context.DeadlineExceeded
		}
	}
	return nil
}

// piece returns how many bytes to send at once, whole groups, so that each piece
// takes about half a second, those of others in between included, or a single group.
func (l *Limiter) piece(lib [32]byte, peer transport.PeerID) int {
	n := maxPiece
	bs, k := l.buckets(lib, peer)
	for _, b := range bs[:k] {
		n = min(n, int(b.Limit()/2)/max(1, b.turn.waiters()))
	}
	return max(n/blob.GroupSize*blob.GroupSize, blob.GroupSize)
}
