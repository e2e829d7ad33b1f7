package session_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/session"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
)

func digest(name string) can.Digest { return sha256.Sum256([]byte(name)) }

// strangerTo returns a node that is not linked to n.
func strangerTo(n *node, nodes []*node) *node {
	up := n.linked()
	for _, o := range nodes {
		if o != n && !up[o.tr.ID()] {
			return o
		}
	}
	return nil
}

// keepSeeking says again and again that the contents are lacking, as a fetcher does.
func keepSeeking(ctx context.Context, n *node, ds ...can.Digest) {
	for ctx.Err() == nil {
		for _, d := range ds {
			n.m.Seek(n.lib.ID(), d)
		}
		select {
		case <-time.After(4 * time.Minute):
		case <-ctx.Done():
		}
	}
}

func TestWhatNoNeighbourHasIsSoughtElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{Link: memory.Link{Latency: 20 * time.Millisecond}})
		nodes := crowd(t, net, 16, crowdDegree)
		defer closeAll(nodes...)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		a := nodes[3]
		author, other := strangerTo(a, nodes), nodes[0]
		author.say("by author")
		author.has[digest("by author")] = true
		time.Sleep(time.Minute)
		// The author is visited first, whatever others there are.
		before, links := hellos(nodes), a.links()
		a.m.Seek(a.lib.ID(), digest("by author"))
		await(t, 20*time.Second, "the author is found", func() bool { return a.found() == 1 })
		require.True(t, a.linked()[author.tr.ID()])
		require.LessOrEqual(t, hellos(nodes)-before, 4+4, "one batch, and a few links that follow the weights")
		await(t, time.Minute, "visitors leave", func() bool { return a.links() <= links+1 })

		// Another than the author holds it: all are asked in the end.
		for _, o := range nodes {
			if up := a.linked(); o != a && o != author && !up[o.tr.ID()] {
				other = o
			}
		}
		other.mu.Lock()
		other.has[digest("by author")] = true
		other.mu.Unlock()
		author.mu.Lock()
		author.has[digest("by author")] = false
		author.mu.Unlock()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { keepSeeking(ctx, a, digest("by author")) })
		await(t, 20*time.Minute, "the other is found", func() bool { return a.found() == 2 })
		require.True(t, a.linked()[other.tr.ID()])
		cancel()
		wg.Wait()
	})
}

func TestACalmCrowdVisitsNobodyAndALackingOneSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{Link: memory.Link{Latency: 20 * time.Millisecond}})
		nodes := crowd(t, net, 16, crowdDegree)
		defer closeAll(nodes...)
		nodes[0].say("nobody has it")
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		ups := func() (sum int) {
			for _, n := range nodes {
				for _, times := range n.came() {
					sum += times
				}
			}
			return sum / 2
		}
		said, up := hellos(nodes), ups()
		const hours = 1
		time.Sleep(hours * time.Hour)
		synctest.Wait()
		calm := hellos(nodes) - said
		t.Logf("calm: %d hellos, %d links came", calm, ups()-up)
		require.LessOrEqual(t, calm, 2*(ups()-up)+4, "hellos are for links that follow the weights")

		// One content that nobody has, sought by all: each asks each a few times.
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for _, n := range nodes {
			wg.Go(func() { keepSeeking(ctx, n, digest("nobody has it")) })
		}
		said = hellos(nodes)
		time.Sleep(hours * time.Hour)
		synctest.Wait()
		sought := hellos(nodes) - said
		t.Logf("lacking: %d hellos, %.1f for each pair", sought, float64(sought)/float64(len(nodes)*(len(nodes)-1)))
		require.Greater(t, sought, len(nodes)*(len(nodes)-1)/2, "they do ask around")
		require.Less(t, sought, 8*len(nodes)*len(nodes), "at 0, 10, 30, 70 minutes")
		said = hellos(nodes)
		time.Sleep(hours * time.Hour)
		synctest.Wait()
		t.Logf("later: %d hellos", hellos(nodes)-said)
		require.Less(t, hellos(nodes)-said, sought*2/3, "and ever more seldom")
		for _, n := range nodes {
			require.Zero(t, n.found())
			require.LessOrEqual(t, n.links(), 3*crowdDegree, "visitors leave")
		}
		cancel()
		wg.Wait()
	})
}

func TestALinkOnWhichContentsMoveIsNotDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const proto = "/test/1"
		net := memory.NewNetwork(memory.Options{Link: memory.Link{Latency: 20 * time.Millisecond}})
		nodes := crowd(t, net, 14, crowdDegree)
		var broken atomic.Int64
		for _, n := range nodes {
			n.m.Serve(proto, func(s session.Served) {
				_, _ = io.Copy(io.Discard, s.Stream)
				_ = s.Stream.Close()
			})
		}
		time.Sleep(5 * time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		streams := 0
		for i, n := range nodes {
			for id := range n.linked() {
				st, err := n.m.Open(t.Context(), n.lib.ID(), id, proto, transport.OpenOptions{Bulk: true})
				require.NoError(t, err)
				if streams++; streams > 12 {
					break
				}
				wg.Go(func() {
					defer func() { _ = st.Reset() }()
					for ctx.Err() == nil {
						if _, err := fmt.Fprint(st, "content"); err != nil {
							broken.Add(1)
							t.Logf("%d to %s: %v", i, id.Short(), err)
							return
						}
						select {
						case <-time.After(20 * time.Second):
						case <-ctx.Done():
						}
					}
				})
			}
		}
		came := make(map[transport.PeerID]int)
		for _, n := range nodes {
			for id, times := range n.came() {
				came[id] += times
			}
		}
		time.Sleep(5 * time.Hour) // longer than all weights last
		synctest.Wait()
		changed := 0
		for _, n := range nodes {
			for id, times := range n.came() {
				changed += times - came[id]
				came[id] = 0
			}
		}
		require.Greater(t, changed, 6, "neighbours do change")
		require.Zero(t, broken.Load())
		cancel()
		wg.Wait()
		closeAll(nodes...)
	})
}
