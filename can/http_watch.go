package can

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"
)

// Watch implements [Watcher] by server-sent events. The events new_asset,
// asset_changed and asset_trashed are reported with the asset where their data is
// one, an event without a type as a hint; events of other types are ignored. A
// line or event of more than 1 MiB ends the watch with [ErrInvalid].
func (c *HTTPClient) Watch(parent context.Context, fn func(Event)) error {
	r := &request{op: "watch", method: http.MethodGet, path: []string{"events"}, accept: "text/event-stream", once: true}
	if c.events.missing(c.opts.Now()) {
		return c.wrap(r, ErrUnsupported)
	}
	ctx, cancel, release, err := c.begin(parent)
	if err != nil {
		return c.wrap(r, err)
	}
	defer c.calls.Done()
	defer release()
	defer cancel(context.Canceled)

	timer := time.AfterFunc(c.opts.CallTimeout, func() { cancel(errTimeout) })
	defer timer.Stop()
	resp, err := c.send(ctx, r, time.Time{})
	if err != nil {
		return c.transportError(ctx, r, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		e := c.statusError(r, resp)
		if errors.Is(e.Err, ErrUnsupported) || e.Status == http.StatusNotFound {
			return c.unsupported(&c.events, e)
		}
		return e
	}
	if mt, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || mt != "text/event-stream" {
		return &Error{Op: r.op, Status: resp.StatusCode, Err: fmt.Errorf("%w: not an event stream", ErrInvalid)}
	}
	timer.Stop()
	c.events.found()
	return c.follow(ctx, r, cancel, resp.Body, fn)
}

func (c *HTTPClient) follow(ctx context.Context, r *request, cancel func(error), stream io.Reader, fn func(Event)) error {
	idle := newMeter(c.opts.WatchIdle, 0, cancel)
	defer idle.stop()
	quiet := c.opts.WatchIdle > 0
	wait := func() {
		if quiet {
			idle.waitFor(c.opts.WatchIdle, errIdle)
		}
	}
	sse := newSSEReader(stream, maxEventBytes, wait)
	fn(Event{})
	for {
		wait()
		ev, err := sse.next()
		idle.got(0)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF // a stream has no end of its own
		}
		if err != nil {
			return c.transportError(ctx, r, err)
		}
		if out, known := ev.event(); known {
			if ctx.Err() != nil {
				return c.transportError(ctx, r, ctx.Err())
			}
			fn(out)
		}
	}
}
