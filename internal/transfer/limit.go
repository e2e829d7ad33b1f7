package transfer

import (
	"context"
	"sync"

	"golang.org/x/time/rate"

	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/transport"
)

// MinRate is the smallest limit in bytes per second: lower ones are raised to it,
// since a peer would take a slower transfer for a stalled one.
const MinRate = 8 << 10

// Limiter holds back traffic by token buckets for the node, for each library and
// for each peer; all that apply must agree. One limiter counts one direction. The
// zero value limits nothing. It is safe for concurrent use, and changes take effect
// within a quarter of a second.
type Limiter struct {
	mu    sync.Mutex
	node  *rate.Limiter
	libs  map[[32]byte]*rate.Limiter
	peers map[transport.PeerID]*rate.Limiter
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
		l.libs = make(map[[32]byte]*rate.Limiter)
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
		l.peers = make(map[transport.PeerID]*rate.Limiter)
	}
	if l.peers[peer] = setRate(l.peers[peer], bytesPerSecond); l.peers[peer] == nil {
		delete(l.peers, peer)
	}
}

// setRate makes a bucket that holds a quarter of a second.
func setRate(b *rate.Limiter, bps int64) *rate.Limiter {
	if bps <= 0 {
		return nil
	}
	bps = max(bps, MinRate)
	burst := int(min(bps/4, 1<<20))
	if b == nil {
		return rate.NewLimiter(rate.Limit(bps), burst)
	}
	b.SetLimit(rate.Limit(bps))
	b.SetBurst(burst)
	return b
}

// buckets returns those that apply.
func (l *Limiter) buckets(lib [32]byte, peer transport.PeerID) (out [3]*rate.Limiter, n int) {
	if l == nil {
		return out, 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range [...]*rate.Limiter{l.node, l.libs[lib], l.peers[peer]} {
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

// wait blocks until n bytes may pass, and calls step about every quarter of a second
// of that.
func (l *Limiter) wait(ctx context.Context, lib [32]byte, peer transport.PeerID, n int, step func()) error {
	for n > 0 {
		bs, k := l.buckets(lib, peer)
		if k == 0 {
			return nil
		}
		part := n
		for _, b := range bs[:k] {
			part = min(part, max(1, b.Burst()))
		}
		for _, b := range bs[:k] {
			if err := take(ctx, b, part); err != nil {
				return err
			}
		}
		if n -= part; step != nil && n > 0 {
			step()
		}
	}
	return nil
}

// take waits for n tokens, or for a full bucket if it has become smaller than that.
func take(ctx context.Context, b *rate.Limiter, n int) error {
	for {
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
}

// piece returns how many bytes to send at once, whole groups, so that each piece
// takes about half a second or a single group.
func (l *Limiter) piece(lib [32]byte, peer transport.PeerID) int {
	n := maxPiece
	bs, k := l.buckets(lib, peer)
	for _, b := range bs[:k] {
		n = min(n, int(b.Limit()/2))
	}
	return max(n/blob.GroupSize*blob.GroupSize, blob.GroupSize)
}
