package tier

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestCheckRunsTheCasesAskedFor(t *testing.T) {
	t.Setenv(Env, "")
	ran := 0
	t.Run("check", func(t *testing.T) {
		Check(t, 370, 1, func(*rapid.T) { ran++ })
	})
	want := 370
	if testing.Short() || race {
		want = 37
	}
	require.Equal(t, want, ran)
	ran = 0
	rapid.Check(t, func(*rapid.T) { ran++ })
	require.Less(t, ran, 370, "set back")
}
