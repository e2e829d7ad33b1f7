package transfer

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
)

// counted adds up what a server sent, by peer.
type counted struct {
	mu   sync.Mutex
	sent map[transport.PeerID]int
}

func (c *counted) add(_ [32]byte, p transport.PeerID, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sent == nil {
		c.sent = make(map[transport.PeerID]int)
	}
	c.sent[p] += n
}

func (c *counted) take() map[transport.PeerID]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.sent
	c.sent = nil
	return all
}

// slowService reads each content at a rate of bytes per second, so that those who
// read at once share what it gives.
type slowService struct {
	can.Opener
	rate int
}

func (s slowService) Open(ctx context.Context, handle string, offset, n int64) (io.ReadCloser, error) {
	rc, err := s.Opener.Open(ctx, handle, offset, n)
	return slowBody{rc, s.rate}, err
}

type slowBody struct {
	io.ReadCloser
	rate int
}

func (b slowBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	<-time.After(time.Duration(n) * time.Second / time.Duration(b.rate))
	return n, err
}

// asking is how a peer keeps a server busy.
type asking struct {
	large, small int // how many contents it fetches at once
	smallSize    int
}

// fetchForever keeps a node fetching the same contents again and again, and counts
// the bytes of the small ones.
func (n *node) fetchForever(ctx context.Context, wg *sync.WaitGroup, a asking, large, small []Want) *atomic.Int64 {
	smalls := new(atomic.Int64)
	for i := range a.large {
		wg.Go(func() {
			for ctx.Err() == nil {
				c, err := n.client.Large(ctx, large[i], nil)
				if err == nil {
					err = c.Discard()
				}
				n.settled(ctx, err)
			}
		})
	}
	for i := range a.small {
		wg.Go(func() {
			for ctx.Err() == nil {
				b, err := n.client.Small(ctx, small[i%len(small)])
				n.settled(ctx, err)
				smalls.Add(int64(len(b)))
			}
		})
	}
	return smalls
}

// settled holds a fetch to have worked, unless the test is over; the sessions of a
// node that just joined may be renewed once.
func (n *node) settled(ctx context.Context, err error) {
	var none *FetchError
	switch {
	case ctx.Err() != nil:
	case errors.As(err, &none) && len(none.Peers) == 0:
		<-time.After(100 * time.Millisecond)
	default:
		assert.NoError(n.t, err)
	}
}

// What a peer is given does not depend on how many streams it has, on how many
// contents it asks for at once, or on their sizes: those who want all they can get
// are given the same number of bytes.
func TestPeersHaveEqualShares(t *testing.T) {
	const rate = 512 << 10
	for name, peers := range map[string][]asking{
		"many large against one":      {{large: 4}, {large: 1}},
		"large against small":         {{large: 4}, {small: 8, smallSize: 20_000}},
		"large against tiny":          {{large: 4}, {small: 64, smallSize: 1000}},
		"small against one large":     {{small: 200, smallSize: 60_000}, {large: 1}},
		"everything against one each": {{large: 4, small: 100, smallSize: 30_000}, {large: 1}, {small: 8, smallSize: 60_000}},
	} {
		for _, narrow := range []string{"upload limit", "slow service"} {
			t.Run(name+", "+narrow, func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					var sent counted
					net := memory.NewNetwork(memory.Options{})
					a := memoryNode(t, net, nodeOptions{server: func(c *ServerConfig) {
						c.OnSent = sent.add
						if narrow == "slow service" {
							c.MaxReads = len(peers)
							c.Service = slowService{c.Service, rate / c.MaxReads}
						}
					}})
					if narrow == "upload limit" {
						a.limit.SetNode(rate)
					}
					lib := a.create("photos")
					var large []Want
					for i := range 4 {
						large = append(large, a.announce(lib, a.hold(random(t, uint64(i), 2<<20))))
					}
					ctx, stop := context.WithCancel(t.Context())
					var wg sync.WaitGroup
					defer wg.Wait()
					defer stop()
					for i, how := range peers {
						p := memoryNode(t, net, nodeOptions{})
						plib := p.join(a, lib)
						var small []Want
						for j := range min(how.small, 8) {
							small = append(small, a.announce(lib, a.hold(random(t, uint64(100+10*i+j), how.smallSize))))
						}
						knows(t, plib, append(small, large...)...)
						p.fetchForever(ctx, &wg, how, large, small)
					}
					<-time.After(5 * time.Second)
					sent.take()
					<-time.After(20 * time.Second)
					got := sent.take()
					require.Len(t, got, len(peers))
					total := 0
					for _, n := range got {
						total += n
					}
					require.InEpsilon(t, 20*rate, total, 0.1, "the narrow place is used")
					for p, n := range got {
						require.InEpsilon(t, total/len(peers), n, 0.2, "%s: %v", p.Short(), got)
					}
				})
			})
		}
	}
}

// Neither the small nor the large contents that a peer asks for keep the others
// waiting.
func TestSmallAndLargeContentsOfAPeerHaveEqualShares(t *testing.T) {
	const rate = 512 << 10
	for _, how := range []asking{{large: 4, small: 8, smallSize: 20_000}, {large: 1, small: 500, smallSize: 60_000}} {
		inBubble(t, func(t *testing.T) {
			var sent counted
			a, b, lib := pair(t, nodeOptions{server: func(c *ServerConfig) { c.OnSent = sent.add }}, nodeOptions{})
			a.limit.SetNode(rate)
			var large, small []Want
			for i := range how.large {
				large = append(large, a.announce(lib, a.hold(random(t, uint64(i), 2<<20))))
			}
			for i := range 8 {
				small = append(small, a.announce(lib, a.hold(random(t, uint64(100+i), how.smallSize))))
			}
			blib, _ := b.library(lib.ID())
			knows(t, blib, append(small, large...)...)
			ctx, stop := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer stop()
			smalls := b.fetchForever(ctx, &wg, how, large, small)
			<-time.After(5 * time.Second)
			sent.take()
			before := smalls.Load()
			<-time.After(20 * time.Second)
			total, part := sent.take()[b.tr.ID()], smalls.Load()-before
			require.InEpsilon(t, 20*rate, total, 0.1)
			require.InEpsilon(t, total/2, part, 0.2, "%+v", how)
		})
	}
}

// Those who always wait have been served the same, but for one request of each.
func TestFairlyServesTheSameToAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 1000
		n := rapid.IntRange(2, 6).Draw(t, "how many")
		cost := rapid.IntRange(1, most)
		var f fairly[int]
		served := make([]int, n)
		for k := range n {
			f.arrive(k)
		}
		f.arrive(n) // comes and goes
		gone := true
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			k, ok := f.next(func(k int) bool { return k < n || !gone })
			require.True(t, ok)
			c := cost.Draw(t, "cost")
			f.serve(k, c)
			if k < n {
				served[k] += c
			}
			f.arrive(k)
			if rapid.IntRange(0, 9).Draw(t, "other") == 0 {
				gone = !gone
			}
			for _, a := range served {
				for _, b := range served {
					require.LessOrEqual(t, a-b, 2*most)
				}
			}
		}
	})
}
