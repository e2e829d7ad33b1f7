package watchdog

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cansync/cansync/can"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service gives piece bytes at a time, each after a pause, the opening too.
type service struct {
	size, piece  int
	pause, first time.Duration
	closed       int
}

func (s *service) Open(ctx context.Context, _ string, _, _ int64) (io.ReadCloser, error) {
	return &reading{s, ctx, s.size}, pass(ctx, s.first)
}

type reading struct {
	s    *service
	ctx  context.Context
	left int
}

func (r *reading) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	if err := pass(r.ctx, r.s.pause); err != nil {
		return 0, err
	}
	n := min(r.s.piece, r.left, len(p))
	r.left -= n
	return n, nil
}

func (r *reading) Close() error {
	r.s.closed++
	return nil
}

func pass(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

const wait = 30 * time.Second

func read(ctx context.Context, s *service) (int64, time.Duration, error) {
	begun := time.Now()
	rc, err := Open(ctx, s, "a", 0, -1, wait)
	if err != nil {
		return 0, time.Since(begun), err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, rc, make([]byte, 1<<20))
	return n, time.Since(begun), errors.Join(err, rc.Close())
}

func TestSlowServices(t *testing.T) {
	for name, c := range map[string]struct {
		s    service
		slow bool
		// at which the call has ended
		within time.Duration
	}{
		"at once":                 {service{size: 10 << 20, piece: 1 << 20}, false, 0},
		"slow from the start":     {service{size: 1 << 20, piece: 1 << 20, first: 29 * time.Second}, false, 29 * time.Second},
		"never opens":             {service{size: 1, piece: 1, first: time.Hour}, true, wait},
		"hangs":                   {service{size: 10, piece: 1, pause: time.Hour}, true, wait},
		"a byte each second":      {service{size: 1 << 20, piece: 1, pause: time.Second}, true, wait},
		"a byte each 29 s":        {service{size: 1 << 20, piece: 1, pause: 29 * time.Second}, true, wait},
		"as slow as it may":       {service{size: 100 << 20, piece: MinRate, pause: time.Second}, false, 1600 * time.Second},
		"half as fast":            {service{size: 100 << 20, piece: MinRate, pause: 2 * time.Second}, true, 61 * time.Second},
		"half as fast, but small": {service{size: 10 * MinRate, piece: MinRate, pause: 2 * time.Second}, false, 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, took, err := read(t.Context(), &c.s)
				require.LessOrEqual(t, took, c.within)
				if c.slow {
					require.ErrorIs(t, err, ErrSlow)
					require.ErrorIs(t, err, can.ErrUnavailable)
					return
				}
				require.NoError(t, err)
				require.EqualValues(t, c.s.size, n)
				require.Equal(t, 1, c.s.closed)
			})
		})
	}
}

// Who reads may take all the time that there is.
func TestTheReaderMayBeSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rc, err := Open(t.Context(), &service{size: 10, piece: 1, pause: time.Second}, "a", 0, -1, wait)
		require.NoError(t, err)
		for range 10 {
			time.Sleep(time.Hour)
			_, err := rc.Read(make([]byte, 1))
			require.NoError(t, err)
		}
		require.NoError(t, rc.Close())
	})
}

// The end of the caller is not the service's fault.
func TestTheCallerEnds(t *testing.T) {
	for _, s := range []service{{first: time.Hour}, {size: 1, pause: time.Hour}} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, took, err := read(ctx, &s)
			require.Equal(t, time.Second, took)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.NotErrorIs(t, err, ErrSlow)
		})
	}
}
