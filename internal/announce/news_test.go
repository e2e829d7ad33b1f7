package announce

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/inventory"
)

// TestNewsOfOwnIngestsCostNoCall: while the node ingests, the service tells it of
// each asset before or after it answers; the service is not asked about them. What
// others put there meanwhile is found all the same.
func TestNewsOfOwnIngestsCostNoCall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{})
		defer w.close()
		w.start()
		lib := w.library(filter.Filter{})
		time.Sleep(time.Second)
		synctest.Wait()
		before := w.svc.Calls()
		own := func(n int, early bool) {
			text := fmt.Sprintf("own content %03d", n)
			done := w.inv.Expect(int64(len(text)))
			defer done()
			a, d := w.add(text, can.Metadata{Description: "d"})
			if early { // the event comes before the answer
				synctest.Wait()
			}
			require.NoError(t, w.inv.Put(t.Context(), inventory.Item{
				Handle: a.Handle, Digest: d, Root: blob.Sum([]byte(text)).Root, Size: a.Size, Timestamp: a.Timestamp,
				Baseline: inventory.FingerprintOf(a.Metadata), Flags: inventory.Ingested,
			}))
		}
		for n := range 200 {
			own(n, n%2 == 0)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		now := w.svc.Calls()
		require.Equal(t, before[cantest.RouteMeta], now[cantest.RouteMeta])
		require.Equal(t, before[cantest.RouteAsset], now[cantest.RouteAsset])

		// One of the same size, while the node ingests another.
		done := w.inv.Expect(int64(len("own content 000")))
		_, d := w.add("not our content", can.Metadata{})
		time.Sleep(time.Second)
		done()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.True(t, w.entry(lib, d).Member)

		// One of its own that the user changed before the news came.
		text := "own, and edited"
		a, d := w.add(text, can.Metadata{Description: "d"})
		require.NoError(t, w.inv.Put(t.Context(), inventory.Item{
			Handle: a.Handle, Digest: d, Root: blob.Sum([]byte(text)).Root, Size: a.Size, Timestamp: a.Timestamp,
			Baseline: inventory.FingerprintOf(can.Metadata{Description: "other"}), Flags: inventory.Ingested,
		}))
		settle()
		require.Greater(t, w.svc.Calls()[cantest.RouteMeta], before[cantest.RouteMeta])
	})
}
