package transfer

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/tier"
)

// TestResumeAtRandomOffsets is R-16: all connections break at random offsets of a
// large content, and what was there is not fetched again.
func TestResumeAtRandomOffsets(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		dir, stage := stages(t)
		y := new(tally)
		g := newGroup(t, 3, nodeOptions{client: func(c *ClientConfig) { stage(c); y.count(c) }})
		y.g = g
		g.throttle()
		size := int64(max(8, tier.Of(10, 1024))) << 20
		w := g.holdAll(t, 5, size)
		rng := rand.New(rand.NewPCG(1, 2))
		var offsets []int64
		for range max(10, tier.Of(20, 100)) {
			offsets = append(offsets, 1+rng.Int64N(size-1))
		}
		slices.Sort(offsets)
		planned, breaks, resumed := len(offsets), 0, 0
		var c *Content
		last := int64(0)
		for tries := 0; c == nil; tries++ {
			require.LessOrEqual(t, tries, planned)
			g.met(t, 3)
			begun := int64(-1)
			var err error
			c, err = g.b.client.Large(t.Context(), w, func(done, _ int64) {
				if begun < 0 {
					begun = done
					require.GreaterOrEqual(t, done, last, "nothing that was there is gone")
				}
				last = done
				hit := false
				for len(offsets) > 0 && done >= offsets[0] && done < size {
					offsets, hit = offsets[1:], true
				}
				if hit {
					breaks++
					for _, h := range g.holders {
						g.net.Disconnect(h.tr.ID(), g.b.tr.ID())
					}
				}
			})
			if err != nil {
				require.ErrorIs(t, err, ErrNoPeer)
				require.Equal(t, 1, leftovers(t, dir))
				resumed++
			}
		}
		requireRight(t, w, c)
		require.NoError(t, c.Discard())
		require.Zero(t, leftovers(t, dir))
		wasted := y.total() - size
		t.Logf("%d bytes, %d offsets, %d breaks, %d calls ended by them, %d bytes wasted", size, planned, breaks, resumed, wasted)
		// Some of the offsets fall between two reports of progress.
		require.GreaterOrEqual(t, breaks, planned/2)
		// Each break wastes at most the group under way from each of the sources.
		require.LessOrEqual(t, wasted, int64(breaks*3*blob.GroupSize))
		require.LessOrEqual(t, y.total(), size*105/100)
		require.Zero(t, g.b.liars.Load())
	})
}
