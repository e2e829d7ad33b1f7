package can

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Ranges implements [Ranger]: it is false after the service last answered a
// request for a range with something else.
func (c *HTTPClient) Ranges() bool { return !c.noRanges.Load() }

// Open implements [Opener]. An answer with the wrong range is given up for one
// read of the whole asset. A read that breaks off in the middle is not resumed:
// the caller opens the rest.
func (c *HTTPClient) Open(parent context.Context, handle string, offset, length int64) (io.ReadCloser, error) {
	r := &request{op: "open", handle: handle, method: http.MethodGet, path: []string{"asset", handle}, asset: true}
	if err := checkHandle(handle); err != nil {
		return nil, c.wrap(r, fmt.Errorf("%w: handle %w", ErrNotFound, err))
	}
	if offset < 0 || length > 0 && offset > math.MaxInt64-length {
		return nil, c.wrap(r, fmt.Errorf("%w: range", ErrBadRequest))
	}
	ctx, cancel, release, err := c.begin(parent)
	if err != nil {
		return nil, c.wrap(r, err)
	}
	defer c.calls.Done()
	b := &body{c: c, r: r, ctx: ctx, cancel: cancel, release: release, want: length}
	b.meter = newMeter(c.opts.IdleTimeout, c.opts.MinRate, cancel)
	if err := c.open(b, offset, length); err != nil {
		_ = b.Close()
		return nil, err
	}
	if b.want == 0 && length == 0 {
		// Nothing to read: the connection need not wait for the caller.
		_ = b.Close()
		return io.NopCloser(strings.NewReader("")), nil
	}
	return b, nil
}

func (c *HTTPClient) open(b *body, offset, length int64) error {
	switch {
	case length > 0:
		b.r.rng = "bytes=" + strconv.FormatInt(offset, 10) + "-" + strconv.FormatInt(offset+length-1, 10)
	case length == 0:
		b.r.rng = "bytes=" + strconv.FormatInt(offset, 10) + "-" + strconv.FormatInt(offset, 10)
	case offset > 0:
		b.r.rng = "bytes=" + strconv.FormatInt(offset, 10) + "-"
	}
	if err := c.fetch(b); err != nil {
		return err
	}
	if b.r.rng != "" {
		again, err := c.ranged(b, offset, length)
		if err != nil || !again {
			return err
		}
		c.noRanges.Store(true)
		_ = b.resp.Body.Close()
		b.r.rng = ""
		if err := c.fetch(b); err != nil {
			return err
		}
	}
	if b.resp.StatusCode != http.StatusOK {
		return b.statusError()
	}
	return b.whole(offset)
}

// ranged looks at the answer to a request for a range. again asks for the whole
// asset instead.
func (c *HTTPClient) ranged(b *body, offset, length int64) (again bool, err error) {
	switch b.resp.StatusCode {
	case http.StatusOK:
		c.noRanges.Store(true)
		return false, b.whole(offset)
	case http.StatusRequestedRangeNotSatisfiable:
		cr, err := parseContentRange(b.resp.Header.Get("Content-Range"))
		switch {
		case err != nil || cr.first >= 0 || cr.total > offset:
			return true, nil // it refuses what it has, or does not say why
		case offset == cr.total && length <= 0:
			b.want = 0
			return false, nil
		default:
			return false, &Error{Op: b.r.op, Handle: b.r.handle, Status: b.resp.StatusCode, Err: ErrTruncated}
		}
	case http.StatusPartialContent:
		cr, err := parseContentRange(b.resp.Header.Get("Content-Range"))
		n := cr.last - cr.first + 1
		if err != nil || cr.first != offset || length >= 0 && n > max(length, 1) ||
			b.resp.ContentLength >= 0 && b.resp.ContentLength != n {
			return true, nil
		}
		c.noRanges.Store(false)
		b.exact = true
		if length < 0 {
			b.want = n
			// To the end was asked for; less than that is no answer to it.
			b.short = cr.total >= 0 && cr.last != cr.total-1
		} else if n < length {
			b.want, b.short = n, true
		}
		return false, nil
	}
	return false, b.statusError()
}

