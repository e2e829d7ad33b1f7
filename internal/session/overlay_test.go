package session_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/overlay"
	"github.com/cansync/cansync/transport/memory"
)

const (
	crowdSize   = 30
	crowdDegree = 3
)

func TestACrowdIsSparseAndHearsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{Link: memory.Link{Latency: 20 * time.Millisecond}})
		nodes := crowd(t, net, crowdSize, crowdDegree)
		defer closeAll(nodes...)
		most := 0
		for range 60 { // while it settles, too
			for _, n := range nodes {
				most = max(most, n.links())
			}
			time.Sleep(10 * time.Second)
			synctest.Wait()
		}
		require.LessOrEqual(t, most, overlay.Limit(crowdDegree))
		sum := 0
		for _, n := range nodes {
			require.Positive(t, n.links())
			require.LessOrEqual(t, n.links(), 2*crowdDegree, "nobody is crowded for long")
			sum += n.links()
		}
		t.Logf("%d links, %d at most at one member", sum/2, most)
		require.LessOrEqual(t, sum, 2*crowdSize*crowdDegree)

		for i, n := range nodes {
			n.say(fmt.Sprint("asset ", i))
		}
		await(t, 5*time.Second, "everybody has everything", func() bool {
			return all(nodes, func(n *node) bool { return n.live() == crowdSize })
		})
		for _, n := range nodes {
			for id, times := range n.counts() {
				require.Equal(t, 1, times, "record %s", id)
			}
		}
	})
}

func TestACalmCrowdIsSilentAndSteady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{Link: memory.Link{Latency: 20 * time.Millisecond}})
		nodes := crowd(t, net, crowdSize, crowdDegree)
		defer closeAll(nodes...)
		for i, n := range nodes {
			n.say(fmt.Sprint("asset ", i))
		}
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		links := 0
		for _, n := range nodes {
			links += n.links()
			n.mu.Lock()
			clear(n.ups)
			n.mu.Unlock()
		}
		links /= 2
		const minutes = 20
		before := net.Total()
		time.Sleep(minutes * time.Minute)
		synctest.Wait()
		bytes := net.Total().Bytes - before.Bytes
		ups := 0
		for _, n := range nodes {
			for _, times := range n.came() {
				ups += times
				require.LessOrEqual(t, times, 2, "a link comes and goes")
			}
		}
		// Signs of life, a reconciliation that finds nothing, and a few links that
		// follow the weights, each of which costs a hello and a full reconciliation.
		t.Logf("%d bytes a minute and link, %d links of %d changed", bytes/uint64(links*minutes), ups/2, links)
		require.LessOrEqual(t, ups/2, links/5, "links do not last")
		require.Less(t, bytes, uint64(links*minutes*400))
	})
}

func TestACrowdHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{Link: memory.Link{Latency: 20 * time.Millisecond}})
		nodes := crowd(t, net, crowdSize, crowdDegree)
		defer closeAll(nodes...)
		time.Sleep(5 * time.Minute)
		gone, left := nodes[:crowdSize/3], nodes[crowdSize/3:]
		net.Partition(ids(gone), ids(left))
		left[0].say("at once")
		gone[0].say("elsewhere")
		await(t, 5*time.Minute, "what was said as they went", func() bool {
			return all(left, func(n *node) bool { return n.live() == 1 })
		})
		time.Sleep(5 * time.Minute)
		left[1].say("later")
		await(t, 5*time.Second, "the others are as quick as ever", func() bool {
			return all(left, func(n *node) bool { return n.live() == 2 })
		})
		for _, n := range left {
			require.LessOrEqual(t, n.links(), overlay.Limit(crowdDegree))
		}
		net.Heal()
		await(t, 15*time.Minute, "all are one again", func() bool {
			return all(nodes, func(n *node) bool { return n.live() == 3 })
		})
	})
}

func TestSmallLibrariesAreFullMeshes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		nodes := crowd(t, net, overlay.DefaultDegree+1, 0)
		defer closeAll(nodes...)
		await(t, 10*time.Minute, "everybody is linked to everybody", func() bool {
			return all(nodes, func(n *node) bool { return n.links() == overlay.DefaultDegree })
		})
	})
}
