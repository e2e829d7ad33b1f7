package session

import (
	"crypto/rand"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/record"
)

func TestRespite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r respite
		round := func(early, news bool) time.Duration {
			r.early, r.news = early, news
			return r.ended()
		}
		n := 3
		early := func() int { return n }
		require.Zero(t, round(false, false))
		require.Zero(t, round(false, true))
		require.Zero(t, round(true, true), "what is timely still comes")
		require.False(t, r.holds())
		for _, want := range []time.Duration{2, 4, 8, 16, 32, 60, 60} {
			require.Equal(t, want*time.Minute, round(true, false))
			require.True(t, r.holds())
			require.False(t, r.over(early))
			time.Sleep(want * time.Minute)
			require.False(t, r.holds())
		}
		require.Zero(t, round(false, false))
		require.Equal(t, 2*time.Minute, round(true, false), "from the start")
		r.end()
		require.False(t, r.holds())

		round(true, false)
		n = 0 // the clock is right
		require.True(t, r.over(early))
		require.False(t, r.over(early), "once")
		round(true, false)
		r.look(early)
		require.False(t, r.holds())

		r.told(100 * time.Hour)
		r.look(early)
		require.False(t, r.over(early))
		require.True(t, r.holds(), "the peer waits, not this side")
		time.Sleep(restMost)
		require.False(t, r.holds(), "an hour at most")
	})
}

// Records whose author stays unknown are no reason to reconcile without end.
func TestAnUnknownAuthorIsAskedForMoreAndMoreSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeper(t)
		<-k.Ready()
		l := k.link(&written{})
		l.log = slog.New(slog.DiscardHandler)
		stranger, err := capability.NewSigningKey(rand.Reader)
		require.NoError(t, err)
		begun := time.Now()
		var asked []time.Duration
		come := func(i int) {
			d, err := record.Asset(record.Announce, record.ClockAt(time.Now()), k.Library(), can.Digest{1, byte(i), byte(i >> 8)},
				capability.CertID{9}, record.AssetBody{Size: 1, Root: [32]byte{1}})
			require.NoError(t, err)
			recs, err := record.SignWith(stranger, []record.Draft{d})
			require.NoError(t, err)
			require.NoError(t, l.apply(t.Context(), inbound{typ: frameRecords, recs: k.Check(recs)}))
			require.True(t, k.Refuses(recs[0].ID()))
			select {
			case <-l.again:
				asked = append(asked, time.Since(begun))
			default:
			}
		}
		for i := range 300 {
			come(i)
			time.Sleep(time.Second)
		}
		var want []time.Duration
		for _, s := range []int{0, 4, 12, 28, 60, 120, 180, 240} {
			want = append(want, time.Duration(s)*time.Second)
		}
		require.Equal(t, want, asked)
		// Something new in the control set is a reason to ask at once, and what was refused may
		// count now.
		asked = nil
		d, err := control.NewDescription(0, k.Library(), k.cert, control.Description{Name: "m"})
		require.NoError(t, err)
		d.Clock = record.ClockAt(time.Now())
		recs, err := record.SignWith(k.key, []record.Draft{d})
		require.NoError(t, err)
		require.NoError(t, l.apply(t.Context(), inbound{typ: frameRecords, control: true, recs: k.Check(recs)}))
		come(300)
		require.Len(t, asked, 1)
		require.NoError(t, k.Close())
	})
}
