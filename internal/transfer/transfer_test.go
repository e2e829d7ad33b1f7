package transfer

import (
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/blob"
)

var testSizes = []int{0, 1, blob.GroupSize - 1, blob.GroupSize, blob.GroupSize + 1, SmallLimit - 1, SmallLimit, SmallLimit + 1, 1 << 20, 5<<20 + 3}

func TestContentsArriveWhole(t *testing.T) {
	for _, lacks := range []cantest.Features{0, cantest.FeatureRange} {
		for _, onDisk := range []bool{true, false} {
			t.Run(fmt.Sprintf("lacks=%d,disk=%t", lacks, onDisk), func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					o := nodeOptions{}
					dir, stage := stages(t)
					if onDisk {
						o.client = stage
					}
					a, b, lib := pair(t, nodeOptions{can: cantest.Options{Lacks: lacks}}, o)
					for i, size := range testSizes {
						data := random(t, uint64(i), size)
						sum := a.hold(data)
						w := a.announce(lib, sum)
						if size <= SmallLimit {
							got, err := b.client.Small(t.Context(), w)
							require.NoError(t, err)
							require.True(t, string(data) == string(got))
						} else {
							_, err := b.client.Small(t.Context(), w)
							require.ErrorIs(t, err, ErrTooLarge)
						}
						last := int64(-1)
						c, err := b.client.Large(t.Context(), w, func(done, total int64) {
							require.Greater(t, done, last)
							require.EqualValues(t, size, total)
							last = done
						})
						require.NoError(t, err, size)
						require.EqualValues(t, size, last)
						require.True(t, string(data) == string(readContent(t, c)))
						r, err := c.Outboard()
						require.NoError(t, err)
						tree, err := io.ReadAll(r)
						require.NoError(t, err)
						require.Equal(t, string(sum.Outboard), string(tree))
						_, err = b.client.Large(t.Context(), w, nil)
						require.ErrorIs(t, err, ErrOpen)
						require.NoError(t, c.Discard())
						require.NoError(t, c.Discard())
					}
					require.Zero(t, leftovers(t, dir))
					require.Zero(t, b.liars.Load())
					require.Zero(t, a.rotten.Load())
				})
			})
		}
	}
}
