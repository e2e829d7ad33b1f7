package blob

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// shedFS notes what its files are told to forget.
type shedFS struct {
	stageFS
	end *int64
}

func (c shedFS) open(name string, flag int) (stageFile, error) {
	f, err := c.stageFS.open(name, flag)
	return shedFile{f, c.end}, err
}

type shedFile struct {
	stageFile
	end *int64
}

func (f shedFile) forget(off, n int64) {
	if off != *f.end || n <= 0 {
		panic("ranges are forgotten once, one after the other")
	}
	*f.end = off + n
	f.stageFile.forget(off, n)
}

// What is durable, hashed and passed on need not stay in memory; with any of the
// three missing it will be needed.
func TestStageForgetsWhatWasPassedOn(t *testing.T) {
	const mib = shedUnit / GroupSize // groups
	s := newSample(t, 8*shedUnit)
	dir, _ := openDir(t)
	for _, disk := range []stageFS{newCrashFS(), rootFS{dir}} {
		end := int64(0)
		st, err := s.open(shedFS{disk, &end})
		require.NoError(t, err)
		got := 0
		put := func(n uint64) {
			_, err := s.put(st, Run{First: uint64(got) * mib, Count: n * mib})
			require.NoError(t, err)
			got += int(n)
		}
		read := func(from, to int) {
			p := make([]byte, (to-from)*shedUnit)
			_, err := st.ReadAt(p, int64(from*shedUnit))
			require.NoError(t, err)
			require.Equal(t, s.data[from*shedUnit:to*shedUnit], p)
		}
		synced := func(want int) {
			t.Helper()
			require.NoError(t, st.Sync())
			require.EqualValues(t, want*shedUnit, end)
		}
		put(3)
		synced(0)
		require.NoError(t, st.Hash())
		put(1)
		synced(0) // nobody passes it on
		read(0, 2)
		put(1)
		synced(2)
		read(3, 5) // a look at the middle is not reading on
		put(1)
		synced(2)
		read(2, 6)
		put(1)
		synced(3) // the rest is not hashed
		require.NoError(t, st.Hash())
		read(6, 7)
		require.EqualValues(t, 3*shedUnit, end, "before it is durable")
		put(1)
		synced(7)
		read(0, 8) // it is still there
		require.NoError(t, st.Finish())
		require.NoError(t, st.Remove())
	}
}