// whole makes ready to read from an answer with the whole asset.
func (b *body) whole(offset int64) error {
	if size := b.resp.ContentLength; size >= 0 && offset > size {
		return &Error{Op: b.r.op, Handle: b.r.handle, Status: b.resp.StatusCode, Err: ErrTruncated}
	}
	b.skip = offset
	return nil
}

// statusError reads the service's explanation on the clock.
func (b *body) statusError() error {
	b.meter.waitFor(b.c.opts.IdleTimeout, errTimeout)
	defer b.meter.got(0)
	return b.c.statusError(b.r, b.resp)
}

// fetch sends the request and waits for the headers of the answer.
func (c *HTTPClient) fetch(b *body) error {
	deadline := time.Now().Add(c.opts.IdleTimeout)
	b.meter.waitFor(c.opts.IdleTimeout, errTimeout)
	resp, err := c.send(b.ctx, b.r, deadline)
	b.meter.got(0)
	if err != nil {
		return c.transportError(b.ctx, b.r, err)
	}
	b.resp = resp
	return nil
}

// body reads the content of an asset.
type body struct {
	c       *HTTPClient
	r       *request
	ctx     context.Context
	cancel  context.CancelCauseFunc
	release func()
	resp    *http.Response
	meter   *meter

	skip  int64 // bytes before the ones asked for
	want  int64 // bytes still to deliver; negative: to the end
	exact bool  // the answer was to hold exactly want bytes
	short bool  // the asset is known to end before the range asked for
	err   error

	closed atomic.Bool // Close may come from another goroutine
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.closed.Load() {
		return 0, &Error{Op: b.r.op, Handle: b.r.handle, Err: fs.ErrClosed}
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := b.read(p)
	if err != nil {
		b.err = err
		b.meter.stop()
	}
	return n, err
}

func (b *body) read(p []byte) (int, error) {
	if b.skip > 0 {
		buf := make([]byte, min(b.skip, 32<<10))
		for b.skip > 0 {
			n, err := b.next(buf[:min(b.skip, int64(len(buf)))])
			b.skip -= int64(n)
			switch {
			case err == io.EOF && b.skip == 0 && b.want < 0:
				return 0, io.EOF
			case err == io.EOF && b.skip >= 0 && b.want != 0:
				return 0, b.fail(ErrTruncated)
			case err != nil:
				return 0, b.fail(err)
			}
		}
	}
	if b.want == 0 {
		return 0, b.end()
	}
	if b.want > 0 {
		p = p[:min(int64(len(p)), b.want)]
	}
	n, err := b.next(p)
	if b.want > 0 {
		b.want -= int64(n)
	}
	switch {
	case err == nil:
		return n, nil
	case err != io.EOF:
		return n, b.fail(err)
	case b.want > 0:
		return n, b.fail(ErrTruncated)
	case n > 0:
		return n, nil // the next call reports the end
	}
	return 0, b.end()
}

// end is called where the content asked for ends.
func (b *body) end() error {
	if b.exact {
		b.exact = false
		var one [1]byte
		if n, err := b.next(one[:]); n > 0 {
			return b.fail(fmt.Errorf("%w: more content than announced", ErrInvalid))
		} else if err != nil && err != io.EOF {
			return b.fail(err)
		}
	}
	if b.short {
		return b.fail(ErrTruncated)
	}
	return io.EOF
}

// next reads from the service on the meter.
func (b *body) next(p []byte) (int, error) {
	// Whatever may still be buffered.
	if b.c.closing.Err() != nil {
		b.cancel(ErrClosed)
	}
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	for range 100 {
		b.meter.wait()
		n, err := b.resp.Body.Read(p)
		b.meter.got(n)
		if n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

func (b *body) fail(err error) error {
	if errors.Is(err, ErrTruncated) {
		return &Error{Op: b.r.op, Handle: b.r.handle, Err: err}
	}
	return b.c.transportError(b.ctx, b.r, err)
}

// Close implements io.Closer.
func (b *body) Close() error {
	b.closed.Store(true)
	b.meter.stop()
	b.release()
	b.cancel(context.Canceled)
	if b.resp != nil {
		_ = b.resp.Body.Close()
	}
	return nil
}
