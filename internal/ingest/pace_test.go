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
)

func TestParallelismFollowsTheService(t *testing.T) {
	a, now := newAIMD(), time.Unix(1000, 0)
	step := func(took time.Duration) time.Time {
		begun := now
		now = now.Add(took)
		return begun
	}
	for range 100 {
		a.succeeded(now, step(time.Millisecond), 100, true)
	}
	require.Equal(t, maxParallel, a.allowed())
	for range 10 {
		begun := step(time.Millisecond)
		a.failed(now, begun)
	}
	require.Equal(t, minParallel, a.allowed())
	for range 10 {
		a.succeeded(now, step(time.Millisecond), 100, false)
	}
	require.Equal(t, minParallel, a.allowed(), "what is not used does not grow")
	for range 1000 {
		a.succeeded(now, step(time.Millisecond), 100, true)
	}
	require.Equal(t, maxParallel, a.allowed())
	begun := step(time.Millisecond)
	for range 16 {
		a.failed(now, begun)
	}
	require.Equal(t, maxParallel/2, a.allowed(), "one trouble is one cut")
	for range 1000 {
		begun := step(time.Second)
		a.succeeded(now, begun, 100, true)
		if a.allowed() == latencyFloor {
			break
		}
	}
	require.Equal(t, latencyFloor, a.allowed(), "a queue in the service is not made longer")
	for range 1000 {
		begun := step(time.Minute)
		a.succeeded(now, begun, 1<<30, true)
	}
	require.Equal(t, maxParallel, a.allowed(), "large ingests take their time")
}

func TestTheLimiterIsFairAndLosesNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter()
		var held []*slot
		for range startParallel {
			s, err := l.acquire(t.Context())
			require.NoError(t, err)
			held = append(held, s)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				_, err := l.acquire(ctx)
				require.ErrorIs(t, err, context.Canceled)
			})
		}
		synctest.Wait()
		var mu sync.Mutex
		order := []int{}
		for i := range 5 {
			wg.Go(func() {
				s, err := l.acquire(t.Context())
				require.NoError(t, err)
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				s.release()
			})
			synctest.Wait()
		}
		cancel()
		synctest.Wait()
		held[0].release()
		wg.Wait()
		require.Equal(t, []int{0, 1, 2, 3, 4}, order)
		for _, s := range held[1:] {
			s.release()
		}
		require.Zero(t, l.running)
		require.Empty(t, l.waiting)
	})
}

func TestTheServiceIsLeftAloneAsLongAsItAsks(t *testing.T) {
	for after, want := range map[string]time.Duration{"7": 7 * time.Second, "86400": maxBackoff} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, cantest.Options{})
			defer w.close()
			f := w.svc.Inject(cantest.Fault{Route: cantest.RouteIngest, Times: 1, Action: cantest.Action{Status: 429, RetryAfter: after}})
			_, err := w.ingest(1)
			require.ErrorIs(t, err, can.ErrBusy)
			require.Equal(t, 1, f.Fired())
			begun := time.Now()
			_, err = w.ingest(2)
			require.NoError(t, err)
			require.Equal(t, want, time.Since(begun))
		})
	}
}

func TestTheBreakerOpensAndCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{})
		defer w.close()
		var mu sync.Mutex
		var told []string
		w.g.OnHealth(func(h Health) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, fmt.Sprint(h.Up))
			require.Equal(t, h.Up, h.Err == nil)
			require.LessOrEqual(t, time.Until(h.RetryAt), maxBackoff)
		})
		w.svc.SetDown(true)
		for range tripAfter {
			_, err := w.ingest(1)
			require.ErrorIs(t, err, ErrDown)
		}
		require.False(t, w.g.Health().Up)
		calls := w.svc.Calls()
		for range 100 {
			_, err := w.ingest(1)
			require.ErrorIs(t, err, ErrDown)
			require.ErrorIs(t, err, can.ErrUnavailable)
		}
		require.Equal(t, calls, w.svc.Calls(), "nobody asks while it is open")
		wait(t.Context(), time.Hour)
		mu.Lock()
		require.Greater(t, len(told), 100)
		require.Less(t, len(told), 140)
		mu.Unlock()
		w.svc.SetDown(false)
		wait(t.Context(), maxBackoff)
		require.True(t, w.g.Health().Up)
		_, err := w.ingest(1)
		require.NoError(t, err)
		mu.Lock()
		defer mu.Unlock()
		require.Equal(t, "true", told[len(told)-1])
		require.Equal(t, 1, w.svc.Calls()[cantest.RouteIngest])
	})
}

func TestCloseEndsWhatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{})
		w.svc.Inject(cantest.Fault{Route: cantest.RouteIngest, Action: cantest.Action{Kind: cantest.ActHangAfter}})
		var wg sync.WaitGroup
		for n := range 30 {
			wg.Go(func() {
				_, err := w.ingest(n)
				require.ErrorIs(t, err, ErrClosed)
			})
		}
		synctest.Wait()
		begun := time.Now()
		require.NoError(t, w.g.Close())
		wg.Wait()
		require.Zero(t, time.Since(begun))
		_, err := w.ingest(1)
		require.ErrorIs(t, err, ErrClosed)
		w.close()
	})
}
