package cantest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync/atomic"
	"testing/iotest"

	"github.com/cansync/cansync/can"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

var errSource = errors.New("the source fails")

func (c *check) pagingDuringInserts() {
	old := map[string]bool{}
	for i := range 30 {
		old[c.ingest(pattern(uint64(300+i), 30), can.Metadata{}).Handle] = true
	}
	// Oldest first, assets that come in appear at the end: none is missed.
	seen := map[string]bool{}
	for offset, i := 0, 0; ; i++ {
		p, err := c.client.List(c.ctx, can.ListOptions{Limit: 5, Offset: offset, Order: can.Oldest})
		require.NoError(c, err)
		if len(p.Assets) == 0 {
			break
		}
		offset += len(p.Assets)
		for _, a := range p.Assets {
			seen[a.Handle] = true
		}
		if i < 4 {
			c.ingest(pattern(uint64(400+i), 30), can.Metadata{})
		}
	}
	for h := range old {
		require.True(c, seen[h], "an asset was missed")
	}
}

func (c *check) badContent() {
	b := pattern(11, 70_000)
	size := int64(len(b))
	// reader returns content that fails at the end of what it has.
	reader := func(n int, end error) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) {
			rc, err := bytesOf(b[:n])()
			if end != nil {
				return io.NopCloser(io.MultiReader(rc, iotest.ErrReader(end))), err
			}
			return rc, err
		}
	}
	for name, in := range map[string]can.Ingest{
		"ends early":              {Content: reader(60_000, nil), Size: size},
		"ends one byte early":     {Content: reader(len(b)-1, nil), Size: size},
		"is empty":                {Content: reader(0, nil), Size: 1},
		"is longer":               {Content: reader(len(b), nil), Size: size - 1},
		"is longer than nothing":  {Content: reader(1, nil), Size: 0},
		"fails at once":           {Content: reader(0, errSource), Size: size},
		"fails half way":          {Content: reader(30_000, errSource), Size: size},
		"fails after the content": {Content: reader(len(b), errSource), Size: size},
		"does not open":           {Content: func() (io.ReadCloser, error) { return nil, errSource }, Size: size},
		"ends unexpectedly":       {Content: reader(10, io.ErrUnexpectedEOF), Size: size},
	} {
		_, err := c.client.Ingest(c.ctx, in)
		require.ErrorIs(c, err, can.ErrContent, name)
		require.Equal(c, can.OutcomeNotStored, can.OutcomeOf(err), name)
		require.Empty(c, c.all(can.Newest, 10), "%s: something was stored", name)
	}
	_, err := c.client.Ingest(c.ctx, can.Ingest{Content: bytesOf(nil), Size: -1})
	require.Equal(c, can.OutcomeNotStored, can.OutcomeOf(err))
	_, err = c.client.Ingest(c.ctx, can.Ingest{Size: 1})
	require.Equal(c, can.OutcomeNotStored, can.OutcomeOf(err))
	// The client is none the worse for it.
	c.ingest(b, can.Metadata{})
}

// counted counts Close.
type counted struct {
	io.Reader
	closed *atomic.Int32
}

func (r counted) Close() error { r.closed.Add(1); return nil }

func (c *check) contentOnce() {
	b := pattern(12, 5000)
	var opened, closed atomic.Int32
	_, err := c.client.Ingest(c.ctx, can.Ingest{Size: int64(len(b)), Content: func() (io.ReadCloser, error) {
		opened.Add(1)
		rc, err := bytesOf(b)()
		return counted{iotest.OneByteReader(rc), &closed}, err
	}})
	require.NoError(c, err)
	require.EqualValues(c, 1, opened.Load(), "content was opened again")
	require.EqualValues(c, 1, closed.Load(), "content was not closed once")
}

