package tier

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLoads(t *testing.T) {
	t.Setenv(Env, "N")
	require.True(t, Nightly())
	require.Equal(t, 300, Of(20, 300))
	t.Setenv(Env, "")
	require.False(t, Nightly())
	want := []int{20, 5}
	if testing.Short() {
		want = []int{2, 1}
	}
	require.Equal(t, want, []int{Of(20, 300), Of(5, 300)})
}
