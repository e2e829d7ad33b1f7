package cansync_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/transport/memory"
)

// sums are what the assets of a library add up to.
type sums struct {
	Assets, Here, Trashed, Held    int64
	Bytes, BytesHere, TrashedBytes int64
	Causes                         map[cansync.Cause]int64
	Pending, Failed                int64
}

// listed adds up what each asset shows.
func (m *machine) listed(id cansync.LibraryID) (s sums) {
	s.Causes = map[cansync.Cause]int64{}
	for a, err := range m.lib(id).Assets(m.t.Context()) {
		require.NoError(m.t, err)
		s.Assets++
		s.Bytes += a.Size
		if a.Handle != "" {
			s.BytesHere += a.Size
		}
		switch a.State {
		case cansync.Have:
			s.Here++
		case cansync.TrashedHere:
			s.Trashed++
			s.TrashedBytes += a.Size
			if a.Cause == cansync.HeldBack {
				s.Held++
			}
		default:
			s.Pending++
			if a.Cause != "" {
				s.Causes[a.Cause]++
				if a.Cause != cansync.ByMode {
					s.Failed++
				}
			}
		}
	}
	return s
}

// told is what the status and the progress say.
func (m *machine) told(id cansync.LibraryID) sums {
	st, p := m.status(id), m.progress(id)
	require.Equal(m.t, []int64{st.Assets, st.Bytes, st.Synced, st.Trashed}, []int64{p.Assets, p.Bytes, p.AssetsDone, p.AssetsTrashed})
	s := sums{
		Assets: st.Assets, Here: st.Synced, Trashed: st.Trashed, Held: int64(st.Held), Bytes: st.Bytes, BytesHere: p.BytesDone,
		TrashedBytes: p.BytesTrashed, Causes: st.Causes, Pending: st.Pending, Failed: st.Failed,
	}
	if s.Causes == nil {
		s.Causes = map[cansync.Cause]int64{}
	}
	return s
}

func (m *machine) held(id cansync.LibraryID) (out []can.Digest) {
	for a, err := range m.lib(id).Assets(m.t.Context()) {
		require.NoError(m.t, err)
		if a.Cause == cansync.HeldBack {
			out = append(out, a.Digest)
		}
	}
	return out
}

// A hold is of what was trashed since the last one was decided, and of nothing else,
// whatever happens to the library meanwhile.
func TestAHoldIsOfWhatWasTrashedSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b, id := duo(t, memory.Link{})
		var all []can.Digest
		for i := range 60 {
			all = append(all, a.add(uint64(i), int64(1000+i)))
		}
		for _, d := range all {
			b.is(id, d, cansync.Have, "")
		}
		trash := func(ds []can.Digest) {
			b.stop() // one look finds them all
			for _, d := range ds {
				require.NoError(t, b.svc.Trash(t.Context(), b.handleOf(d)))
			}
			b.start()
			eventually(t, "they are held", func() bool { return b.status(id).Held == len(ds) })
			require.ElementsMatch(t, ds, b.held(id))
			require.Equal(t, b.listed(id), b.told(id))
		}
		trash(all[:35])
		for _, m := range []cansync.Mode{cansync.ReceiveOnly, cansync.RecordsOnly, cansync.Sync} {
			require.NoError(t, b.lib(id).SetMode(m))
			time.Sleep(11 * time.Minute)
			require.Equal(t, 35, b.status(id).Held, m)
			require.Equal(t, b.listed(id), b.told(id))
		}
		text := "edited"
		require.True(t, a.svc.Edit(a.handleOf(all[0]), can.Update{Description: &text}))
		require.NoError(t, a.lib(id).Remove(t.Context(), all[1:21]...))
		eventually(t, "what others removed waits no longer", func() bool { return b.status(id).Held == 15 })
		eventually(t, "they edited one", func() bool { return b.asset(id, all[0]).Description == text })
		b.is(id, all[0], cansync.TrashedHere, cansync.HeldBack)
		require.Equal(t, b.listed(id), b.told(id))

		require.NoError(t, b.lib(id).DismissRemovals())
		for range 20 { // at once, and for good
			require.Zero(t, b.status(id).Held)
			require.Equal(t, cansync.TrashedHere, b.asset(id, all[0]).State)
			require.Empty(t, b.held(id))
			require.Equal(t, b.listed(id), b.told(id))
			time.Sleep(300 * time.Millisecond)
		}
		trash(all[36:])
		b.is(id, all[0], cansync.TrashedHere, "")
		require.NoError(t, b.lib(id).ConfirmRemovals())
		require.Zero(t, b.status(id).Held)
		eventually(t, "those are removed, the others are not", func() bool { return a.status(id).Assets == 16 })
		require.Equal(t, b.listed(id), b.told(id))
		require.Equal(t, fmt.Sprint([]int64{16, 1, 15}), fmt.Sprint([]int64{b.status(id).Assets, b.status(id).Synced, b.status(id).Trashed}))
		a.close()
		b.close()
	})
}
