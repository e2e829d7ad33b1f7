package fetch

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/transfer"
)

// resumed gives half of a content and breaks off, waits for a peer from then on, and
// gives the rest.
type resumed struct {
	*source
	tries int
}

func (s *resumed) Large(ctx context.Context, w transfer.Want, progress func(done, total int64), _ func(Early)) (Content, error) {
	b, err := s.get(w.Asset)
	if err != nil {
		return nil, err
	}
	total := int64(len(b))
	first := false
	s.set(func() { s.tries++; first = s.tries == 1 })
	if first {
		progress(0, total)
		progress(total/2, total)
		return nil, transfer.ErrNoPeer
	}
	progress(total/2, total)
	wait(ctx, time.Minute)
	progress(total/2+1, total)
	wait(ctx, time.Minute)
	progress(total, total)
	s.set(func() { s.open++ })
	return &staged{s: s.source, b: b}, nil
}

func TestATransferThatGoesOnLacksNoPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, s := newNode(t, cantest.Options{}), newShared(t, control.DeleteKeep)
		src := &resumed{source: n.src}
		n.with = func(c *Config) { c.Source = src }
		n.start(s)
		b, err := io.ReadAll(cantest.Generated(9, 5<<20))
		require.NoError(t, err)
		s.say(n, record.Announce, b)
		s.pass(n.lib)
		d, _ := bodyOf(b, 0)
		at := func() replica.Work {
			synctest.Wait()
			w, ok, err := n.lib.Work(t.Context(), d)
			require.NoError(t, err)
			require.True(t, ok)
			return w
		}
		again := func() (yes bool) {
			src.set(func() { yes = src.tries == 2 })
			return yes
		}
		for !again() {
			time.Sleep(time.Second)
		}
		require.Equal(t, replica.NoPeer, at().Cause, "nothing came since")
		require.Equal(t, replica.Partial, at().State)
		time.Sleep(time.Minute)
		require.Equal(t, replica.NoCause, at().Cause)
		require.Equal(t, replica.Partial, at().State)
		time.Sleep(time.Minute)
		synctest.Wait()
		requireHeld(t, n, d)
		n.stop()
		require.NoError(t, n.svc.Close())
		s.close()
	})
}
