package announce

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/filter"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Whatever listings do, nothing is removed, and in the end everything is said.
func TestBadListings(t *testing.T) {
	faults := map[string]cantest.Fault{
		"empty":     {Route: cantest.RouteList, Action: cantest.Action{Kind: cantest.ActEmptyList}},
		"sometimes": {Route: cantest.RouteList, Probability: 0.4, Action: cantest.Action{Kind: cantest.ActEmptyList}},
		"status":    {Route: cantest.RouteList, Action: cantest.Action{Kind: cantest.ActStatus, Status: 500}},
		"busy":      {Route: cantest.RouteList, Probability: 0.7, Action: cantest.Action{Kind: cantest.ActStatus, Status: 429, RetryAfter: "9999"}},
		"html":      {Route: cantest.RouteList, Action: cantest.Action{Kind: cantest.ActHTML}},
		"half":      {Route: cantest.RouteList, Action: cantest.Action{Kind: cantest.ActCut}},
		"hang":      {Route: cantest.RouteList, Probability: 0.5, Action: cantest.Action{Kind: cantest.ActHangBefore}},
		"meta":      {Route: cantest.RouteMeta, Action: cantest.Action{Kind: cantest.ActStatus, Status: 500}},
		"no meta":   {Route: cantest.RouteMeta, Action: cantest.Action{Kind: cantest.ActStatus, Status: 404}},
	}
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, cantest.Options{Lacks: cantest.FeatureChanges | cantest.FeatureEvents})
				l := w.library(filter.Filter{})
				w.many(0, 600)
				w.start()
				settle()
				require.EqualValues(t, 600, l.Counts().Live)
				before := l.Counts()
				in := w.svc.Inject(f)
				if f.Route == cantest.RouteMeta {
					w.svc.Delete(w.digest(0).String())
				}
				settle()
				settle()
				require.Equal(t, before, l.Counts(), "nothing is concluded")
				require.Zero(t, w.count(Removed))
				require.Positive(t, in.Fired())
				in.Remove()
				w.many(600, 620)
				settle()
				require.EqualValues(t, 620, l.Counts().Live)
				_, last, err := w.a.Health()
				require.NoError(t, err)
				require.Less(t, time.Since(last), 6*time.Minute)
				if name == "status" || name == "html" || name == "half" {
					require.Len(t, w.health, 2)
					require.Error(t, w.health[0])
					require.NoError(t, w.health[1])
				}
				w.close()
			})
		})
	}
}

func TestServiceAbsentAtStart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{})
		l := w.library(filter.Filter{})
		w.many(0, 10)
		w.svc.SetDown(true)
		w.start()
		time.Sleep(time.Hour)
		since, last, err := w.a.Health()
		require.ErrorIs(t, err, can.ErrUnavailable)
		require.True(t, last.IsZero())
		require.Less(t, time.Since(since), time.Hour+time.Second)
		w.svc.SetDown(false)
		time.Sleep(31 * time.Second)
		synctest.Wait()
		require.EqualValues(t, 10, l.Counts().Live)
		require.Len(t, w.health, 2)
		w.close()
	})
}

func TestUnreadableContents(t *testing.T) {
	faults := map[string]cantest.Action{
		"corrupted": {Kind: cantest.ActStatus, Status: 500},
		"short":     {Kind: cantest.ActCut, At: 3},
		"long":      {Kind: cantest.ActExtra},
		"hang":      {Kind: cantest.ActHangMid, At: 3},
		"down":      {Kind: cantest.ActStatus, Status: 503},
	}
	for name, act := range faults {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, cantest.Options{})
				l := w.library(filter.Filter{})
				bad := w.digest(3)
				in := w.svc.Inject(cantest.Fault{Route: cantest.RouteAsset, Handle: bad.String(), Action: act})
				w.many(0, 50)
				w.start()
				time.Sleep(3 * time.Minute)
				synctest.Wait()
				require.EqualValues(t, 49, l.Counts().Live, "it does not keep the others")
				settle()
				require.False(t, w.entry(l, bad).Known())
				require.Positive(t, in.Fired())
				require.Less(t, in.Fired(), 200)
				if name == "corrupted" || name == "short" || name == "long" {
					require.Equal(t, 1, w.count(Failed), "it is said once")
				}
				in.Remove()
				time.Sleep(7 * time.Hour)
				synctest.Wait()
				require.True(t, w.entry(l, bad).Member)
				_, _, err := w.a.Health()
				require.NoError(t, err)
				w.close()
			})
		})
	}
}

// The listing changes while it is read: what is there all the time is found, and
// what is listed nowhere is asked for.
func TestShiftingListing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{Lacks: cantest.FeatureChanges | cantest.FeatureEvents})
		l := w.library(filter.Filter{})
		w.many(0, 3000)
		var mu sync.Mutex
		var trashed []can.Digest
		pages := 0
		w.client = shifting{Service: w.svc, after: func() {
			mu.Lock()
			defer mu.Unlock()
			if pages++; pages%3 == 0 && pages < 60 {
				d := w.digest(pages / 3 * 40)
				trashed = append(trashed, d)
				w.svc.TrashNow(d.String())
				w.svc.AddAt(fmt.Appendf(nil, "old %d", pages), can.Metadata{}, 5)
			}
		}}
		w.start()
		settle()
		settle()
		require.EqualValues(t, w.svc.Len(), l.Counts().Live)
		require.Greater(t, pages, 57)
		// The first may go before they were ever listed: then there is nothing to remove.
		require.Len(t, trashed, 19)
		said := 0
		for _, d := range trashed {
			if e := w.entry(l, d); e.Known() {
				require.True(t, e.Tombstone(), "%s was trashed", d)
				said++
			}
		}
		require.Positive(t, said)
		require.Equal(t, said, w.count(Removed))
		w.close()
	})
}

// shifting is a service that changes after each page. It has no events.
type shifting struct {
	*cantest.Service
	after func()
}

func (s shifting) List(ctx context.Context, o can.ListOptions) (can.Page, error) {
	p, err := s.Service.List(ctx, o)
	s.after()
	return p, err
}

func TestGateRemoveAndClose(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{})
		l, gone := w.library(filter.Filter{}), w.library(filter.Filter{})
		w.start()
		require.NoError(t, w.a.SetGate(l.ID(), func(_ can.Digest, m can.Metadata) bool { return m.User == "yes" }))
		w.add("a", can.Metadata{})
		_, d := w.add("b", can.Metadata{User: "yes"})
		settle()
		require.EqualValues(t, 1, l.Counts().Live)
		require.True(t, w.entry(l, d).Member)
		w.a.Remove(gone.ID())
		w.a.Remove(gone.ID())
		w.add("c", can.Metadata{User: "yes"})
		settle()
		require.EqualValues(t, 2, gone.Counts().Live, "it was not told of the third")
		require.EqualValues(t, 2, l.Counts().Live)
		require.ErrorIs(t, w.a.Confirm(gone.ID()), ErrNoLibrary)
		w.a.Add(gone)
		settle()
		require.EqualValues(t, 3, gone.Counts().Live)
		require.NoError(t, w.a.Close())
		require.NoError(t, w.a.Close())
		require.ErrorIs(t, w.a.Confirm(l.ID()), ErrClosed)
		w.a.Poke()
		w.a.Add(l)
		w.a.Remove(l.ID())
		w.close()
	})
}
