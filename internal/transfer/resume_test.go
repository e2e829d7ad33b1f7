package transfer

import (
	"bytes"
	"os"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
)

// TestResumeInANewProcess: the first client is gone, the second takes up its stage.
func TestResumeInANewProcess(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		dir, stage := stages(t)
		var received atomic.Int64
		count := func(c *ClientConfig) {
			c.OnReceived = func(_ [32]byte, _ transport.PeerID, n int) { received.Add(int64(n)) }
		}
		a, b, lib := pair(t, nodeOptions{}, nodeOptions{client: func(c *ClientConfig) { stage(c); count(c) }})
		size := 6 << 20
		data := random(t, 6, size)
		w := a.announce(lib, a.hold(data))
		first := b.client
		_, err := first.Large(t.Context(), w, func(done, _ int64) {
			if done > int64(size/2) {
				go func() { _ = first.Close() }()
				<-first.ctx.Done()
			}
		})
		require.ErrorIs(t, err, ErrClosed)
		cfg := ClientConfig{Network: b.m, Stages: dir}
		count(&cfg)
		second := NewClient(cfg)
		defer func() { require.NoError(t, second.Close()) }()
		begun := int64(-1)
		c, err := second.Large(t.Context(), w, func(done, _ int64) {
			if begun < 0 {
				begun = done
			}
		})
		require.NoError(t, err)
		require.Greater(t, begun, int64(size/2))
		require.True(t, string(data) == string(readContent(t, c)))
		require.LessOrEqual(t, received.Load(), int64(size)*105/100)
		// Closed and not discarded: it is found again without a peer.
		require.NoError(t, c.Close())
		a.close()
		c, err = second.Large(t.Context(), w, nil)
		require.NoError(t, err)
		require.NoError(t, c.Discard())
		require.Zero(t, leftovers(t, dir))
	})
}

func TestPeersThatJoinMidwayAreUsed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var from [2]atomic.Int64
		var g *group
		g = newGroup(t, 2, nodeOptions{client: func(c *ClientConfig) {
			c.OnReceived = func(_ [32]byte, p transport.PeerID, n int) {
				for i, h := range g.holders {
					if h.tr.ID() == p {
						from[i].Add(int64(n))
					}
				}
			}
		}})
		b := g.b.tr.ID()
		w := g.hold(t, random(t, 3, 8<<20))
		g.net.SetLink(g.holders[0].tr.ID(), b, memory.Link{Bandwidth: 1 << 20})
		g.net.SetLink(g.holders[1].tr.ID(), b, memory.Link{Down: true})
		await(t, "one left", func() bool { return len(g.b.m.Peers(g.lib.ID())) == 1 })
		up := false
		c, err := g.b.client.Large(t.Context(), w, func(done, _ int64) {
			if done > 1<<20 && !up {
				up = true
				g.net.SetLink(g.holders[1].tr.ID(), b, memory.Link{Bandwidth: 1 << 20})
				g.b.m.Poke()
			}
		})
		require.NoError(t, err)
		require.NoError(t, c.Discard())
		require.Greater(t, from[1].Load(), int64(1<<20))
	})
}

// TestServiceWithoutRangesIsReadForward: many runs cost few readings.
func TestServiceWithoutRangesIsReadForward(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		_, stage := stages(t)
		a, b, lib := pair(t, nodeOptions{can: cantest.Options{Lacks: cantest.FeatureRange}}, nodeOptions{client: stage})
		sum := a.hold(random(t, 4, 10<<20))
		w := a.announce(lib, sum)
		c, err := b.client.Large(t.Context(), w, nil)
		require.NoError(t, err)
		require.NoError(t, c.Discard())
		// One for the last groups, which come first, and one from the start.
		require.LessOrEqual(t, a.can.Calls()[cantest.RouteAsset], 2)
	})
}

func TestMissingTreeIsMadeAnew(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b, lib := pair(t, nodeOptions{}, nodeOptions{})
		data := random(t, 4, 3<<20)
		sum := a.hold(data)
		w := a.announce(lib, sum)
		for _, tree := range [][]byte{nil, make([]byte, len(sum.Outboard)), sum.Outboard[:640]} {
			a.server.trees = newTrees(a.inv, a.can, 1)
			require.NoError(t, a.inv.DropOutboard(t.Context(), sum.Digest))
			require.NoError(t, a.inv.PutOutboard(t.Context(), sum.Digest, bytes.NewReader(tree)))
			c, err := b.client.Large(t.Context(), w, nil)
			require.NoError(t, err)
			require.NoError(t, c.Discard())
			require.Equal(t, sum.Outboard, a.outboard(sum.Digest))
		}
		require.Zero(t, a.rotten.Load())
		// The content itself has changed: the tree can't be made.
		a.server.trees = newTrees(a.inv, a.can, 1)
		require.NoError(t, a.inv.DropOutboard(t.Context(), sum.Digest))
		data[1<<20] ^= 1
		items, err := a.inv.ByDigest(t.Context(), sum.Digest)
		require.NoError(t, err)
		require.True(t, a.can.Corrupt(items[0].Handle, data))
		_, err = b.client.Large(t.Context(), w, nil)
		require.ErrorIs(t, err, ErrUnavailable)
		require.Positive(t, a.rotten.Load())
	})
}

func TestContentsInMemoryMakeWay(t *testing.T) {
	m := newRAM(100 << 10)
	key := func(i byte) blob.StageKey { return blob.StageKey{Library: [32]byte{i}} }
	a, err := m.open(key(1), [32]byte{1}, 60<<10)
	require.NoError(t, err)
	_, err = m.open(key(2), [32]byte{1}, 60<<10)
	require.ErrorIs(t, err, ErrNoSpace)
	_, err = m.open(key(2), [32]byte{1}, 1<<40)
	require.ErrorIs(t, err, ErrNoSpace)
	a.fill(make([]byte, 60<<10))
	require.NoError(t, a.close())
	again, err := m.open(key(1), [32]byte{1}, 60<<10)
	require.NoError(t, err)
	require.True(t, again.have().Full())
	require.NoError(t, again.close())
	other, err := m.open(key(1), [32]byte{2}, 60<<10) // another record
	require.NoError(t, err)
	require.False(t, other.have().Full())
	require.NoError(t, other.close())
	b, err := m.open(key(2), [32]byte{1}, 60<<10)
	require.NoError(t, err)
	require.NoError(t, b.remove())
	require.Zero(t, m.used)
	require.Empty(t, m.sinks)
	require.Empty(t, m.idle)
}

func TestAnotherRecordsStageMakesWay(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		dir, stage := stages(t)
		a, b, lib := pair(t, nodeOptions{}, nodeOptions{client: stage})
		sum := a.hold(random(t, 4, 1<<20))
		w := a.announce(lib, sum)
		lie := w
		lie.Root[0] ^= 1
		_, err := b.client.Large(t.Context(), lie, nil)
		require.ErrorIs(t, err, ErrConflict)
		require.Equal(t, 1, leftovers(t, dir))
		c, err := b.client.Large(t.Context(), w, nil)
		require.NoError(t, err)
		require.NoError(t, c.Discard())
	})
}

func TestStageDirectoryThatIsGone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		dir, err := os.OpenRoot(t.TempDir())
		require.NoError(t, err)
		a, b, lib := pair(t, nodeOptions{}, nodeOptions{client: func(c *ClientConfig) { c.Stages = dir }})
		require.NoError(t, dir.Close())
		w := a.announce(lib, a.hold(random(t, 4, 1<<20)))
		_, err = b.client.Large(t.Context(), w, nil)
		require.ErrorIs(t, err, os.ErrClosed)
	})
}
