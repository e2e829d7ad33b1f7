package simulate_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/simulate"
)

func add(p *simulate.Peer, what string) can.Digest {
	return p.Add(fmt.Appendf(nil, "%s of peer %d", what, p.Index()), can.Metadata{MIMEType: "image/png", Description: what})
}

func lists(w *simulate.World, p *simulate.Peer, d can.Digest) bool {
	_, err := p.Library().Asset(w.T().Context(), d)
	if err != nil {
		require.ErrorIs(w.T(), err, cansync.ErrNoAsset)
	}
	return err == nil
}

// The records of right clocks reach all whose clocks are right, whatever the clock
// of another member shows; what claims to be far in the future is not stored.
func TestWrongClocks(t *testing.T) {
	year := func(y int) time.Duration {
		// The bubbles of virtual time begin in 2000.
		return time.Date(y, 6, 1, 0, 0, 0, 0, time.UTC).Sub(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))
	}
	for name, skew := range map[string]time.Duration{
		"an hour ahead": time.Hour, "an hour behind": -time.Hour, "a day ahead": 24 * time.Hour, "a day behind": -24 * time.Hour,
		"in 1970": year(1970), "in 2100": year(2100),
	} {
		t.Run(name, func(t *testing.T) {
			simulate.Run(t, simulate.Options{Peers: 4, Faults: []simulate.Fault{}}, func(w *simulate.World) {
				wrong, right := w.Peer(3), w.Peers()[:3]
				add(wrong, "before")
				w.Settle()
				wrong.SetSkew(skew) // while it is running
				early := add(wrong, "while wrong")
				for _, p := range right {
					add(p, "right")
				}
				w.Sleep(time.Minute)
				wrong.Restart() // with the wrong clock
				late := add(wrong, "after a restart")
				w.Sleep(8 * time.Minute)
				calls := wrong.Service().Writes()
				w.Settle()
				w.Check()
				for _, p := range right {
					if skew > 0 {
						require.False(w.T(), lists(w, p, early), "peer %d", p.Index())
						require.False(w.T(), lists(w, p, late), "peer %d", p.Index())
					}
					d := add(p, "when calm")
					w.Settle()
					// One that is behind takes nothing from what is its future.
					require.Equal(w.T(), skew > 0, lists(w, wrong, d))
				}
				w.Sleep(30 * time.Minute)
				require.LessOrEqual(w.T(), wrong.Service().Writes()-calls, 10, "the wrong clock keeps the node busy")
				w.Check()
				if skew < 0 {
					wrong.SetSkew(0)
					wrong.Trust()
					w.Settle()
					w.Check()
					require.True(w.T(), lists(w, right[0], early))
					require.True(w.T(), lists(w, right[0], late))
				}
			})
		})
	}
}

// A clock that is set right again makes its member one of the others: at once where
// it was behind, and when time has caught up where it was ahead.
func TestAClockSetRight(t *testing.T) {
	for name, skew := range map[string]time.Duration{"ahead": time.Hour, "behind": -time.Hour, "a day behind": -24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			simulate.Run(t, simulate.Options{Peers: 3, Faults: []simulate.Fault{}}, func(w *simulate.World) {
				p := w.Peer(1)
				add(p, "before")
				w.Settle()
				told := make(chan cansync.Event, 100)
				ctx, stop := context.WithCancel(w.T().Context())
				defer stop()
				go func() {
					for e := range p.Node().Events(ctx) {
						if e.Kind == cansync.EventClock {
							told <- e
						}
					}
				}()
				p.SetSkew(skew)
				ds := []can.Digest{add(p, "while wrong"), add(w.Peer(0), "right"), add(w.Peer(2), "right")}
				w.Sleep(10 * time.Minute)
				if skew < 0 {
					behind(w, p, told)
				}
				p.SetSkew(0)
				ds = append(ds, add(p, "when right again"))
				if skew > 0 {
					w.Sleep(time.Minute)
					behind(w, p, told) // it has seen what is not yet
					w.Sleep(skew)
				}
				w.Sleep(time.Minute)
				require.Zero(w.T(), p.Node().Status().Clock)
				require.Len(w.T(), told, 1)
				require.NoError(w.T(), (<-told).Err)
				p.Trust()
				w.Settle()
				w.Check()
				for _, o := range w.Peers() {
					for _, d := range ds {
						require.True(w.T(), lists(w, o, d))
					}
				}
			})
		})
	}
}

// behind checks that a node tells of its clock, and does not sign.
func behind(w *simulate.World, p *simulate.Peer, told <-chan cansync.Event) {
	require.Greater(w.T(), p.Node().Status().Clock.Behind, 30*time.Minute)
	require.Len(w.T(), told, 1)
	require.ErrorIs(w.T(), (<-told).Err, cansync.ErrClock)
	err := p.Library().SetFilter(w.T().Context(), cansync.Filter{MIMEPrefix: "image/"})
	if p.Index() == 0 { // which may
		require.ErrorIs(w.T(), err, cansync.ErrClock)
	}
}

// A node whose clock is behind and that has nothing is offered everything and can
// take none of it: it says so, keeps neither itself nor the others busy, and takes
// all of it when its clock is right, without a restart.
func TestBehindWithNothing(t *testing.T) {
	for name, skew := range map[string]time.Duration{"an hour": -time.Hour, "since 1970": -30 * 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			simulate.Run(t, simulate.Options{Peers: 3, Faults: []simulate.Fault{}}, func(w *simulate.World) {
				const assets = 300
				p, o := w.Peer(1), w.Peer(0)
				w.Sleep(11 * time.Minute) // its membership is not from the future
				p.SetSkew(skew)
				w.Sleep(time.Minute)
				for i := range assets {
					add(o, fmt.Sprintf("asset %d", i))
				}
				w.Settle()
				sent := func() uint64 {
					return w.Network().Traffic(o.ID(), p.ID()).Bytes + w.Network().Traffic(p.ID(), o.ID()).Bytes
				}
				w.Sleep(10 * time.Minute)
				before := sent()
				w.Sleep(30 * time.Minute)
				each := float64(sent()-before) / 30
				w.T().Logf("%.0f bytes a minute", each)
				require.Less(w.T(), each, 30_000.0)
				s, err := p.Library().Status(w.T().Context())
				require.NoError(w.T(), err)
				require.Zero(w.T(), s.Assets)
				require.Equal(w.T(), assets, p.Node().Status().Clock.Early)
				p.SetSkew(0)
				p.Trust()
				w.Settle()
				w.Check()
				s, err = p.Library().Status(w.T().Context())
				require.NoError(w.T(), err)
				require.EqualValues(w.T(), assets, s.Assets)
				require.Zero(w.T(), p.Node().Status().Clock)
			})
		})
	}
}

// Clocks that jump while everybody works, by less than what counts as wrong, change
// nothing about the outcome.
func TestJumpingClocks(t *testing.T) {
	simulate.Run(t, simulate.Options{Seeds: 5, Faults: []simulate.Fault{simulate.ClockJump, simulate.Restart}}, func(w *simulate.World) {
		w.Chaos(40)
		w.Settle()
		w.Check()
	})
}
