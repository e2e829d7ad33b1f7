package transfer

import (
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/blob"
)

// TestContentCanBeReadWhileItComes reads contents, staged on disk and in memory,
// from the moment at which their fetch begins.
func TestContentCanBeReadWhileItComes(t *testing.T) {
	for name, staged := range map[string]bool{"disk": true, "memory": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var o nodeOptions
				if staged {
					_, o.client = stages(t)
				}
				a, b, lib := pair(t, nodeOptions{}, o)
				w := a.announce(lib, a.hold(random(t, 3, 3<<20+5)))
				want := random(t, 3, 3<<20+5)
				var got []byte
				var rerr error
				var wg sync.WaitGroup
				c, err := b.client.LargeEarly(t.Context(), w, nil, func(e *Early) {
					_, terr := e.Outboard()
					require.ErrorIs(t, terr, blob.ErrIncomplete)
					rc, oerr := e.Open()
					require.NoError(t, oerr)
					wg.Go(func() {
						got, rerr = io.ReadAll(rc)
						p := make([]byte, 7)
						_, aerr := rc.(io.ReaderAt).ReadAt(p, 1<<20)
						require.NoError(t, aerr)
						require.Equal(t, want[1<<20:1<<20+7], p)
						require.NoError(t, rc.Close())
						r, terr := e.Outboard()
						require.NoError(t, terr)
						tree, terr := io.ReadAll(r)
						require.NoError(t, terr)
						require.Equal(t, blob.Sum(want).Outboard, tree)
					})
				})
				require.NoError(t, err)
				wg.Wait()
				require.NoError(t, rerr)
				require.Equal(t, want, got)
				require.NoError(t, c.Discard())
			})
		})
	}
}

// TestTheEndOfWrongContentIsWithheld: who reads a content while it comes never gets
// to the end of one that fits the record's BLAKE3 root and not its digest.
func TestTheEndOfWrongContentIsWithheld(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		_, stage := stages(t)
		a, b, lib := pair(t, nodeOptions{}, nodeOptions{client: stage})
		data := random(t, 4, 2<<20)
		sum := blob.Sum(data)
		sum.Digest = can.Digest{1}
		a.know(a.can.Add(data, can.Metadata{}), sum)
		a.trusting()
		w := a.announce(lib, sum)
		knows(t, lib, w)
		var got []byte
		var rerr error
		var wg sync.WaitGroup
		_, err := b.client.LargeEarly(t.Context(), w, nil, func(e *Early) {
			rc, oerr := e.Open()
			require.NoError(t, oerr)
			wg.Go(func() {
				got, rerr = io.ReadAll(rc)
				require.NoError(t, rc.Close())
				_, terr := e.Outboard()
				require.ErrorIs(t, terr, ErrBadContent)
			})
		})
		require.ErrorIs(t, err, ErrBadContent)
		wg.Wait()
		require.ErrorIs(t, rerr, ErrBadContent)
		require.LessOrEqual(t, len(got), len(data)-blob.GroupSize)
	})
}

// TestAReaderDoesNotWaitForEver: one that waits too long, or is closed, returns.
func TestAReaderDoesNotWaitForEver(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		to, err := newRAM(1<<20).open(blob.StageKey{}, [32]byte{}, 1<<18)
		require.NoError(t, err)
		e := newEarly(to, 1<<18)
		rc, err := e.Open()
		require.NoError(t, err)
		p := make([]byte, 10)
		_, err = rc.Read(p)
		require.ErrorIs(t, err, ErrSlow)
		rc, err = e.Open()
		require.NoError(t, err)
		done := make(chan error)
		go func() {
			_, err := rc.Read(p)
			done <- err
		}()
		require.NoError(t, rc.Close())
		require.Error(t, <-done)
		e.end(ErrClosed)
		rc, err = e.Open()
		require.NoError(t, err)
		_, err = rc.Read(p)
		require.ErrorIs(t, err, ErrClosed)
		require.NoError(t, rc.Close())
	})
}

// dribble is a content of which a group comes now and then.
type dribble struct {
	sink
	groups atomic.Uint64
}

func (d *dribble) prefix() uint64                        { return d.groups.Load() }
func (d *dribble) readAt(p []byte, _ int64) (int, error) { return len(p), nil }

// TestASlowPeerIsNoSlowService: a content that dribbles is given up long before an
// ingest of it may be taken for one that hangs.
func TestASlowPeerIsNoSlowService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 4 << 20
		to := new(dribble)
		e := newEarly(to, size)
		rc, err := e.Open()
		require.NoError(t, err)
		var wg sync.WaitGroup
		stop := make(chan struct{})
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(patience - 100*time.Millisecond):
					to.groups.Add(1)
					e.advance()
				}
			}
		})
		begun := time.Now()
		n, err := io.Copy(io.Discard, rc)
		require.ErrorIs(t, err, ErrSlow)
		require.Equal(t, patienceInAll(size), time.Since(begun))
		require.Greater(t, n, int64(5*blob.GroupSize), "it came, each time before patience ended")
		close(stop)
		wg.Wait()
	})
}
