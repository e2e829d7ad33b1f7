package meter

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestSteadyTraffic(t *testing.T) {
	var r Rate
	now := start
	require.Zero(t, r.PerSecond(now))
	for range 1000 {
		r.Add(now, 1000)
		now = now.Add(10 * time.Millisecond)
	}
	require.InEpsilon(t, 100_000, r.PerSecond(now), 0.1)
	for range 1000 { // ten times as fast
		r.Add(now, 10_000)
		now = now.Add(10 * time.Millisecond)
	}
	require.InEpsilon(t, 1_000_000, r.PerSecond(now), 0.1)
	require.Zero(t, r.PerSecond(now.Add(Window+time.Second)))
	require.Zero(t, r.PerSecond(now.Add(time.Hour)))
}

func TestTheFirstBytesAreNoHugeRate(t *testing.T) {
	var r Rate
	r.Add(start, 1<<20)
	require.EqualValues(t, 1<<20, r.PerSecond(start))
	require.EqualValues(t, 1<<19, r.PerSecond(start.Add(2*time.Second)))
}

func TestAClockThatGoesBackIsHarmless(t *testing.T) {
	var r Rate
	r.Add(start, 1000)
	r.Add(start.Add(time.Second), 1000)
	r.Add(start.Add(-time.Hour), 1000)
	require.EqualValues(t, 3000, r.PerSecond(start.Add(time.Second)))
	require.GreaterOrEqual(t, r.PerSecond(start.Add(-time.Hour)), int64(0))
}

// Over any traffic the rate is that of the bytes of the last seconds, give or take
// a slot.
func TestAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type entry struct {
			at time.Time
			n  int64
		}
		var r Rate
		var all []entry
		now := start
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(2*time.Second)).Draw(t, "gap")))
			n := rapid.Int64Range(0, 1<<20).Draw(t, "n")
			r.Add(now, n)
			all = append(all, entry{now, n})
		}
		now = now.Add(time.Duration(rapid.Int64Range(0, int64(10*time.Second)).Draw(t, "wait")))
		var inner, outer int64
		for _, e := range all {
			if age := now.Sub(e.at); age < Window-slot {
				inner += e.n
			}
			if age := now.Sub(e.at); age <= Window+slot {
				outer += e.n
			}
		}
		rate := r.PerSecond(now)
		require.GreaterOrEqual(t, rate+1, int64(float64(inner)/(Window+slot).Seconds()))
		require.LessOrEqual(t, rate, outer)
	})
}
