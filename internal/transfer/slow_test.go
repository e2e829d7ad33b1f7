package transfer

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/session"
)

// A service that gives a byte now and then holds no read for ever, though the peer
// waits for it as long as it takes.
func TestADribblingServiceGivesItsPlaceUp(t *testing.T) {
	for _, lacks := range []cantest.Features{0, cantest.FeatureRange} {
		for _, size := range []int{1000, 1 << 20} {
			inBubble(t, func(t *testing.T) {
				a, b, lib := pair(t, nodeOptions{
					can: cantest.Options{Lacks: lacks}, server: func(c *ServerConfig) { c.MaxReads = 1 },
				}, nodeOptions{})
				slow, fine := a.announce(lib, a.hold(random(t, 3, size))), a.announce(lib, a.hold(random(t, 4, 1000)))
				items, err := a.inv.ByDigest(t.Context(), slow.Asset)
				require.NoError(t, err)
				f := a.can.Inject(cantest.Fault{
					Route: cantest.RouteAsset, Handle: items[0].Handle,
					Action: cantest.Action{Kind: cantest.ActSlow, N: 1, Every: 9 * time.Second},
				})
				request := smallRequest(slow.Record)
				if size > SmallLimit {
					request = runReq{7, slow.Record, slow.Root, slow.Size, blob.Run{First: 1, Count: 3}}.frame()
				}
				st := bare(t, a, b, lib)
				_, err = st.Write(request)
				require.NoError(t, err)
				synctest.Wait()
				begun := time.Now()
				for {
					_, err := b.client.Small(t.Context(), fine)
					if err == nil {
						break
					}
					require.ErrorIs(t, err, ErrStalled)
					require.Less(t, time.Since(begun), 3*time.Minute, "the place is taken for ever")
				}
				require.Positive(t, f.Fired())
				require.Zero(t, a.rotten.Load(), "slow is not rotten")
				_ = st.Reset()
			})
		}
	}
}

// A service that has given all bytes of a range and does not end it keeps neither the
// next run waiting nor the stream alive.
func TestAServiceThatDoesNotEndARange(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b, lib := pair(t, nodeOptions{}, nodeOptions{})
		var serving atomic.Int64
		a.m.Serve(session.ProtoBlob, func(sv session.Served) {
			serving.Add(1)
			defer serving.Add(-1)
			a.server.Serve(sv)
		})
		f := a.can.Inject(cantest.Fault{Route: cantest.RouteAsset, Action: cantest.Action{Kind: cantest.ActHangAfter}})
		w := a.announce(lib, a.hold(random(t, 3, 3<<20)))
		blib, _ := b.library(lib.ID())
		knows(t, blib, w)
		begun := time.Now()
		c, err := b.client.Large(t.Context(), w, nil)
		require.NoError(t, err)
		require.NoError(t, c.Discard())
		require.Less(t, time.Since(begun), time.Minute)
		require.Greater(t, f.Fired(), 1)
		require.NoError(t, b.client.Close())
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Zero(t, serving.Load(), "nothing of the stream is left")
		require.Zero(t, a.rotten.Load())
	})
}
