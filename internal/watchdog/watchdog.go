// Package watchdog bounds how long a CAN Service may take over a content, so that one
// that gives a byte now and then does not hold a reader for ever.
package watchdog

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/cansync/cansync/can"
)

// MinRate is the speed in bytes per second that a service must keep up in the long
// run. It is far below that of any that works: an asset that is read too slowly is not
// announced, or not served, at all.
const MinRate = 64 << 10

// ErrSlow says that a service took too long over a content. It matches
// [can.ErrUnavailable].
var ErrSlow = fmt.Errorf("%w: it reads a content too slowly", can.ErrUnavailable)

// Open opens a content of a service, as [can.Opener] says. Each wait for the service,
// for the opening or for bytes, lasts at most wait, and all of them together at most as
// long again as the bytes that came take at [MinRate]; else the call fails with
// [ErrSlow]. The time between two calls does not count. The reader ends with ctx, and
// like any is not safe for concurrent use.
func Open(ctx context.Context, from can.Opener, handle string, offset, length int64, wait time.Duration) (io.ReadCloser, error) {
	b := &body{parent: ctx, wait: wait}
	b.ctx, b.cancel = context.WithCancelCause(ctx)
	b.timer = time.AfterFunc(wait, func() { b.cancel(ErrSlow) })
	begun := time.Now()
	rc, err := from.Open(b.ctx, handle, offset, length)
	b.timer.Stop()
	b.waited = time.Since(begun)
	if err != nil {
		err = b.slow(err)
		b.cancel(nil)
		return nil, err
	}
	b.rc = rc
	return b, nil
}

type body struct {
	rc     io.ReadCloser
	parent context.Context
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	wait   time.Duration
	waited time.Duration
	came   int64
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	left := b.wait + time.Duration(b.came/MinRate)*time.Second - b.waited
	if left <= 0 {
		b.cancel(ErrSlow)
		return 0, b.slow(context.Canceled)
	}
	b.timer.Reset(min(left, b.wait))
	begun := time.Now()
	n, err := b.rc.Read(p)
	b.timer.Stop()
	b.waited += time.Since(begun)
	b.came += int64(n)
	if err != nil && err != io.EOF {
		err = b.slow(err)
	}
	return n, err
}

// slow names the error of a call that was given up.
func (b *body) slow(err error) error {
	if b.parent.Err() == nil && context.Cause(b.ctx) == ErrSlow {
		return fmt.Errorf("%w: %w", ErrSlow, err)
	}
	return err
}

// Close implements io.Closer.
func (b *body) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.rc.Close()
}
