package transfer

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/transport"
)

func TestLimitsHoldOnBothSidesAndChangeAtRunTime(t *testing.T) {
	for _, side := range []string{"sender", "receiver"} {
		inBubble(t, func(t *testing.T) {
			var in Limiter
			a, b, lib := pair(t, nodeOptions{}, nodeOptions{client: func(c *ClientConfig) { c.Limit = &in }})
			l := &in
			if side == "sender" {
				l = &a.limit
			}
			fetch := func(seed uint64, size int) time.Duration {
				w := a.announce(lib, a.hold(random(t, seed, size)))
				begun := time.Now()
				c, err := b.client.Large(t.Context(), w, nil)
				require.NoError(t, err, side)
				require.NoError(t, c.Discard())
				return time.Since(begun)
			}
			const size = 4 << 20
			require.Less(t, fetch(1, size), time.Second)
			l.SetNode(1 << 20)
			require.InDelta(t, 4, fetch(2, size).Seconds(), 0.8, side)
			l.SetLibrary(lib.ID(), 512<<10)
			require.InDelta(t, 8, fetch(3, size).Seconds(), 1.5, side)
			peer := b.tr.ID()
			if side == "receiver" {
				peer = a.tr.ID()
			}
			l.SetNode(0)
			l.SetLibrary(lib.ID(), 0)
			l.SetPeer(peer, 8<<10)
			require.InDelta(t, 60, fetch(4, 480<<10).Seconds(), 12, side)
			for i := range 3 {
				fetch(uint64(10+i), 30_000)
			}
			l.SetPeer(peer, 0)
			require.Less(t, fetch(5, size), time.Second)
			require.Zero(t, b.liars.Load())
		})
	}
}

func TestLimiterThatIsLiftedLetsWaitersGo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var l Limiter
		l.SetNode(1)
		done := make(chan error, 1)
		begun := time.Now()
		go func() { done <- l.wait(t.Context(), [32]byte{}, transport.PeerID{}, flowLarge, 100<<20, nil) }()
		synctest.Wait()
		l.SetNode(0)
		require.NoError(t, <-done)
		require.LessOrEqual(t, time.Since(begun), time.Second)
		l.SetNode(MinRate)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.ErrorIs(t, l.wait(ctx, [32]byte{}, transport.PeerID{}, flowLarge, 100<<20, nil), context.DeadlineExceeded)
		var none *Limiter
		require.NoError(t, none.wait(ctx, [32]byte{}, transport.PeerID{}, flowLarge, 100<<20, nil))
	})
}

// TestTurnstileIsFair: a peer with few requests does not wait for one with many.
func TestTurnstileIsFair(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ts := newTurnstile(4, 3)
		a, b := transport.PeerID{1}, transport.PeerID{2}
		served := make(chan transport.PeerID, 1000)
		ask := func(p transport.PeerID, n int) {
			for range n {
				go func() {
					if ts.enter(t.Context(), p, flowSmall, 1, nil) != nil {
						return
					}
					served <- p
					<-time.After(time.Second)
					ts.leave(p)
				}()
			}
			synctest.Wait()
		}
		ask(a, 100)
		require.Equal(t, 3, len(served)) // its share, though one place is free
		ask(b, 10)
		begun := time.Now()
		for left := 10; left > 0; {
			if <-served == b {
				left--
			}
		}
		require.LessOrEqual(t, time.Since(begun), 6*time.Second)
		<-time.After(2 * time.Minute)
		ts.mu.Lock()
		defer ts.mu.Unlock()
		require.Equal(t, 4, ts.free)
		require.Empty(t, ts.held)
		require.Empty(t, ts.lines)
		require.Empty(t, ts.peers.marks)
	})
}

func TestTurnstileForgetsWhoGaveUp(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ts := newTurnstile(1, 1)
		p := transport.PeerID{1}
		require.NoError(t, ts.enter(t.Context(), p, flowSmall, 1, nil))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- ts.enter(ctx, transport.PeerID{2}, flowLarge, 1, nil) }()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		ts.leave(p)
		require.Empty(t, ts.lines)
		require.NoError(t, ts.enter(t.Context(), p, flowSmall, 1, nil))
		ts.leave(p)
		require.Equal(t, 1, ts.free)
	})
}
