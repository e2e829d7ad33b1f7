package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
)

// taking is a client that reads the content in steps, takes its own time over each,
// and gives up with the context, as one does that knows nothing of clocks.
type taking struct {
	can.Client
	step  time.Duration
	whole bool // it stops at the end of the content instead of storing it
	calls atomic.Int64
}

func (c *taking) Ingest(ctx context.Context, in can.Ingest) (can.Asset, error) {
	c.calls.Add(1)
	rc, err := in.Content()
	if err != nil {
		return can.Asset{}, fmt.Errorf("%w: %w", can.ErrContent, err)
	}
	defer func() { _ = rc.Close() }()
	one := make([]byte, 1)
	for {
		_, err := rc.Read(one)
		if err == io.EOF && c.whole {
			<-ctx.Done()
		}
		if ctx.Err() != nil {
			return can.Asset{}, ctx.Err()
		}
		if err != nil {
			return can.Asset{}, fmt.Errorf("%w: %w", can.ErrContent, err)
		}
		wait(ctx, c.step)
	}
}

// dribble gives a byte at a time, after a pause.
type dribble struct {
	left  int
	pause time.Duration
	end   error
}

func (d *dribble) Read(p []byte) (int, error) {
	if d.left == 0 {
		return 0, d.end
	}
	time.Sleep(d.pause)
	d.left--
	return copy(p[:1], "x"), nil
}

func TestASlowSourceIsNotTheServicesFault(t *testing.T) {
	for _, c := range []struct {
		name    string
		source  dribble
		step    time.Duration
		whole   bool
		service bool // is to blame
	}{
		{"a source that dribbles", dribble{1 << 20, 2 * time.Second, io.EOF}, time.Millisecond, false, false},
		{"a source that hangs", dribble{1 << 20, time.Hour, io.EOF}, 0, false, false},
		{"a source whose own service is away", dribble{0, 0, fmt.Errorf("peer: %w", can.ErrUnavailable)}, 0, false, false},
		{"a source whose own deadline passed", dribble{0, 0, context.DeadlineExceeded}, 0, false, false},
		{"a service that dribbles", dribble{1 << 20, time.Millisecond, io.EOF}, 2 * time.Second, false, true},
		{"a service that hangs at the end", dribble{10, time.Millisecond, io.EOF}, 0, true, true},
		{"both, and the content was whole", dribble{10, 2 * time.Second, io.EOF}, 0, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, cantest.Options{})
				defer w.close()
				w.stop()
				client := &taking{Client: w.svc, step: c.step, whole: c.whole}
				w.start(client)
				for n := range tripAfter {
					j := job(n)
					src := c.source
					j.Content = func() (io.ReadCloser, error) { s := src; return io.NopCloser(&s), nil }
					_, err := w.g.Ingest(t.Context(), j)
					require.Error(t, err)
					require.Equal(t, !c.service, errors.Is(err, ErrContent), "%v", err)
				}
				require.EqualValues(t, tripAfter, client.calls.Load())
				require.Equal(t, c.service, w.g.Stats().Parallel < startParallel, "who fails is asked for less")
				if !c.service {
					require.True(t, w.g.Health().Up)
					require.Zero(t, w.intents(), "nothing is in doubt")
				}
			})
		})
	}
}
