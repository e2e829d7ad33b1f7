package session_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
)

// What takes a link many minutes crosses it once: the regular rounds wait for what
// those before them found missing.
func TestSlowLinksCarryRecordsOnce(t *testing.T) {
	const count = 5000
	// sync returns the bytes that crossed the network, and how long it took.
	sync := func(here, there int, slow bool) (bytes int64, took time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			net := memory.NewNetwork(memory.Options{})
			a, b := newNodeFrom(t, net, 0, newSeeded(t, 0)), newNodeFrom(t, net, 0, newSeeded(t, 1))
			a.create("slow")
			b.join(a.invite(capability.InviteOptions{}))
			await(t, time.Minute, "joined", func() bool { return b.links() == 1 && a.links() == 1 })
			net.Partition([]transport.PeerID{a.tr.ID()}, []transport.PeerID{b.tr.ID()})
			for i := range max(here, there) {
				if i < here {
					a.say(fmt.Sprint("a", i))
				}
				if i < there {
					b.say(fmt.Sprint("b", i))
				}
			}
			await(t, time.Minute, "parted", func() bool { return a.links()+b.links() == 0 })
			if slow {
				net.SetLink(a.tr.ID(), b.tr.ID(), memory.Link{Latency: 100 * time.Millisecond, Bandwidth: 5_000})
			}
			before, began := net.Total().Bytes, time.Now()
			net.Heal()
			await(t, 2*time.Hour, "synced", func() bool {
				return a.live() == int64(here+there) && b.live() == int64(here+there)
			})
			took = time.Since(began)
			time.Sleep(5 * time.Minute) // for what is still on its way
			bytes = int64(net.Total().Bytes - before)
			closeAll(a, b)
		})
		return bytes, took
	}
	fast, _ := sync(count, 0, false)
	cases := [][2]int{{0, count}, {count, 20}} // either may open the link
	if testing.Short() {
		cases = cases[:1]
	}
	for _, of := range cases {
		slow, took := sync(of[0], of[1], true)
		t.Logf("%v: %d bytes in %s, %.2f of what crosses a fast link", of, slow, took, float64(slow)/float64(fast))
		require.Greater(t, took, 3*time.Minute, "the link is not slow")
		require.Less(t, float64(slow), 1.05*float64(fast))
	}
}
