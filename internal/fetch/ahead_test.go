package fetch

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/transfer"
)

// coming is a content that comes as the test says.
type coming struct {
	b  []byte
	mu sync.Mutex
	// change is closed and replaced when ready, over or err do.
	change chan struct{}
	ready  int
	over   bool
	err    error
	opened int
}

func (c *coming) set(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fn()
	close(c.change)
	c.change = make(chan struct{})
}

func (c *coming) end(err error) { c.set(func() { c.over, c.err, c.ready = true, err, len(c.b) }) }

func (c *coming) Open() (io.ReadCloser, error) {
	c.set(func() { c.opened++ })
	return &comingReader{c: c}, nil
}

func (c *coming) Outboard() (*io.SectionReader, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over || c.err != nil {
		return nil, blob.ErrIncomplete
	}
	tree := blob.Sum(c.b).Outboard
	return io.NewSectionReader(bytes.NewReader(tree), 0, int64(len(tree))), nil
}

type comingReader struct {
	c  *coming
	at int
}

func (r *comingReader) Close() error { return nil }

func (r *comingReader) Read(p []byte) (int, error) {
	for {
		r.c.mu.Lock()
		ready, over, err, change := r.c.ready, r.c.over, r.c.err, r.c.change
		r.c.mu.Unlock()
		switch {
		case err != nil:
			return 0, err
		case r.at < ready:
			n := copy(p, r.c.b[r.at:ready])
			r.at += n
			return n, nil
		case over:
			return 0, io.EOF
		}
		<-change
	}
}

// aheadSource offers contents while they come.
type aheadSource struct {
	*source
	// rest is called when half of a content is there; it lets the rest come or not.
	rest func(ctx context.Context, c *coming) error
	mu   sync.Mutex
	all  []*coming
}

func (s *aheadSource) Large(ctx context.Context, w transfer.Want, progress func(done, total int64), early func(Early)) (Content, error) {
	b, err := s.get(w.Asset)
	if err != nil {
		return nil, err
	}
	c := &coming{b: b, change: make(chan struct{})}
	s.mu.Lock()
	s.all = append(s.all, c)
	s.mu.Unlock()
	early(c)
	progress(0, int64(len(b)))
	wait(ctx, time.Second)
	c.set(func() { c.ready = len(b) / 2 })
	progress(int64(len(b)/2), int64(len(b)))
	if err := s.rest(ctx, c); err != nil {
		c.end(err)
		return nil, err
	}
	progress(int64(len(b)), int64(len(b)))
	s.set(func() { s.open++ })
	return &staged{s: s.source, b: b}, nil
}

func (s *aheadSource) opened() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.all {
		c.set(func() { n += c.opened })
	}
	return n
}

// aheadWorld runs a test in which half of a content of 5 MiB comes at once.
func aheadWorld(t *testing.T, rest func(context.Context, *coming) error, fn func(t *testing.T, n *node, s *shared, src *aheadSource, d can.Digest)) {
	for _, rule := range rules {
		t.Run(fmt.Sprint(rule), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, s := newNode(t, cantest.Options{Rule: rule}), newShared(t, control.DeleteKeep)
				src := &aheadSource{source: n.src, rest: rest}
				n.with = func(c *Config) { c.Source = src }
				n.start(s)
				b, err := io.ReadAll(cantest.Generated(9, 5<<20))
				require.NoError(t, err)
				s.say(n, record.Announce, b)
				s.pass(n.lib)
				d, _ := bodyOf(b, 0)
				fn(t, n, s, src, d)
				n.stop()
				require.Empty(t, n.svc.Duplicates())
				require.Zero(t, src.open)
				for in, err := range n.inv.Intents(t.Context()) {
					require.NoError(t, err)
					t.Errorf("an intent is left: %v", in)
				}
				require.NoError(t, n.svc.Close())
				s.close()
			})
		})
	}
}