func (c *check) contexts() {
	ctx, cancel := context.WithCancel(c.ctx)
	cancel()
	a := c.ingest([]byte("x"), can.Metadata{})
	_, err := c.client.List(ctx, can.ListOptions{})
	require.ErrorIs(c, err, context.Canceled)
	_, err = c.client.Open(ctx, a.Handle, 0, -1)
	require.ErrorIs(c, err, context.Canceled)
	_, err = c.client.Ingest(ctx, can.Ingest{Content: bytesOf([]byte("y")), Size: 1})
	require.ErrorIs(c, err, context.Canceled)
	require.Len(c, c.all(can.Newest, 10), 1, "stored under a context that had ended")
	expired, stop := context.WithTimeout(c.ctx, -1)
	defer stop()
	_, err = c.client.List(expired, can.ListOptions{})
	require.ErrorIs(c, err, context.DeadlineExceeded)
}

// trigger calls fn when the read reaches at.
type trigger struct {
	io.Reader
	at int
	fn func()
}

func (r *trigger) Read(p []byte) (int, error) {
	if r.at <= 0 && r.fn != nil {
		r.fn()
		r.fn = nil
	}
	if r.at > 0 {
		p = p[:min(len(p), r.at)]
	}
	n, err := r.Reader.Read(p)
	r.at -= n
	return n, err
}

func (c *check) cancelIngest() {
	const n = 300_000
	for i, at := range []int{0, 1, n / 2, n - 1} {
		b := pattern(uint64(700+i), n)
		ctx, cancel := context.WithCancel(c.ctx)
		_, err := c.client.Ingest(ctx, can.Ingest{Size: int64(len(b)), Content: func() (io.ReadCloser, error) {
			rc, err := bytesOf(b)()
			return io.NopCloser(&trigger{rc, at, cancel}), err
		}})
		cancel()
		if err == nil {
			continue // it was too late to stop
		}
		require.ErrorIs(c, err, context.Canceled, "at %d", at)
		if can.OutcomeOf(err) == can.OutcomeNotStored {
			// What an earlier round left unknown may have been stored meanwhile.
			for _, a := range c.all(can.Newest, 10) {
				got, err := c.read(a.Handle, 0, -1)
				require.NoError(c, err)
				require.False(c, bytes.Equal(b, got), "at %d: stored all the same", at)
			}
		}
	}
}

func (c *check) cancelRead() {
	b := pattern(14, c.suite.MaxContent)
	a := c.ingest(b, can.Metadata{})
	for _, at := range []int{1, len(b) / 2} {
		ctx, cancel := context.WithCancel(c.ctx)
		rc, err := c.client.Open(ctx, a.Handle, 0, -1)
		require.NoError(c, err)
		_, err = io.ReadFull(rc, make([]byte, at))
		require.NoError(c, err)
		cancel()
		// What is buffered may still come, then the context's error.
		if _, err = io.Copy(io.Discard, rc); err != nil {
			require.ErrorIs(c, err, context.Canceled)
		}
		require.NoError(c, rc.Close())
		require.NoError(c, rc.Close(), "closing twice")
		_, err = rc.Read(make([]byte, 1))
		require.Error(c, err, "read after close")
	}
	rc, err := c.client.Open(c.ctx, a.Handle, 0, -1)
	require.NoError(c, err)
	require.NoError(c, rc.Close(), "closing unread")
}

func (c *check) concurrent() {
	g, ctx := errgroup.WithContext(c.ctx)
	handles := make([]string, 16)
	for i := range handles {
		g.Go(func() error {
			b := pattern(uint64(500+i), 2000+i)
			a, err := c.client.Ingest(ctx, can.Ingest{Content: bytesOf(b), Size: int64(len(b))})
			if err != nil {
				return err
			}
			handles[i] = a.Handle
			rc, err := c.client.Open(ctx, a.Handle, int64(i), -1)
			if err != nil {
				return err
			}
			got, err := io.ReadAll(rc)
			if err = errors.Join(err, rc.Close()); err != nil {
				return err
			}
			if !slices.Equal(got, b[i:]) {
				return errors.New("another asset's content")
			}
			_, err = c.client.List(ctx, can.ListOptions{Limit: 5})
			return err
		})
	}
	require.NoError(c, g.Wait())
	require.Len(c, c.all(can.Newest, 100), len(handles))
	slices.Sort(handles)
	require.Len(c, slices.Compact(handles), 16)
}
