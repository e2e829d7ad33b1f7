package replica_test

import (
	"context"
	"crypto/sha256"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/store/memory"
	"github.com/cansync/cansync/transport"
)

// cutCtx is canceled after it was looked at n times.
type cutCtx struct {
	context.Context
	n *int
}

func (c cutCtx) Err() error {
	*c.n--
	if *c.n < 0 {
		return context.Canceled
	}
	return nil
}

func TestWideningThatFailsKeepsWhatIsOwed(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	s := memory.New()
	r := w.open(t, s)
	_, err := r.Apply(ctx, w.control, transport.PeerID{})
	check(t, err)
	check(t, r.SetOwnView(ctx, filter.Filter{MIMEPrefix: "image/"}))
	const n = 1500
	for i := range n {
		rec := w.sign(t, 0, record.Announce, sha256.Sum256([]byte{byte(i), byte(i >> 8), 77}), record.ClockAt(start), "text/plain", 1)
		_, err = r.Apply(ctx, []record.Record{rec}, transport.PeerID{9})
		check(t, err)
	}
	owed := func() (k int) {
		for _, err := range r.Owed(ctx, nil, record.ID{}) {
			check(t, err)
			k++
		}
		return k
	}
	require.Equal(t, n, owed())
	failed := 0
	for budget := 1; budget < 20000; budget = budget*5/4 + 1 {
		b := budget
		if err := r.SetOwnView(cutCtx{ctx, &b}, filter.Filter{}); err == nil {
			require.Positive(t, failed, "no fault injected")
			require.Equal(t, filter.Filter{}, r.OwnView())
			return
		}
		failed++
		require.Equal(t, filter.Filter{MIMEPrefix: "image/"}, r.OwnView())
		require.Equal(t, n, owed(), "budget %d", budget)
	}
	require.Fail(t, "never went through")
}

// What a wider view holds is owed no longer, even if that could not be written down
// at once, or the node was closed meanwhile.
func TestWhatAWiderViewHoldsIsOwedNoLonger(t *testing.T) {
	for _, own := range []filter.Filter{{}, {MIMEPrefix: "text/"}} {
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			w := newWorld(t)
			s := memory.New()
			r := w.open(t, s)
			_, err := r.Apply(ctx, w.control, transport.PeerID{})
			check(t, err)
			images := filter.Filter{MIMEPrefix: "image/"}
			check(t, r.SetOwnView(ctx, images))
			const n = 20
			for i := range n {
				mime := []string{"text/plain", "audio/ogg"}[i%2]
				rec := w.sign(t, 0, record.Announce, sha256.Sum256([]byte{byte(i), 77}), record.ClockAt(start), mime, 1)
				_, err = r.Apply(ctx, []record.Record{rec}, transport.PeerID{9})
				check(t, err)
			}
			owed := func() (k int) {
				for _, err := range r.Owed(ctx, nil, record.ID{}) {
					check(t, err)
					k++
				}
				return k
			}
			left := 0
			if !own.IsZero() {
				left = n / 2
			}
			require.Equal(t, n, owed())
			failed := 0
			for budget := 1; ; budget++ {
				b := budget
				if err := r.SetOwnView(cutCtx{ctx, &b}, own); err != nil {
					continue
				}
				require.Equal(t, own, r.OwnView())
				if owed() == left && b >= 0 {
					break
				}
				if owed() != left {
					failed++
				}
				if failed%3 == 2 {
					check(t, r.Close())
					r = w.openView(t, s, own)
				}
				time.Sleep(time.Minute + time.Second)
				synctest.Wait()
				require.Equal(t, left, owed(), "budget %d", budget)
				check(t, r.SetOwnView(ctx, images))
				require.Equal(t, n, owed())
			}
			t.Logf("failed in force %d times", failed)
			require.Positive(t, failed, "no fault injected")
			check(t, r.Close())
		})
	}
}
