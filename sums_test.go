package cansync_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/tier"
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
		// What was trashed while the library is paused is looked at after that.
		if a.Handle != "" || a.State == cansync.Have {
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

// What the status and the progress say is what the assets show, whatever state they
// are in and whatever becomes of them.
func TestSumsAreThoseOfTheAssets(t *testing.T) {
	seen := map[string]int{}
	for seed := range tier.Of(10, 400) {
		synctest.Test(t, func(t *testing.T) { sumsOf(t, rand.New(rand.NewPCG(uint64(seed), 1)), seen) })
	}
	if !testing.Short() {
		for _, what := range []string{"have ", "trashed_here held", "not_wanted mode", "wanted source_offline"} {
			require.Positive(t, seen[what], "%s was never seen among %v", what, seen)
		}
	}
}

func sumsOf(t *testing.T, r *rand.Rand, seen map[string]int) {
	_, a, b, id := duo(t, memory.Link{})
	n, down := uint64(100), false
	var no *cantest.Injected
	some := func(m *machine) (out []can.Digest) { // of those that the service has
		if m == b && down {
			return nil
		}
		for _, d := range slices.SortedFunc(maps.Keys(m.metadata()), func(x, y can.Digest) int { return slices.Compare(x[:], y[:]) }) {
			if r.IntN(3) == 0 {
				out = append(out, d)
			}
		}
		return out
	}
	add := func(m *machine, most int64) {
		for range 1 + r.IntN(6) {
			n++
			m.add(n, 1+r.Int64N(most))
		}
	}
	if r.IntN(2) == 0 {
		a.lie(id)
		require.NoError(t, a.lib(id).SetPublishMode(cansync.PublishAuto))
	}
	for range 4 {
		add(a, 2000)
	}
	time.Sleep(time.Minute)
	steps := map[string]func(){
		"add":   func() { add(a, []int64{2000, 300_000}[r.IntN(2)]) },
		"local": func() { add(b, 2000) },
		"edit": func() {
			text := fmt.Sprint("edit ", r.IntN(1000))
			for _, d := range some(a) {
				a.svc.Edit(a.handleOf(d), can.Update{Description: &text})
			}
		},
		"remove": func() {
			if a.node == nil {
				return
			}
			for _, d := range some(a) {
				_ = a.lib(id).Remove(t.Context(), d) // it may not be in the library
			}
		},
		"trash": func() {
			for _, d := range some(b) {
				require.NoError(t, b.svc.Trash(t.Context(), b.handleOf(d)))
			}
		},
		"trash most": func() {
			if down {
				return
			}
			b.stop()
			for range 3 {
				for _, d := range some(b) {
					require.NoError(t, b.svc.Trash(t.Context(), b.handleOf(d)))
				}
			}
			b.start()
		},
		"lose": func() {
			for _, m := range []*machine{a, b} {
				if d := some(m); len(d) > 0 {
					m.svc.Delete(m.handleOf(d[0]))
				}
			}
		},
		"confirm": func() { require.NoError(t, b.lib(id).ConfirmRemovals()) },
		"dismiss": func() { require.NoError(t, b.lib(id).DismissRemovals()) },
		"mode": func() {
			require.NoError(t, b.lib(id).SetMode([]cansync.Mode{cansync.Sync, cansync.ReceiveOnly, cansync.AnnounceOnly, cansync.RecordsOnly, cansync.Paused}[r.IntN(5)]))
		},
		"sync":  func() { require.NoError(t, b.lib(id).SetMode(cansync.Sync)) },
		"quota": func() { require.NoError(t, b.lib(id).SetQuota(r.Int64N(3)*5000)) },
		"fetch": func() { require.NoError(t, b.lib(id).Fetch(t.Context(), b.listing(id)...)) },
		"view": func() {
			f := cansync.Filter{}
			if all := b.listing(id); r.IntN(2) == 0 && len(all) > 1 {
				for _, d := range all[:len(all)/2] {
					f.Hashes = append(f.Hashes, d.String())
				}
			}
			if !down {
				require.NoError(t, b.lib(id).SetView(t.Context(), f))
			}
		},
		"source": func() {
			if a.node == nil {
				a.start()
			} else {
				a.stop()
			}
		},
		"service": func() { down = !down; b.svc.SetDown(down) },
		"refuse": func() {
			if no != nil {
				no.Remove()
				no = nil
				return
			}
			no = b.svc.Inject(cantest.Fault{Route: cantest.RouteIngest, Probability: 1, Action: cantest.Action{Kind: cantest.ActStatus, Status: http.StatusUnprocessableEntity}})
		},
	}
	names := slices.Sorted(maps.Keys(steps))
	for range 25 {
		name := names[r.IntN(len(names))]
		steps[name]()
		time.Sleep([]time.Duration{5 * time.Second, time.Minute, 11 * time.Minute}[r.IntN(3)])
		synctest.Wait()
		is, says := b.listed(id), b.told(id)
		for x, err := range b.lib(id).Assets(t.Context()) {
			require.NoError(t, err)
			seen[fmt.Sprint(x.State, " ", x.Cause)]++
		}
		for _, tr := range b.progress(id).Transfers {
			is.BytesHere += tr.Done
		}
		// What left the library and is still to be dealt with waits beside its assets.
		foreign := says.Pending - is.Pending
		require.GreaterOrEqual(t, foreign, int64(0), name)
		if b.lib(id).Mode() == cansync.Sync && !down {
			require.Zero(t, foreign, name)
		}
		for c, k := range says.Causes {
			more := k - is.Causes[c]
			require.GreaterOrEqual(t, more, int64(0), "%s: %s", name, c)
			if foreign -= more; more > 0 {
				is.Causes[c] = k
				if c != cansync.ByMode {
					is.Failed += more
				}
			}
		}
		require.GreaterOrEqual(t, foreign, int64(0), name)
		is.Pending = says.Pending
		require.Equal(t, is, says, name)
	}
	b.svc.SetDown(false)
	a.close()
	b.close()
}

// listing returns the assets of a library.
func (m *machine) listing(id cansync.LibraryID) (out []can.Digest) {
	for a, err := range m.lib(id).Assets(m.t.Context()) {
		require.NoError(m.t, err)
		out = append(out, a.Digest)
	}
	return out
}
