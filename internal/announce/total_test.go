package announce

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/filter"
)

// counting is a service whose total counts assets that it does not list.
type counting struct {
	*cantest.Service
	more int
}

func (c counting) List(ctx context.Context, o can.ListOptions) (can.Page, error) {
	p, err := c.Service.List(ctx, o)
	p.Total += c.more
	return p, err
}

// A total that is always too high does not keep the node from ever being through
// with a scan, on which fetching and removals wait.
func TestATotalThatCountsMoreThanIsListed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{Lacks: cantest.FeatureChanges | cantest.FeatureEvents})
		w.client = counting{w.svc, 7}
		l := w.library(filter.Filter{})
		w.many(0, 600)
		w.start()
		select {
		case <-w.a.Scanned():
		case <-time.After(2 * time.Minute):
			require.Fail(t, "no scan counts")
		}
		settle()
		require.EqualValues(t, 600, l.Counts().Live)
		for i := range 3 {
			require.True(t, w.svc.TrashNow(w.digest(i).String()))
		}
		settle()
		require.EqualValues(t, 597, l.Counts().Live)
		require.Equal(t, 3, w.count(Removed))
		calls := w.svc.Calls()[cantest.RouteList]
		settle()
		require.Less(t, w.svc.Calls()[cantest.RouteList]-calls, 300, "no scan after scan")
		w.close()
	})
}
