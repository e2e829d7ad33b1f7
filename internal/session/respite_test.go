package session

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
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
