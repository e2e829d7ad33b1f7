package announce

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-datastore/query"
	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/store"
)

// A filter that narrows, and then widens, while the service is listed: nothing is
// announced that the filter in force does not take, and in the end everything is
// that it does. It goes on where the announcer was closed in the middle.
func TestFiltersChangeDuringAScan(t *testing.T) {
	const count = 3000 // a third of which has each tag
	tagged := func(tags ...string) filter.Filter { return filter.Filter{Tags: tags} }
	for name, restart := range map[string]bool{"running": false, "restarted": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, cantest.Options{Lacks: cantest.FeatureChanges | cantest.FeatureEvents, PageCap: 1000})
				l := w.library(tagged("t0", "t1"))
				w.many(0, count)
				describe := func(f filter.Filter) {
					require.NoError(t, l.Describe(t.Context(), control.Description{Name: "library", Filter: f}))
				}
				var mu sync.Mutex
				pages, second := 0, 0
				reached := make(chan struct{})
				w.client = shifting{Service: w.svc, after: func() {
					mu.Lock()
					defer mu.Unlock()
					switch pages++; pages {
					case 3:
						describe(tagged("t0"))
						for i := range count {
							if w.entry(l, w.digest(i)).Known() && i%3 == 1 {
								second++
							}
						}
					case 9:
						close(reached)
					}
				}}
				w.start()
				<-reached
				if restart {
					w.restart()
				}
				settle()
				require.EqualValues(t, count/3, l.Counts().Live)
				known := 0
				for i := range count {
					e := w.entry(l, w.digest(i))
					require.Equal(t, i%3 == 0, e.Member)
					require.False(t, i%3 == 2 && e.Known(), "never in force")
					if i%3 == 1 && e.Known() {
						known++
					}
				}
				// What was decided while the filter changed may be one batch of notes.
				require.LessOrEqual(t, known, second+maxNotes)
				require.Less(t, known, count/3)

				describe(tagged("t0", "t2"))
				settle()
				require.EqualValues(t, 2*count/3, l.Counts().Live)
				for i := range count {
					require.Equal(t, i%3 != 1, w.entry(l, w.digest(i)).Member)
				}
				require.Zero(t, w.count(Removed))
				w.close()
			})
		})
	}
}

// slow is a store that takes long to list many records, once.
type slow struct {
	store.Store
	once atomic.Bool
}

func (s *slow) Query(ctx context.Context, q query.Query) (query.Results, error) {
	if s.once.CompareAndSwap(true, false) {
		time.Sleep(20 * time.Second)
	}
	return s.Store.Query(ctx, q)
}

// In a large library a new filter is in force only a while after the description
// that says it, or the view. What is listed in between is offered again.
func TestAFilterThatTakesLongToBeInForce(t *testing.T) {
	for name, own := range map[string]bool{"description": false, "view": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, cantest.Options{Lacks: cantest.FeatureChanges | cantest.FeatureEvents})
				s := &slow{Store: w.store}
				w.records = s
				first, wide := filter.Filter{Tags: []string{"t0"}}, filter.Filter{Tags: []string{"t0", "t1"}}
				l := w.library(wide)
				change := func(f filter.Filter) {
					if own {
						require.NoError(t, l.SetOwnView(t.Context(), f))
					} else {
						require.NoError(t, l.Describe(t.Context(), control.Description{Name: "library", Filter: f}))
					}
				}
				change(first)
				w.many(0, 300)
				w.start()
				settle()
				require.EqualValues(t, 100, l.Counts().Live)
				s.once.Store(true)
				change(wide)
				require.False(t, s.once.Load(), "it took long")
				settle()
				require.EqualValues(t, 200, l.Counts().Live)
				w.close()
			})
		})
	}
}
