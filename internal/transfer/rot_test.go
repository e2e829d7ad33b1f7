package transfer

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/tier"
)

// TestServiceThatRotsSendsNothingWrong is R-11: what the service altered does not
// leave the node, and an alarm is raised each time.
func TestServiceThatRotsSendsNothingWrong(t *testing.T) {
	for _, tc := range []struct {
		lacks cantest.Features
		share float64
		count int
	}{
		{0, 0.01, max(500, tier.Of(1500, 10_000))},
		{0, 0.3, 24},
		{cantest.FeatureRange, 0.3, 24},
	} {
		t.Run(fmt.Sprint(tc.lacks, tc.share), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				_, stage := stages(t)
				a, b, lib := pair(t, nodeOptions{can: cantest.Options{Lacks: tc.lacks, Seed: 3}}, nodeOptions{client: stage})
				fault := a.can.Inject(cantest.Fault{
					Route: cantest.RouteAsset, Probability: tc.share, Action: cantest.Action{Kind: cantest.ActWrongBytes},
				})
				large := max(3, tc.count/100)
				unavailable := 0
				for i := range tc.count {
					size := 3000 + i%1000
					if i%large == 0 {
						size = 500_000 + i
					}
					data := random(t, uint64(100+i), size)
					w := a.announce(lib, a.hold(data))
					for tries := 0; ; tries++ {
						require.Less(t, tries, 50)
						var got []byte
						var err error
						if w.Size <= SmallLimit {
							got, err = b.client.Small(t.Context(), w)
						} else {
							var c *Content
							if c, err = b.client.Large(t.Context(), w, nil); err == nil {
								got = readContent(t, c)
								require.NoError(t, c.Discard())
							}
						}
						if err == nil {
							require.True(t, string(data) == string(got))
							break
						}
						require.ErrorIs(t, err, ErrUnavailable)
						unavailable++
					}
				}
				t.Logf("%d contents, %d serves, %d altered, %d alarms, %d times told so", tc.count,
					a.can.Calls()[cantest.RouteAsset], fault.Fired(), a.rotten.Load(), unavailable)
				require.Positive(t, fault.Fired())
				if tc.lacks == 0 {
					require.EqualValues(t, fault.Fired(), a.rotten.Load())
				}
				require.Positive(t, a.rotten.Load()) // else skipped bytes were hit alone
				require.Positive(t, unavailable)
				require.Zero(t, b.liars.Load(), "no wrong byte left the node")
			})
		})
	}
}
