package libp2p

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestARelayWithAWrongClockIsAskedNowAndThen(t *testing.T) {
	require.Equal(t, 45*time.Minute, renewAfter(time.Hour))
	for _, lasts := range []time.Duration{math.MinInt64, -time.Hour, 0, time.Second, 100 * 24 * time.Hour, math.MaxInt64 / 3 * 2, math.MaxInt64} {
		after := renewAfter(lasts)
		require.GreaterOrEqual(t, after, time.Minute)
		require.LessOrEqual(t, after, renewLast)
	}
}
