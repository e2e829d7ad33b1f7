package transfer

import (
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
)

// generated is a content that is made while it is read, so that large ones take no
// memory.
func generated(seed uint64, size int64) func() io.ReadSeeker {
	return func() io.ReadSeeker { return cantest.Generated(seed, size) }
}

// holdAll gives a generated content to all holders and announces it.
func (g *group) holdAll(t *testing.T, seed uint64, size int64) Want {
	h := blob.NewHasher(size)
	_, err := io.Copy(h, cantest.Generated(seed, size))
	require.NoError(t, err)
	sum, err := h.Finish()
	require.NoError(t, err)
	var w Want
	for i, n := range g.holders {
		n.know(n.can.AddFunc(generated(seed, size), can.Metadata{}, 0), sum)
		if i == 0 {
			w = n.announce(g.libs[0], sum)
		}
	}
	for _, l := range g.libs {
		knows(t, l, w)
	}
	return w
}

// requireRight reads a staged content and holds it against its digest.
func requireRight(t *testing.T, w Want, c *Content) {
	t.Helper()
	r, err := c.Open()
	require.NoError(t, err)
	d, n, err := cantest.DigestOf(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.EqualValues(t, w.Size, n)
	require.Equal(t, w.Asset, d)
}

// tally counts the content bytes that came from each holder.
type tally struct {
	g    *group
	from [8]atomic.Int64
}

func (y *tally) count(c *ClientConfig) {
	c.OnReceived = func(_ [32]byte, p transport.PeerID, n int) {
		for i, h := range y.g.holders {
			if h.tr.ID() == p {
				y.from[i].Add(int64(n))
			}
		}
	}
}

func (y *tally) total() (n int64) {
	for i := range y.from {
		n += y.from[i].Load()
	}
	return n
}

// bandwidth is that of a good holder in these tests, in bytes per second.
const bandwidth = 8 << 20

// throttle gives each holder a link of its own to the one that fetches.
func (g *group) throttle() {
	for _, h := range g.holders {
		g.net.SetLink(h.tr.ID(), g.b.tr.ID(), memory.Link{Bandwidth: bandwidth, Latency: time.Millisecond})
	}
}

// met waits until all holders are connected.
func (g *group) met(t *testing.T, n int) {
	t.Helper()
	await(t, "meet again", func() bool { return len(g.b.m.Peers(g.lib.ID())) == n })
}
