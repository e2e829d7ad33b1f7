package announce

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/filter"
)

// Assets of which the service gives a byte now and then keep nothing else from being
// read, and are announced when they can be read again.
func TestDribblingContentsHoldNoReader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{Lacks: cantest.FeatureChanges | cantest.FeatureEvents})
		defer w.close()
		l := w.library(filter.Filter{})
		slow := map[string]bool{}
		for range 20 {
			a, _ := w.add(string(rune('a'+len(slow)))+string(make([]byte, 10_000)), can.Metadata{})
			slow[a.Handle] = true
		}
		f := w.svc.Inject(cantest.Fault{
			Route: cantest.RouteAsset, Match: func(c cantest.Call) bool { return slow[c.Handle] },
			Action: cantest.Action{Kind: cantest.ActSlow, N: 1, Every: 29 * time.Second},
		})
		w.many(0, 50)
		w.start()
		for range 12 {
			settle()
		}
		require.Greater(t, f.Fired(), 20)
		require.EqualValues(t, 50, l.Counts().Live)
		require.Less(t, f.Fired(), 20*60, "nor is it tried all the time")
		f.Remove()
		for range 40 {
			settle()
		}
		require.EqualValues(t, 70, l.Counts().Live)
	})
}
