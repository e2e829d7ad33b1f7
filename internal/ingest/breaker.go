package ingest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cansync/cansync/can"
)

const (
	// tripAfter is the number of failures in a row that count as the service
	// being down.
	tripAfter = 5
	// The service is asked again after minBackoff, and then half as often each
	// time, up to maxBackoff.
	minBackoff = 250 * time.Millisecond
	maxBackoff = 30 * time.Second
	// probeTimeout bounds the call that asks whether the service is back.
	probeTimeout = 10 * time.Second
)

// Health says whether the CAN Service can be worked with.
type Health struct {
	// Up is false while the service is left alone after failing several times.
	Up bool
	// Err is the last failure, nil while Up.
	Err error
	// RetryAt is when the service is asked again, zero while Up.
	RetryAt time.Time
}

// breaker stops calls to a service that keeps failing, and finds out by itself
// when it is back (Nygard, Release It!, 2007).
type breaker struct {
	ask func(context.Context) error // a harmless call
	now func() time.Time
	run func(func(context.Context)) // runs what asks, until the ingester closes

	mu       sync.Mutex
	failures int
	backoff  time.Duration
	health   Health
	watchers []func(Health)
	told     []Health // not yet given to the watchers
	telling  bool
}

func (b *breaker) state() Health {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.health
}

func (b *breaker) watch(fn func(Health)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.watchers = append(b.watchers, fn)
}

// serviceFailed says that an error is the service's as a whole, and not that of
// one asset, nor of the caller who gave up. What is wrong with a content is never
// the service's, whatever else the error of its source says.
func serviceFailed(err error) bool {
	return !errors.Is(err, can.ErrContent) &&
		(errors.Is(err, can.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded))
}

// observe takes note of how a call ended.
func (b *breaker) observe(ctx context.Context, err error) {
	if err != nil && (ctx.Err() != nil || !serviceFailed(err)) {
		return
	}
	b.mu.Lock()
	if err == nil {
		b.failures, b.backoff = 0, 0
		b.mu.Unlock()
		return
	}
	b.failures++
	trip := b.health.Up && b.failures >= tripAfter
	if trip {
		b.step(err)
	}
	b.mu.Unlock()
	if trip {
		b.tell()
		b.run(b.wait)
	}
}

// step opens the breaker, or keeps it open, for the next interval. It is called
// with mu held.
func (b *breaker) step(err error) {
	b.backoff = min(max(2*b.backoff, minBackoff), maxBackoff)
	if wish, ok := can.RetryAfter(err); ok {
		b.backoff = min(max(b.backoff, wish), maxBackoff)
	}
	b.health = Health{Err: err, RetryAt: b.now().Add(b.backoff)}
	b.told = append(b.told, b.health)
}

// wait asks the service from time to time until it answers.
func (b *breaker) wait(ctx context.Context) {
	for {
		b.mu.Lock()
		d := b.backoff
		b.mu.Unlock()
		t := time.NewTimer(d)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		asking, done := context.WithTimeout(ctx, probeTimeout)
		err := b.ask(asking)
		done()
		if ctx.Err() != nil {
			return
		}
		b.mu.Lock()
		up := err == nil || !serviceFailed(err)
		if up {
			// The backoff stays until a call of use succeeds, so that a service which
			// lists and does nothing else is not hammered.
			b.failures, b.health = tripAfter-1, Health{Up: true}
			b.told = append(b.told, b.health)
		} else {
			b.step(err)
		}
		b.mu.Unlock()
		b.tell()
		if up {
			return
		}
	}
}

// tell gives the watchers what happened, in order and one call at a time.
func (b *breaker) tell() {
	b.mu.Lock()
	if b.telling {
		b.mu.Unlock()
		return
	}
	b.telling = true
	for len(b.told) > 0 {
		h, fns := b.told[0], b.watchers
		b.told = b.told[1:]
		b.mu.Unlock()
		for _, fn := range fns {
			fn(h)
		}
		b.mu.Lock()
	}
	b.telling = false
	b.mu.Unlock()
}
