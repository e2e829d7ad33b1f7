package simulate

import (
	"fmt"
	"testing"
	"time"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
)

// A service that failed for hours, in whatever way, is not held to blame its assets:
// soon after it works again, everything is where it belongs.
func TestServiceFaultsOfHours(t *testing.T) {
	probabilities := []float64{0.6, 1}
	if testing.Short() {
		probabilities = probabilities[:1]
	}
	for i, fault := range serviceFaults() {
		for _, p := range probabilities {
			fault.Probability = p
			t.Run(fmt.Sprintf("%d %v of %v at %v", i, fault.Action.Kind, fault.Route, p), func(t *testing.T) {
				o := Options{Peers: 2, Faults: []Fault{ServiceErrors}, Bound: 10 * time.Minute, Policy: cansync.TrashRemoved}
				o.Service = func(_ int, o *cantest.Options) { o.Rule, o.Lacks = cantest.HashTimestamp, 0 }
				Run(t, o, func(w *World) {
					hurt, other := w.Peer(0), w.Peer(1)
					end := hurt.Inject(fault)
					var ds []can.Digest
					for i := range 30 {
						for _, p := range []*Peer{hurt, other} {
							ds = append(ds, p.Add(fmt.Appendf(nil, "content %d of %d", i, p.Index()), can.Metadata{MIMEType: "image/png"}))
						}
						text := fmt.Sprintf("edit %d", i)
						other.Edit(ds[w.rng.IntN(len(ds))], can.Update{Description: &text})
						if i%8 == 7 {
							other.Trash(ds[w.rng.IntN(len(ds))])
						}
						if i < 20 {
							w.Sleep(10 * time.Minute)
						}
					}
					w.Sleep(time.Minute)
					end()
					took := w.Settle()
					w.Check()
					w.T().Logf("settled in %s, %s", took, w.counts)
				})
			})
		}
	}
}
