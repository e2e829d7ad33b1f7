package announce

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cansync/cansync/can"
)

// What can fail about a service, each until it works again.
const (
	aboutLists = iota
	aboutContents
	abouts
)

// health keeps whether the service works.
type health struct {
	notify func(error)
	turn   chan struct{} // held while notify runs, so that calls come in order

	mu       sync.Mutex
	errs     [abouts]error
	said     error // what notify was last called with
	since    time.Time
	lastScan time.Time

	scannedOnce chan struct{} // closed after the first full scan
}

func (h *health) init(now time.Time, notify func(error)) {
	h.notify, h.since, h.turn = notify, now, make(chan struct{}, 1)
	h.scannedOnce = make(chan struct{})
}

func (h *health) get() (since, lastScan time.Time, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.since, h.lastScan, h.current()
}

func (h *health) current() error {
	for _, err := range h.errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// set records how a call to the service went. Only a change between working and
// failing is reported.
func (h *health) set(about int, err error, now time.Time) {
	h.mu.Lock()
	before := h.current()
	h.errs[about] = err
	changed := (before == nil) != (h.current() == nil)
	if changed {
		h.since = now
	}
	h.mu.Unlock()
	if !changed {
		return
	}
	h.turn <- struct{}{}
	defer func() { <-h.turn }()
	h.mu.Lock()
	is := h.current()
	news := (is == nil) != (h.said == nil)
	h.said = is
	h.mu.Unlock()
	if news {
		h.notify(is)
	}
}

func (h *health) failing(about int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.errs[about] != nil
}

// unscanned reports whether there was no full scan yet.
func (h *health) unscanned() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lastScan.IsZero()
}

func (h *health) scanned(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lastScan.IsZero() {
		close(h.scannedOnce)
	}
	h.lastScan = now
}

// listed records how a listing went. What ends with the announcer is no failure.
func (a *Announcer) listed(err error) {
	if a.ctx.Err() == nil {
		a.health.set(aboutLists, err, a.cfg.Now())
	}
}

const (
	firstBackoff = 500 * time.Millisecond
	maxBackoff   = 30 * time.Second
)

// backoff is the wait after the n-th failure in a row, from 1: exponential with
// jitter, and at least what the service asked for, which package can caps.
func backoff(n int, err error) time.Duration {
	d := min(firstBackoff<<min(n-1, 10), maxBackoff)
	d = d/2 + rand.N(d/2+1)
	if w, ok := can.RetryAfter(err); ok {
		d = max(d, min(w, maxBackoff))
	}
	return d
}

// callTimeout bounds each call to the service but reads and watches, and each wait of a
// read; the waits of a read in all by package watchdog.
const callTimeout = time.Minute

var errStalled = errors.New("announce: the service does not answer")

// call runs one call to the service under the deadline.
func call[T any](ctx context.Context, fn func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, errStalled)
	defer cancel()
	v, err := fn(ctx)
	if err != nil && context.Cause(ctx) == errStalled {
		err = fmt.Errorf("%w: %w", can.ErrUnavailable, errStalled)
	}
	return v, err
}

// meta asks for one asset; clients without the ability are ErrUnsupported.
func (a *Announcer) meta(ctx context.Context, handle string) (can.Asset, error) {
	m, ok := a.cfg.Client.(can.MetaReader)
	if !ok {
		return can.Asset{}, can.ErrUnsupported
	}
	as, err := call(ctx, func(ctx context.Context) (can.Asset, error) { return m.Meta(ctx, handle) })
	if err == nil && as.Handle != handle {
		if as.Handle != "" {
			return can.Asset{}, can.ErrInvalid
		}
		as.Handle = handle
	}
	return as, err
}

func (a *Announcer) list(ctx context.Context, o can.ListOptions) (can.Page, error) {
	return call(ctx, func(ctx context.Context) (can.Page, error) { return a.cfg.Client.List(ctx, o) })
}
