package simulate_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/simulate"
)

// C-09: whatever becomes of the events of a CAN Service, the end is the same as with them,
// at most one full listing later.
func TestEventsAreOnlyHints(t *testing.T) {
	assets, edits := 1000, 50
	if testing.Short() {
		assets, edits = 100, 10
	}
	whole := func(_ int, o *cantest.Options) { o.Lacks = 0 }
	deaf := func(_ int, o *cantest.Options) { o.Lacks = cantest.FeatureEvents | cantest.FeatureChangeEvents }
	for name, c := range map[string]struct {
		service func(int, *cantest.Options)
		action  cantest.ActionKind
	}{
		"all delivered": {whole, 0},
		"none":          {deaf, 0},
		"lost":          {whole, cantest.ActEventLost},
		"twice":         {whole, cantest.ActEventTwice},
		"reordered":     {whole, cantest.ActEventLate},
		"unknown":       {whole, cantest.ActEventUnknown},
		"endless":       {whole, cantest.ActEventEndless},
	} {
		t.Run(name, func(t *testing.T) {
			o := simulate.Options{Peers: 2, Service: c.service, Faults: []simulate.Fault{}, Bound: 6 * time.Minute}
			if c.action != 0 {
				o.Faults = append(o.Faults, simulate.EventsLost)
			}
			simulate.Run(t, o, func(w *simulate.World) {
				a, b := w.Peer(0), w.Peer(1)
				end := func() {}
				if c.action != 0 {
					end = a.Inject(cantest.Fault{Route: cantest.RouteEvent, Probability: 0.7, Action: cantest.Action{Kind: c.action}})
				}
				var ds []can.Digest
				for i := range assets {
					ds = append(ds, a.Add(fmt.Appendf(nil, "asset %d", i), can.Metadata{MIMEType: "image/png", Description: "as added"}))
					if i%25 == 0 {
						w.Sleep(time.Second)
					}
				}
				text := "edited"
				for _, d := range ds[:edits] {
					require.True(w.T(), a.Edit(d, can.Update{Description: &text}))
				}
				require.True(w.T(), a.Trash(ds[assets-1]))
				w.Settle()
				w.Eventually("all is as it would be with events", 6*time.Minute, func() bool {
					l, err := b.Library().Status(w.T().Context())
					if err != nil || l.Assets != int64(assets-1) {
						return false
					}
					for _, d := range ds[:edits] {
						if h, ok := b.Find(d); !ok || h.Description != text {
							return false
						}
					}
					return true
				})
				end()
				w.Check()
			})
		})
	}
}
