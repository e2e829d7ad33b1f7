package transfer

import (
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/tier"
	"github.com/cansync/cansync/transport"
)

// remains copies a staging directory as it is at this moment into a new one: what a
// process that is killed now leaves to the next. Nothing that the dying process
// still does in order reaches the copy.
func remains(t *testing.T, dir *os.Root) *os.Root {
	to, _ := stages(t)
	d, err := dir.Open(".")
	require.NoError(t, err)
	names, err := d.Readdirnames(-1)
	require.NoError(t, err)
	require.NoError(t, d.Close())
	// The bitmap goes first: the data may be newer than it, never older.
	slices.SortFunc(names, func(a, b string) int {
		return strings.Compare(path.Ext(a), path.Ext(b))
	})
	for _, name := range names {
		in, err := dir.Open(name)
		require.NoError(t, err)
		out, err := to.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
		require.NoError(t, err)
		_, err = io.Copy(out, in)
		require.NoError(t, err)
		require.NoError(t, out.Close())
		require.NoError(t, in.Close())
	}
	return to
}

// TestFetcherKilledTwiceAmongBadSources fetches one large content from three
// holders, one of which lies and one stalls. The client is killed twice, and the
// next one has no more than the files that the dead one had at that moment.
func TestFetcherKilledTwiceAmongBadSources(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		dir, _ := stages(t)
		y := tally{g: newGroup(t, 3, nodeOptions{})}
		g := y.g
		g.throttle()
		size := int64(max(32, tier.Of(64, 1024))) << 20
		w := g.holdAll(t, 11, size)
		var lies, stalls, liars atomic.Int64
		g.holders[0].servedBy(func(s transport.Stream) transport.Stream { return &liar{s, &lies} })
		g.holders[1].stalls(&stalls)
		kills := 0
		var c *Content
		for life := int64(1); c == nil; life++ {
			require.LessOrEqual(t, life, int64(3))
			// A crash loses what came since the last bitmap: the default at 1 GiB.
			cfg := ClientConfig{Network: g.b.m, Stages: dir, SyncBytes: size / 1024, OnLiar: func(p transport.PeerID) {
				liars.Add(1)
				require.Equal(t, g.holders[0].tr.ID(), p)
			}}
			y.count(&cfg)
			client := NewClient(cfg)
			begun, ended := int64(-1), int64(0)
			var left *os.Root
			var err error
			c, err = client.Large(t.Context(), w, func(done, _ int64) {
				if begun < 0 {
					begun = done
				}
				if life < 3 && left == nil && done >= size*life/3 {
					left, ended = remains(t, dir), done
					client.cancel()
					<-client.ctx.Done()
				}
			})
			if life > 1 {
				require.Positive(t, begun, "what was staged is taken up")
			}
			if err != nil {
				require.ErrorIs(t, err, ErrClosed)
				require.Equal(t, 1, leftovers(t, left))
				require.Less(t, ended, size)
				dir = left
				kills++
			}
			require.NoError(t, client.Close())
		}
		require.Equal(t, 2, kills)
		requireRight(t, w, c)
		require.NoError(t, c.Discard())
		d, err := dir.Open(".")
		require.NoError(t, err)
		names, err := d.Readdirnames(-1)
		require.NoError(t, err)
		require.NoError(t, d.Close())
		require.Empty(t, names, "nothing is left behind")
		require.Positive(t, lies.Load())
		require.Positive(t, stalls.Load())
		require.Positive(t, liars.Load())
		twice := y.total() - size
		t.Logf("%d bytes: killed %d times, %d lies, %d stalls, %d bytes (%.2f %%) fetched twice or for nothing",
			size, kills, lies.Load(), stalls.Load(), twice, 100*float64(twice)/float64(size))
		require.LessOrEqual(t, twice, size*5/100)
		require.LessOrEqual(t, y.from[0].Load(), liars.Load()*maxPiece, "a liar is dropped at once")
	})
}