func requireHeld(t *testing.T, n *node, d can.Digest) {
	t.Helper()
	item, ok, err := n.inv.Present(t.Context(), d)
	require.NoError(t, err)
	require.True(t, ok)
	b, ok := n.svc.Content(item.Handle)
	require.True(t, ok)
	sum := blob.Sum(b)
	require.Equal(t, d, sum.Digest)
	tree, err := n.inv.OutboardChunkAt(t.Context(), d, 0)
	require.NoError(t, err)
	require.True(t, bytes.Equal(sum.Outboard, tree), "its tree is kept")
	require.Equal(t, 1, n.svc.Len())
}

func TestContentIsIngestedWhileItComes(t *testing.T) {
	aheadWorld(t, func(ctx context.Context, c *coming) error {
		wait(ctx, time.Second)
		c.end(nil)
		return nil
	}, func(t *testing.T, n *node, _ *shared, src *aheadSource, d can.Digest) {
		until(t, "it is here", time.Minute, n.idle)
		requireHeld(t, n, d)
		require.EqualValues(t, 1, n.ing.Stats().Posted)
		require.Positive(t, src.opened())
		require.Equal(t, 1, n.count(Fetched))
	})
}

// TestContentThatStopsComingIsIngestedLater: what was begun ahead is given up and
// leaves nothing behind; the content is ingested once it is whole.
func TestContentThatStopsComingIsIngestedLater(t *testing.T) {
	aheadWorld(t, func(ctx context.Context, c *coming) error {
		wait(ctx, 3*time.Second)
		c.end(transfer.ErrSlow)
		wait(ctx, 10*time.Second)
		return nil
	}, func(t *testing.T, n *node, _ *shared, src *aheadSource, d can.Digest) {
		until(t, "it is here", time.Minute, n.idle)
		requireHeld(t, n, d)
		require.EqualValues(t, 2, n.ing.Stats().Posted)
		require.Zero(t, n.ing.Stats().Ambiguous)
		require.Equal(t, 1, n.src.got[d])
	})
}

// TestWrongContentIsNeverIngestedAhead: the end of what does not have the digest is
// never sent.
func TestWrongContentIsNeverIngestedAhead(t *testing.T) {
	aheadWorld(t, func(ctx context.Context, c *coming) error {
		wait(ctx, time.Second)
		return transfer.ErrBadContent
	}, func(t *testing.T, n *node, s *shared, src *aheadSource, d can.Digest) {
		until(t, "it failed", time.Minute, func() bool { return n.count(Failed) > 0 })
		require.Positive(t, src.opened())
		require.Zero(t, n.svc.Len())
		s.remove(d)
		s.pass(n.lib)
		until(t, "it is let go", time.Minute, n.idle)
	})
}

// TestARemovalEndsAnIngestAhead: the asset leaves the library while half of it is
// with the service.
func TestARemovalEndsAnIngestAhead(t *testing.T) {
	aheadWorld(t, func(ctx context.Context, _ *coming) error {
		<-ctx.Done()
		return ctx.Err()
	}, func(t *testing.T, n *node, s *shared, src *aheadSource, d can.Digest) {
		until(t, "it began", time.Minute, func() bool { return src.opened() > 0 })
		s.remove(d)
		s.pass(n.lib)
		until(t, "it is let go", time.Minute, n.idle)
		require.Zero(t, n.svc.Len())
	})
}

// TestAServiceThatFailsAheadIsTriedAgain: the outcome of an ingest ahead counts as
// that of any other.
func TestAServiceThatFailsAheadIsTriedAgain(t *testing.T) {
	aheadWorld(t, func(ctx context.Context, c *coming) error {
		wait(ctx, time.Second)
		c.end(nil)
		return nil
	}, func(t *testing.T, n *node, _ *shared, _ *aheadSource, d can.Digest) {
		f := n.svc.Inject(cantest.Fault{Route: cantest.RouteIngest, Times: 1, Action: cantest.Action{Kind: cantest.ActStatusAfter}})
		until(t, "it is here", 10*time.Minute, n.idle)
		require.Equal(t, 1, f.Fired())
		requireHeld(t, n, d)
		require.EqualValues(t, 1, n.ing.Stats().Posted, "it is looked for, not sent again")
	})
}
