package blob

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestASizeThatNoDiskHasTakesNoMemory(t *testing.T) {
	path := t.TempDir()
	dir, err := OpenStageDir(path)
	require.NoError(t, err)
	defer dir.Close()
	for _, size := range []uint64{MaxStage + 1, 1 << 62, 1<<63 - 1, 1<<64 - 1} {
		_, err := OpenStage(dir, StageKey{}, [32]byte{}, size)
		require.ErrorIs(t, err, ErrNoSpace, size)
	}
	left, err := os.ReadDir(path)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestWhatAStageNeedsIsWhatTheDiskDoesNotHoldYet(t *testing.T) {
	dir, err := OpenStageDir(t.TempDir())
	require.NoError(t, err)
	defer dir.Close()
	s := newSample(t, 10*GroupSize)
	total := 10*GroupSize + OutboardSize(10*GroupSize)
	require.Equal(t, total, StageNeeds(dir, s.key, s.sum.Size))
	st, err := OpenStage(dir, s.key, s.sum.Root, s.sum.Size)
	require.NoError(t, err)
	require.NoError(t, st.Close())
	require.Zero(t, StageNeeds(dir, s.key, s.sum.Size))
	require.Zero(t, StageNeeds(dir, s.key, 1), "the old one makes way")
	require.Equal(t, uint64(GroupSize+NodeSize), StageNeeds(dir, s.key, s.sum.Size+1))
	require.Greater(t, StageNeeds(dir, s.key, 1<<64-1), uint64(1<<62))
}
