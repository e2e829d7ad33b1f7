package announce

import (
	"fmt"
	"runtime"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/tier"
)

// The outline says of each asset what the inventory and the listing say.
func TestOutline(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		items := make(map[string]inventory.Item)
		for i := range rapid.IntRange(0, 600).Draw(rt, "items") {
			it := inventory.Item{Handle: fmt.Sprint("h", i), Flags: inventory.Flags(rapid.IntRange(0, 31).Draw(rt, "flags"))}
			if rapid.Bool().Draw(rt, "agreed") {
				it.Baseline = inventory.FingerprintOf(can.Metadata{User: fmt.Sprint(rapid.IntRange(0, 2).Draw(rt, "user"))})
			}
			items[it.Handle] = it
		}
		o := newOutline()
		for _, it := range items {
			o.add(it, !it.Is(inventory.Missing))
		}
		o.sort()
		require.Equal(rt, len(items), o.size)
		listed := make(map[string]bool)
		for range rapid.IntRange(0, 700).Draw(rt, "listings") {
			as := can.Asset{Handle: fmt.Sprint("h", rapid.IntRange(0, 620).Draw(rt, "handle")), Trashed: rapid.IntRange(0, 9).Draw(rt, "trashed") == 0}
			as.User = fmt.Sprint(rapid.IntRange(0, 2).Draw(rt, "as"))
			it, known := items[as.Handle]
			rest := known && !as.Trashed && it.Present() && it.Baseline == inventory.FingerprintOf(as.Metadata)
			require.Equal(rt, rest, o.list(as))
			listed[as.Handle] = true
		}
		complete := true
		for h, it := range items {
			require.Equal(rt, !listed[h], o.lacks(h))
			complete = complete && (listed[h] || it.Is(inventory.Missing))
		}
		require.Equal(rt, complete, o.complete())
		require.False(rt, o.lacks("another"))
	})
}

// A scan takes 16 bytes for each asset, and what slices have to grow.
func TestTheOutlineIsSmall(t *testing.T) {
	n := tier.Of(200_000, 1_000_000)
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	o := newOutline()
	for i := range n {
		o.add(inventory.Item{Handle: strconv.Itoa(i), Baseline: inventory.Fingerprint{1}}, true)
	}
	o.sort()
	require.Less(t, heap()-before, int64(n)*32)
	require.Equal(t, n, o.size)
	require.NotNil(t, o.find("17"))
}

// A full scan of what is known reads the inventory once, in order, and looks at
// those assets only that are not listed as they were.
func TestAScanAtRestLooksNothingUp(t *testing.T) {
	const count = 3000
	bubble(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{Lacks: cantest.FeatureChanges | cantest.FeatureEvents, PageCap: 1000})
		r := &reading{Store: w.store}
		w.inv = inventory.New(r)
		l := w.library(filter.Filter{})
		w.many(0, count)
		w.start()
		settle()
		require.EqualValues(t, count, l.Counts().Live)

		scan := func() (gets, queries, lists, metas int64) {
			calls := w.svc.Calls()
			gets, queries = r.gets.Load(), r.queries.Load()
			require.NoError(t, w.a.scan())
			now := w.svc.Calls()
			return r.gets.Load() - gets, r.queries.Load() - queries,
				int64(now[cantest.RouteList] - calls[cantest.RouteList]), int64(now[cantest.RouteMeta] - calls[cantest.RouteMeta])
		}
		gets, queries, lists, metas := scan()
		require.Zero(t, gets)
		require.EqualValues(t, 1, queries)
		require.LessOrEqual(t, lists, int64(count/(scanPage-scanOverlap)+2))
		require.LessOrEqual(t, metas, int64(1), "to see that it answers")

		// Three edits behind the node's back, none where two pages overlap, one asset
		// trashed, one deleted.
		for _, i := range []int{100, 800, 1500} {
			require.True(t, w.svc.Edit(w.digest(i).String(), can.Update{Tags: &[]string{"edited"}}))
		}
		require.True(t, w.svc.TrashNow(w.digest(7).String()))
		require.True(t, w.svc.Delete(w.digest(8).String()))
		gets, queries, _, metas = scan()
		require.Less(t, gets, int64(100))
		require.EqualValues(t, 2, queries)
		require.LessOrEqual(t, metas, int64(6))
		require.Equal(t, 3, w.count(Edited))
		require.Equal(t, 1, w.count(Removed))
		require.EqualValues(t, count-1, l.Counts().Live)
		gets, queries, _, metas = scan()
		require.Less(t, gets, int64(20))
		require.EqualValues(t, 1, queries)
		require.LessOrEqual(t, metas, int64(1))
		w.close()
	})
}
