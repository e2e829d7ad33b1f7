package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
)

// arrivals follows what a node does for a library. Events tell when to look and
// give the times; whether an asset is there is read off the library.
type arrivals struct {
	lib   *cansync.Library
	wake  chan struct{}
	stop  func()
	mu    sync.Mutex
	at    map[can.Digest]time.Time
	fault error // the last one
}

// lookAgain is how often to look when no event comes.
const lookAgain = 250 * time.Millisecond

func watch(ctx context.Context, node *cansync.Node, lib *cansync.Library) *arrivals {
	ctx, cancel := context.WithCancel(ctx)
	w := &arrivals{lib: lib, wake: make(chan struct{}, 1), at: make(map[can.Digest]time.Time)}
	events := node.Events(ctx) // from now on
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range events {
			if e.Library == lib.ID() || e.Kind == cansync.EventService {
				w.note(e)
			}
		}
	}()
	w.stop = func() {
		cancel()
		<-done
	}
	return w
}

func (w *arrivals) note(e cansync.Event) {
	w.mu.Lock()
	if e.Kind == cansync.EventFetched {
		w.at[e.Asset] = e.Time
	}
	if e.Err != nil {
		w.fault = e.Err
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// next waits for something to happen, or a little while.
func (w *arrivals) next(ctx context.Context) error {
	t := time.NewTimer(lookAgain)
	defer t.Stop()
	select {
	case <-w.wake:
	case <-t.C:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// wait returns when all assets are there, with the time at which each came.
func (w *arrivals) wait(ctx context.Context, want map[can.Digest]time.Time) (map[can.Digest]time.Time, error) {
	at := make(map[can.Digest]time.Time, len(want))
	for {
		for d := range want {
			if _, ok := at[d]; ok {
				continue
			}
			a, err := w.lib.Asset(ctx, d)
			switch {
			case errors.Is(err, cansync.ErrNoAsset), errors.Is(err, cansync.ErrNotJoined):
				continue // not announced yet
			case err != nil && ctx.Err() == nil:
				return nil, err
			case err != nil || a.State != cansync.Have:
				continue
			}
			at[d] = w.time(d)
		}
		if len(at) == len(want) {
			return at, nil
		}
		if err := w.next(ctx); err != nil {
			return nil, fmt.Errorf("%d of %d assets did not arrive: %w", len(want)-len(at), len(want), errors.Join(err, w.reason()))
		}
	}
}

// time returns when an asset came; now, when its event was missed.
func (w *arrivals) time(d can.Digest) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t, ok := w.at[d]; ok {
		return t
	}
	return time.Now()
}

// reason is what the node knows of why something did not come.
func (w *arrivals) reason() error {
	w.mu.Lock()
	fault := w.fault
	w.mu.Unlock()
	return errors.Join(fault, reason(w.lib))
}
