package transfer

import (
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/session"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
)

// servedBy replaces the node's server by one whose stream passes through wrap.
func (n *node) servedBy(wrap func(transport.Stream) transport.Stream) {
	n.m.Serve(session.ProtoBlob, func(sv session.Served) {
		sv.Stream = wrap(sv.Stream)
		n.server.Serve(sv)
	})
}

// liar flips a byte of all content that the server writes.
type liar struct {
	transport.Stream
	lies *atomic.Int64
}

func (l *liar) Write(b []byte) (int, error) {
	if len(b) > 1<<10 && b[4] != frameProof {
		c := append([]byte(nil), b...)
		c[len(c)-1] ^= 1
		l.lies.Add(1)
		return l.Stream.Write(c)
	}
	return l.Stream.Write(b)
}

// staller takes requests and answers nothing.
func (n *node) stalls(count *atomic.Int64) {
	n.m.Serve(session.ProtoBlob, func(sv session.Served) {
		count.Add(1)
		_, _ = io.Copy(io.Discard, sv.Stream)
		_ = sv.Stream.Reset()
	})
}

// breaker resets its stream after a number of bytes.
type breaker struct {
	transport.Stream
	left   int
	broken func()
}

func (b *breaker) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		b.broken()
		_ = b.Stream.Reset()
		return 0, transport.ErrReset
	}
	return b.Stream.Write(p)
}

// group is a library with several holders of a content and one who wants it.
type group struct {
	net     *memory.Network
	holders []*node
	libs    []*library.Library
	b       *node
	lib     *library.Library
}

func newGroup(t *testing.T, holders int, o nodeOptions) *group {
	g := &group{net: memory.NewNetwork(memory.Options{})}
	for i := range holders {
		n := memoryNode(t, g.net, nodeOptions{})
		if i == 0 {
			g.libs = append(g.libs, n.create("photos"))
		} else {
			g.libs = append(g.libs, n.join(g.holders[0], g.libs[0]))
		}
		g.holders = append(g.holders, n)
	}
	g.b = memoryNode(t, g.net, o)
	g.lib = g.b.join(g.holders[0], g.libs[0])
	for _, h := range g.holders {
		g.b.m.Learn(transport.PeerInfo{ID: h.tr.ID(), Addrs: h.tr.Addrs()})
	}
	for _, h := range g.holders {
		g.b.settle(h, g.lib.ID(), func() bool { return true })
	}
	return g
}

// hold gives the content to all holders and announces it.
func (g *group) hold(t *testing.T, data []byte) Want {
	var w Want
	for i, h := range g.holders {
		sum := h.hold(data)
		if i == 0 {
			w = h.announce(g.libs[0], sum)
		}
	}
	for _, l := range g.libs {
		knows(t, l, w)
	}
	return w
}

func TestOnlyBadPeersAreNamedInTheError(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		dir, stage := stages(t)
		g := newGroup(t, 3, nodeOptions{client: stage})
		w := g.hold(t, random(t, 8, 3<<20))
		var lies, stalls atomic.Int64
		g.holders[0].servedBy(func(s transport.Stream) transport.Stream { return &liar{s, &lies} })
		g.holders[1].stalls(&stalls)
		items, err := g.holders[2].inv.ByDigest(t.Context(), w.Asset)
		require.NoError(t, err)
		items[0].Flags |= inventory.Missing
		require.NoError(t, g.holders[2].inv.Put(t.Context(), items[0]))
		_, err = g.b.client.Large(t.Context(), w, nil)
		require.ErrorIs(t, err, ErrNoPeer)
		require.ErrorIs(t, err, ErrWrong)
		require.ErrorIs(t, err, ErrStalled)
		require.ErrorIs(t, err, ErrNotServed)
		var fe *FetchError
		require.ErrorAs(t, err, &fe)
		require.Len(t, fe.Peers, 3)
		require.EqualValues(t, 1, g.b.liars.Load())
		require.Equal(t, 1, leftovers(t, dir)) // for later
	})
}

