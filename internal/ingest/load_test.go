package ingest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/tier"
)

// attempts counts the ingests sent of each content and when.
type attempts struct {
	*cantest.Service
	mu sync.Mutex
	at map[string][]time.Time
}

func (a *attempts) Ingest(ctx context.Context, in can.Ingest) (can.Asset, error) {
	a.mu.Lock()
	a.at[in.Metadata.Description] = append(a.at[in.Metadata.Description], time.Now())
	a.mu.Unlock()
	return a.Service.Ingest(ctx, in)
}

// most returns the largest number of attempts of one content within a minute.
func (a *attempts) most() (most int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, at := range a.at {
		for i, begin := range at {
			n := 0
			for _, t := range at[i:] {
				if t.Sub(begin) < time.Minute {
					n++
				}
			}
			most = max(most, n)
		}
	}
	return most
}

// TestAFailingServiceIsWaitedForAndLeftAlone is C-01: 30 % of the calls fail in all
// ways that a busy service has, and callers who come back every quarter of a minute
// get everything in.
func TestAFailingServiceIsWaitedForAndLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{Rule: cantest.HashTimestamp, Seed: 11})
		defer w.close()
		w.stop()
		tried := &attempts{Service: w.svc, at: map[string][]time.Time{}}
		w.start(tried)
		var faults []*cantest.Injected
		for _, a := range []cantest.Action{
			{Status: 500}, {Status: 502}, {Status: 503}, {Status: 429, RetryAfter: "0"}, {Status: 429, RetryAfter: "2"},
			{Status: 429, RetryAfter: "86400"}, {Status: 503, RetryAfter: "-5"}, {Status: 429, RetryAfter: "soon"},
			{Status: 503, RetryAfter: "Fri, 01 Jan 2100 00:00:00 GMT"},
		} {
			faults = append(faults, w.svc.Inject(cantest.Fault{Probability: 0.038, Action: a}))
		}
		var mu sync.Mutex
		var longest time.Duration
		w.g.OnHealth(func(h Health) {
			mu.Lock()
			defer mu.Unlock()
			if !h.Up {
				longest = max(longest, time.Until(h.RetryAt))
			}
		})
		count := tier.Of(2000, 2000)
		next := make(chan int)
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() {
				for n := range next {
					for {
						_, err := w.ingest(n)
						if err == nil {
							break
						}
						wait(t.Context(), 15*time.Second)
					}
				}
			})
		}
		begun := time.Now()
		for n := range count {
			next <- n
		}
		close(next)
		wg.Wait()
		fired := 0
		for i, f := range faults {
			if !testing.Short() {
				require.Positive(t, f.Fired(), "fault %d", i)
			}
			fired += f.Fired()
		}
		require.Greater(t, fired, count/10)
		t.Logf("%d assets, %d faults, %v of virtual time, longest wait announced %v, at most %d attempts of one asset in a minute",
			count, fired, time.Since(begun), longest, tried.most())
		require.LessOrEqual(t, longest, 30*time.Second)
		require.LessOrEqual(t, tried.most(), 5)
		require.Equal(t, count, w.svc.Len())
		require.Empty(t, w.svc.Duplicates())
		require.Zero(t, w.intents())
	})
}

// TestTheBreakerOpensInTime is the rest of C-01: a service that fails every call is
// left alone within five seconds, however many want something of it, and the wait is
// never longer than half a minute.
func TestTheBreakerOpensInTime(t *testing.T) {
	for _, after := range []string{"", "0", "2", "86400", "-5", "soon", "Fri, 01 Jan 2100 00:00:00 GMT"} {
		for _, status := range []int{429, 500, 502, 503} {
			t.Run(fmt.Sprint(status, " ", after), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, cantest.Options{})
					defer w.close()
					f := w.svc.Inject(cantest.Fault{Action: cantest.Action{Status: status, RetryAfter: after}})
					begun := time.Now()
					opened := time.Duration(-1)
					var mu sync.Mutex
					w.g.OnHealth(func(h Health) {
						mu.Lock()
						defer mu.Unlock()
						if !h.Up && opened < 0 {
							opened = time.Since(begun)
						}
						require.LessOrEqual(t, time.Until(h.RetryAt), 30*time.Second)
					})
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
					defer cancel()
					var wg sync.WaitGroup
					for n := range 100 {
						wg.Go(func() {
							_, err := w.g.Ingest(ctx, job(n))
							require.Error(t, err)
						})
					}
					wg.Wait()
					synctest.Wait()
					mu.Lock()
					defer mu.Unlock()
					require.Positive(t, f.Fired())
					require.LessOrEqual(t, f.Fired(), startParallel+10*tripAfter, "it is left alone")
					if after == "2" || after == "86400" {
						// What it asks for is granted before there is anything to trip on.
						require.LessOrEqual(t, w.svc.Calls()[cantest.RouteIngest], 3*startParallel)
						return
					}
					require.GreaterOrEqual(t, opened, time.Duration(0), "it is open")
					require.LessOrEqual(t, opened, 5*time.Second)
				})
			})
		}
	}
}
