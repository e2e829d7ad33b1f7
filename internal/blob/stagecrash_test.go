package blob

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestStageCrash fails the disk at any step, cuts the power at any time, and opens
// again: every group that is claimed must be there, and the download must end.
func TestStageCrash(t *testing.T) {
	crashes, faults := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		s := newSample(t, GroupSize+1+sizes(12).Draw(t, "size"))
		disk := newCrashFS()
		durable := uint64(0) // groups that a Sync has promised
		for round := 0; ; round++ {
			last := round == 6
			disk.step, disk.failAt = 0, 0
			if !last && rapid.Bool().Draw(t, "fault") {
				disk.failAt = rapid.IntRange(1, 40).Draw(t, "at step")
			}
			st, err := s.open(disk)
			if err != nil {
				require.ErrorIs(t, err, errInjected)
			} else {
				if durable > 0 {
					require.GreaterOrEqual(t, st.Count(), durable, "what was synced is there")
				}
				disk.mu.Lock()
				file := disk.now[s.key.name(partSuffix)].now
				for i := range Groups(s.sum.Size) {
					if one := (Run{First: i, Count: 1}); st.Have().Test(i) {
						require.True(t, bytes.Equal(slice(s.data, one), file[one.Offset():][:one.Len(s.sum.Size)]), "group %d", i)
					}
				}
				disk.mu.Unlock()
				durable = work(t, s, st, last, durable)
			}
			if last {
				break
			}
			faults += disk.faults
			disk.faults, disk.failAt = 0, 0
			if rapid.Bool().Draw(t, "power cut") {
				disk.crash(t)
				crashes++
			} else if st != nil {
				require.NoError(t, st.Close())
			}
		}
	})
	require.Positive(t, crashes)
	require.Positive(t, faults)
}

// work puts and syncs until something fails, and finishes in the last round.
func work(t *rapid.T, s sample, st *Stage, last bool, durable uint64) uint64 {
	steps := rapid.IntRange(0, 5).Draw(t, "puts")
	for range steps {
		if _, err := s.put(st, runs(len(s.data)).Draw(t, "run")); err != nil {
			require.ErrorIs(t, err, errInjected)
			return durable
		}
		if rapid.Bool().Draw(t, "sync") {
			count := st.Count()
			if err := st.Sync(); err != nil {
				require.ErrorIs(t, err, errInjected)
				if errors.Is(st.usable(), errInjected) {
					require.ErrorIs(t, st.Sync(), errInjected, "data lost by a failed sync is never claimed")
				}
				return durable
			}
			durable = count
		}
	}
	if last {
		for run := range st.Have().Missing() {
			_, err := s.put(st, run)
			require.NoError(t, err)
		}
		require.NoError(t, st.Finish())
		r, err := st.Content()
		require.NoError(t, err)
		got, err := io.ReadAll(r)
		require.NoError(t, err)
		require.True(t, bytes.Equal(s.data, got))
		require.NoError(t, st.Remove())
		require.Empty(t, st.fs.(*crashFS).now)
	}
	return durable
}