func TestLyingAboutSmallContents(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGroup(t, 2, nodeOptions{})
		w := g.hold(t, random(t, 9, 5000))
		var lies atomic.Int64
		g.holders[0].servedBy(func(s transport.Stream) transport.Stream { return &liar{s, &lies} })
		for range 4 {
			b, err := g.b.client.Small(t.Context(), w)
			require.NoError(t, err)
			require.Len(t, b, 5000)
		}
		g.holders[1].servedBy(func(s transport.Stream) transport.Stream { return &liar{s, &lies} })
		g.net.Disconnect(g.b.tr.ID(), g.holders[1].tr.ID())
		synctest.Wait()
		await(t, "meet again", func() bool { return len(g.b.m.Peers(g.lib.ID())) == 2 })
		_, err := g.b.client.Small(t.Context(), w)
		require.ErrorIs(t, err, ErrNoPeer)
		require.ErrorIs(t, err, ErrWrong)
		require.GreaterOrEqual(t, g.b.liars.Load(), int64(2))
		require.Positive(t, lies.Load())
	})
}

func TestSilentPeerCostsHalfAMinute(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGroup(t, 1, nodeOptions{})
		w := g.hold(t, random(t, 9, 5000))
		var stalls atomic.Int64
		g.holders[0].stalls(&stalls)
		begun := time.Now()
		_, err := g.b.client.Small(t.Context(), w)
		require.ErrorIs(t, err, ErrStalled)
		require.LessOrEqual(t, time.Since(begun), 31*time.Second)
		require.Positive(t, stalls.Load())
	})
}

func TestNobodyThere(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		dir, stage := stages(t)
		n := memoryNode(t, memory.NewNetwork(memory.Options{}), nodeOptions{client: stage})
		_, err := n.client.Small(t.Context(), Want{Size: 1})
		requireOnlyKind(t, err, ErrNoPeer)
		_, err = n.client.Large(t.Context(), Want{Size: 1 << 20}, nil)
		requireOnlyKind(t, err, ErrNoPeer)
		require.Equal(t, 1, leftovers(t, dir))
		require.NoError(t, n.client.Close())
		_, err = n.client.Small(t.Context(), Want{Size: 1})
		require.ErrorIs(t, err, ErrClosed)
	})
}

func requireOnlyKind(t *testing.T, err, kind error) {
	t.Helper()
	var fe *FetchError
	require.ErrorAs(t, err, &fe)
	require.ErrorIs(t, fe.Kind, kind)
}

func TestLimitedConnectionsCarryNoContent(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{Link: memory.Link{Relayed: true}})
		a, b := memoryNode(t, net, nodeOptions{}), memoryNode(t, net, nodeOptions{})
		lib := a.create("photos")
		b.join(a, lib)
		for _, size := range []int{100, 1 << 20} {
			w := a.announce(lib, a.hold(random(t, 1, size)))
			c, err := b.client.Large(t.Context(), w, nil)
			require.Nil(t, c)
			require.ErrorIs(t, err, transport.ErrLimited)
			require.ErrorIs(t, err, ErrNoPeer)
		}
	})
}

func TestCloseUnblocks(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGroup(t, 1, nodeOptions{})
		var stalls atomic.Int64
		g.holders[0].stalls(&stalls)
		errs := make(chan error, 2)
		go func() { _, err := g.b.client.Small(t.Context(), Want{Library: g.lib.ID(), Size: 1}); errs <- err }()
		go func() {
			_, err := g.b.client.Large(t.Context(), Want{Library: g.lib.ID(), Size: 1 << 20}, nil)
			errs <- err
		}()
		synctest.Wait()
		require.NoError(t, g.b.client.Close())
		require.ErrorIs(t, <-errs, ErrClosed)
		require.ErrorIs(t, <-errs, ErrClosed)
	})
}
