package cansync_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/session"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
)

// watched gathers the events of a machine's node.
type watched struct {
	mu  sync.Mutex
	all []cansync.Event
}

func (m *machine) watch(t *testing.T) *watched {
	w := &watched{}
	ctx, cancel := context.WithCancel(t.Context())
	events := m.node.Events(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range events {
			w.mu.Lock()
			w.all = append(w.all, e)
			w.mu.Unlock()
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

// liars returns who was said to have lied.
func (w *watched) liars() map[transport.PeerID]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make(map[transport.PeerID]bool)
	for _, e := range w.all {
		if e.Kind == cansync.EventPeerLied {
			out[e.Peer] = true
		}
	}
	return out
}

func (m *machine) holds(d can.Digest) bool {
	_, ok := m.metadata()[d]
	return ok
}

// TestRottenContentIsRepairedFromAMember: content that rots in the service of a
// member is found out when another asks for it, never sent, and replaced from a
// third, whatever the service makes handles of. Nobody is blamed for it.
func TestRottenContentIsRepairedFromAMember(t *testing.T) {
	for name, rule := range rules {
		for _, size := range []int64{500, 300 << 10} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					net := memory.NewNetwork(memory.Options{})
					a := newMachine(t, net, "a", cantest.Options{Rule: rule})
					b := newMachine(t, net, "b", cantest.Options{})
					c := newMachine(t, net, "c", cantest.Options{})
					d := a.add(1, size)
					id := a.share(cansync.Filter{}, b)
					eventually(t, "b has it", func() bool { return b.holds(d) })
					require.NoError(t, b.lib(id).Wait(t.Context()))
					b.stop()

					handle := a.handleOf(d)
					good, _ := a.svc.Content(handle)
					bad := bytes.Clone(good)
					bad[len(bad)/2] ^= 1
					require.True(t, a.svc.Corrupt(handle, bad))
					events := c.watch(t)
					c.join(a.lib(id))
					eventually(t, "a finds it out", func() bool {
						as, err := a.lib(id).Asset(t.Context(), d)
						return err == nil && as.State != cansync.Have
					})
					require.False(t, c.holds(d))
					require.Zero(t, c.svc.Len(), "rotten content does not travel")

					b.start()
					eventually(t, "a is repaired, and c has it", func() bool { return a.holds(d) && c.holds(d) })
					for _, m := range []*machine{a, b, c} {
						require.NoError(t, m.lib(id).Wait(t.Context()))
						require.Equal(t, 1, m.svc.Len(), "%s has it once", m.name)
					}
					require.Empty(t, events.liars())
					a.close()
					b.close()
					c.close()
				})
			})
		}
	}
}

// liar is a transport that changes what its node sends of contents.
type liar struct {
	transport.Transport
	lies atomic.Int64
}

func (l *liar) Handle(protocol string, fn func(transport.Stream)) {
	if protocol == session.ProtoBlob && fn != nil {
		l.Transport.Handle(protocol, func(s transport.Stream) { fn(&lyingStream{s, l}) })
		return
	}
	l.Transport.Handle(protocol, fn)
}

type lyingStream struct {
	transport.Stream
	l *liar
}

func (s *lyingStream) Write(p []byte) (int, error) {
	if len(p) > 1000 { // content, for it is the end of a frame
		p = bytes.Clone(p)
		p[len(p)-1] ^= 1
		s.l.lies.Add(1)
	}
	return s.Stream.Write(p)
}

// TestOnlyTheLiarIsLeftAlone is S-10 between whole nodes: of two members that hold
// the same contents one sends wrong bytes.
func TestOnlyTheLiarIsLeftAlone(t *testing.T) {
	for _, c := range []struct {
		count uint64
		size  int64
	}{{24, 20_000}, {6, 1 << 20}} {
		synctest.Test(t, func(t *testing.T) {
			net := memory.NewNetwork(memory.Options{})
			var lying *liar
			a := newMachine(t, net, "a", cantest.Options{})
			b := newMachine(t, net, "b", cantest.Options{})
			to := newMachine(t, net, "c", cantest.Options{})
			var all []can.Digest
			for seed := range c.count {
				all = append(all, a.add(seed, c.size))
			}
			id := a.share(cansync.Filter{}, b)
			eventually(t, "b has all", func() bool { return b.svc.Len() == len(all) })
			require.NoError(t, b.lib(id).Wait(t.Context()))
			b.stop()
			b.wrap = func(tr transport.Transport) transport.Transport {
				lying = &liar{Transport: tr}
				return lying
			}
			b.start()
			eventually(t, "b is back", func() bool { return len(peersOf(b, id)) == 1 })
			events := to.watch(t)
			// What a alone would send takes 20 s: c knows b long before.
			net.SetLink(a.node.PeerID(), to.node.PeerID(), memory.Link{
				Latency: time.Millisecond, Bandwidth: int64(c.count) * c.size / 20,
			})
			to.join(a.lib(id))
			eventually(t, "c has all", func() bool { return to.svc.Len() == len(all) })
			for _, d := range all {
				require.True(t, to.holds(d), "and nothing else")
			}
			require.Positive(t, lying.lies.Load())
			require.Equal(t, map[transport.PeerID]bool{b.node.PeerID(): true}, events.liars())
			peers := peersOf(to, id)
			require.Len(t, peers, 1)
			require.Equal(t, a.node.PeerID(), peers[0].Peer)
			require.Len(t, peersOf(a, id), 2, "a has no quarrel with b")
			a.close()
			b.close()
			to.close()
		})
	}
}

// An asset that was read badly once, by a service that then went down, is in order
// when it is well again: it is neither trashed nor ingested again.
func TestASoundAssetIsNotTrashed(t *testing.T) {
	for name, rule := range rules {
		for _, size := range []int64{500, 300 << 10} {
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					net := memory.NewNetwork(memory.Options{})
					a := newMachine(t, net, "a", cantest.Options{Rule: rule})
					b := newMachine(t, net, "b", cantest.Options{})
					c := newMachine(t, net, "c", cantest.Options{})
					d := a.add(1, size)
					id := a.share(cansync.Filter{}, b)
					eventually(t, "b has it", func() bool { return b.holds(d) })
					require.NoError(t, b.lib(id).Wait(t.Context()))
					b.stop()
					handle := a.handleOf(d)
					good, _ := a.svc.Content(handle)
					bad := bytes.Clone(good)
					bad[len(bad)/2] ^= 1
					require.True(t, a.svc.Corrupt(handle, bad)) // one bad read, then down for a while, and well again
					c.join(a.lib(id))
					for range 100000 {
						as, err := a.lib(id).Asset(t.Context(), d)
						if err == nil && as.State != cansync.Have {
							break
						}
						time.Sleep(time.Millisecond)
					}
					a.svc.SetDown(true)
					require.True(t, a.svc.Corrupt(handle, good))
					time.Sleep(40 * time.Second)
					b.start()
					time.Sleep(5 * time.Second)
					a.svc.SetDown(false)
					time.Sleep(10 * time.Minute)
					m, err := a.svc.Meta(t.Context(), handle)
					require.NoError(t, err)
					require.False(t, m.Trashed)
					require.Zero(t, a.svc.Posts()[d])
					as, err := a.lib(id).Asset(t.Context(), d)
					require.NoError(t, err)
					require.Equal(t, cansync.Have, as.State)
					a.close()
					b.close()
					c.close()
				})
			})
		}
	}
}
