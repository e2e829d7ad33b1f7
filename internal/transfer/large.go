package transfer

import (
	"context"
	"errors"
	"fmt"

	"github.com/cansync/cansync/internal/blob"
)

// maxRepairs is how often a stage whose bytes were damaged on disk is completed
// again.
const maxRepairs = 3

// Large fetches a content of any size from all peers that have it, group by
// verified group, and holds the whole against its SHA-256. What an earlier attempt
// staged is not fetched again, in this process or a later one. progress, which may
// be nil, is called from the calling goroutine with the bytes that are there and
// their total.
//
// The caller ends the content with Discard or Close. Errors match [ErrBadContent],
// after which nothing is kept, [ErrNoSpace], [ErrOpen], [ErrClosed], the context's,
// or are a [FetchError]; what was verified until then stays staged.
func (c *Client) Large(ctx context.Context, w Want, progress func(done, total int64)) (*Content, error) {
	return c.LargeEarly(ctx, w, progress, nil)
}

// LargeEarly is Large for a caller who begins to pass the content on while it
// comes. early, if not nil, is called from the calling goroutine before the first
// byte is fetched, unless all of the content is there or it is small.
func (c *Client) LargeEarly(ctx context.Context, w Want, progress func(done, total int64), early func(*Early)) (*Content, error) {
	if w.Size > blob.MaxSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, w.Size)
	}
	ctx, leave, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	t, err := c.fetchLarge(ctx, w, progress, early)
	return t, leave(err)
}

func (c *Client) fetchLarge(ctx context.Context, w Want, progress func(done, total int64), early func(*Early)) (*Content, error) {
	if progress == nil {
		progress = func(int64, int64) {}
	}
	key := blob.StageKey{Library: w.Library, Digest: w.Asset}
	c.mu.Lock()
	taken := c.open[key]
	c.open[key] = true
	c.mu.Unlock()
	if taken {
		return nil, fmt.Errorf("%w: %s", ErrOpen, w.Asset)
	}
	gone := func() {
		c.mu.Lock()
		delete(c.open, key)
		c.mu.Unlock()
	}
	to, err := c.fetchTo(ctx, key, w, progress, early)
	if err != nil {
		gone()
		return nil, err
	}
	return &Content{sink: to, size: w.Size, gone: gone}, nil
}

// fetchTo fetches a content into a sink, which is returned complete, or put away.
func (c *Client) fetchTo(ctx context.Context, key blob.StageKey, w Want, progress func(done, total int64), early func(*Early)) (sink, error) {
	if w.Size <= SmallLimit {
		return c.fetchSmall(ctx, key, w, progress)
	}
	select {
	case c.large <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-c.large }()
	var to sink
	var err error
	if c.cfg.Stages != nil {
		to, err = c.openDisk(key, w)
	} else {
		to, err = c.mem.open(key, w.Root, w.Size)
	}
	if err != nil {
		return nil, err
	}
	var e *Early
	if early != nil && !to.have().Full() {
		e = newEarly(to, int64(w.Size))
		early(e)
	}
	for repairs := 0; ; repairs++ {
		if err = c.download(ctx, w, to, progress, e); err == nil {
			err = to.finish()
		}
		e.end(err) // what was read of damaged bytes must not be completed
		if !errors.Is(err, blob.ErrDamaged) || repairs == maxRepairs {
			break
		}
		c.log.Warn("staged bytes were damaged and are fetched again", "asset", w.Asset, "error", err)
	}
	switch {
	case err == nil:
		return to, nil
	case errors.Is(err, ErrBadContent):
		return nil, errors.Join(err, to.remove())
	}
	if cerr := to.close(); cerr != nil {
		c.log.Warn("stage not closed in good order", "asset", w.Asset, "error", cerr)
	}
	return nil, noSpace(err)
}

// fetchSmall fetches a small content as Small does and keeps it in memory.
func (c *Client) fetchSmall(ctx context.Context, key blob.StageKey, w Want, progress func(done, total int64)) (sink, error) {
	to, err := c.mem.open(key, w.Root, w.Size)
	if err != nil {
		return nil, err
	}
	if !to.have().Full() {
		if w.Size > 0 {
			progress(0, int64(w.Size))
		}
		data, err := c.small(ctx, w)
		if err != nil {
			return nil, errors.Join(err, to.remove())
		}
		to.fill(data)
	}
	progress(int64(w.Size), int64(w.Size))
	if err := to.finish(); err != nil {
		return nil, errors.Join(err, to.remove())
	}
	return to, nil
}
