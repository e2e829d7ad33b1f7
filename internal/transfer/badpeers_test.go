package transfer

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/tier"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
)

// TestOneHonestPeerAmongBadOnesIsEnough is R-17: of five holders one sends wrong
// bytes, one stalls, one is slow and one goes away. Times are virtual.
func TestOneHonestPeerAmongBadOnesIsEnough(t *testing.T) {
	size := int64(max(16, tier.Of(64, 1024))) << 20
	var alone time.Duration
	inBubble(t, func(t *testing.T) {
		_, stage := stages(t)
		g := newGroup(t, 1, nodeOptions{client: stage})
		g.throttle()
		w := g.holdAll(t, 7, size)
		begun := time.Now()
		c, err := g.b.client.Large(t.Context(), w, nil)
		require.NoError(t, err)
		alone = time.Since(begun)
		require.NoError(t, c.Discard())
	})
	inBubble(t, func(t *testing.T) {
		dir, stage := stages(t)
		y := new(tally)
		g := newGroup(t, 5, nodeOptions{client: func(c *ClientConfig) { stage(c); y.count(c) }})
		y.g = g
		w := g.holdAll(t, 7, size)
		var lies, stalls, breaks atomic.Int64
		b := g.b.tr.ID()
		g.throttle()
		g.holders[0].servedBy(func(s transport.Stream) transport.Stream { return &liar{s, &lies} })
		g.holders[1].stalls(&stalls)
		g.net.SetLink(g.holders[2].tr.ID(), b, memory.Link{Bandwidth: 10 << 10, Latency: time.Millisecond})
		g.holders[3].servedBy(func(s transport.Stream) transport.Stream {
			return &breaker{s, 300 << 10, func() {
				breaks.Add(1)
				g.net.SetLink(g.holders[3].tr.ID(), b, memory.Link{Down: true})
			}}
		})
		begun := time.Now()
		c, err := g.b.client.Large(t.Context(), w, nil)
		require.NoError(t, err)
		took := time.Since(begun)
		requireRight(t, w, c)
		require.NoError(t, c.Discard())
		require.Zero(t, leftovers(t, dir))
		require.Positive(t, lies.Load())
		require.Positive(t, stalls.Load())
		require.Positive(t, breaks.Load())
		require.Equal(t, []transport.PeerID{g.holders[0].tr.ID()}, g.b.blamed)
		t.Logf("alone %v, among bad ones %v (%.2f times); received from each: %d %d %d %d %d",
			alone, took, took.Seconds()/alone.Seconds(),
			y.from[0].Load(), y.from[1].Load(), y.from[2].Load(), y.from[3].Load(), y.from[4].Load())
		// Its first bad group is the last of its first frame.
		require.LessOrEqual(t, y.from[0].Load(), int64(maxPiece), "dropped at its first bad group")
		require.LessOrEqual(t, y.total()-y.from[0].Load(), size*105/100)
		require.LessOrEqual(t, took, alone*3/2)
	})
}
