package announce

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	smemory "github.com/cansync/cansync/store/memory"
)

func set[T any](v T) *T { return &v }

// abilities are services by what they can do.
func abilities() map[string]cantest.Options {
	return map[string]cantest.Options{
		"all":     {},
		"minimal": {Lacks: cantest.AllFeatures, Rule: cantest.HashTimestamp},
		"silent":  {Lacks: cantest.FeatureEvents | cantest.FeatureChanges},
		"lossy": {Echo: []func(*can.Metadata){cantest.DropDescription, cantest.SortTags, cantest.CapTags(2)},
			Faults: []cantest.Fault{
				{Route: cantest.RouteEvent, Probability: 0.5, Action: cantest.Action{Kind: cantest.ActEventLost}},
				{Route: cantest.RouteEvent, Probability: 0.5, Action: cantest.Action{Kind: cantest.ActEventTwice}},
			}},
	}
}

func TestEditsArePublishedOnce(t *testing.T) {
	for name, o := range abilities() {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, o)
				if name == "minimal" {
					w.client = w.svc.Core()
				}
				all, tagged := w.library(filter.Filter{}), w.library(filter.Filter{Tags: []string{"b"}})
				w.many(0, 700)
				as, d := w.add("x", can.Metadata{Tags: []string{"b", "a"}, Description: "one"})
				w.start()
				settle()
				require.True(t, w.entry(tagged, d).Member)
				calls := w.svc.Calls()[cantest.RouteAsset]
				require.True(t, w.svc.Edit(as.Handle, can.Update{Application: set("app")}))
				settle()
				for _, l := range []*library.Library{all, tagged} {
					e := w.entry(l, d)
					require.Equal(t, "app", e.Body.Application)
					require.Equal(t, record.Edit, e.Live.Kind)
					require.Equal(t, as.Timestamp, e.Body.Timestamp, "the time of ingest stays")
				}
				require.Equal(t, 2, w.count(Edited))

				// Out of the filter: it leaves the set for all, and only there.
				require.True(t, w.svc.Edit(as.Handle, can.Update{Tags: &[]string{"c"}}))
				settle()
				require.False(t, w.entry(tagged, d).Member)
				require.Equal(t, []string{"c"}, w.entry(tagged, d).Body.Tags)
				require.Equal(t, 4, w.count(Edited))
				// What is outside stays local.
				require.True(t, w.svc.Edit(as.Handle, can.Update{User: set("me")}))
				settle()
				require.Equal(t, "me", w.entry(all, d).Body.User)
				require.Empty(t, w.entry(tagged, d).Body.User)
				require.Equal(t, 5, w.count(Edited))
				require.Equal(t, calls, w.svc.Calls()[cantest.RouteAsset])
				if name == "lossy" {
					for _, f := range w.svc.Faults() {
						require.Positive(t, f.Fired())
					}
				}
				w.close()
			})
		})
	}
}

// What the node itself brings into the service is in the baseline, or about to be.
func TestNoEcho(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{})
		l := w.library(filter.Filter{})
		as, d := w.add("x", can.Metadata{Description: "one"})
		w.start()
		synctest.Wait()
		require.EqualValues(t, 1, l.Counts().Live)
		// The fetcher's part: the row is there while it works.
		require.NoError(t, l.Enqueue(t.Context(), d))
		require.True(t, w.svc.Edit(as.Handle, can.Update{Description: set("two")}))
		synctest.Wait()
		time.Sleep(20 * time.Second)
		item, _, err := w.inv.ByHandle(t.Context(), as.Handle)
		require.NoError(t, err)
		now, _ := w.svc.Get(as.Handle)
		item.Baseline = inventory.FingerprintOf(now.Metadata)
		require.NoError(t, w.inv.Put(t.Context(), item))
		_, err = l.Settle(t.Context(), []replica.Settled{{Asset: d, Local: replica.Local{Applied: w.entry(l, d).ID(), State: replica.Have}}})
		require.NoError(t, err)
		settle()
		require.Zero(t, w.count(Edited))
		require.Equal(t, "one", w.entry(l, d).Body.Description)
		w.close()
	})
}

func TestOwnIngestIsNotAnnounced(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{})
		l := w.library(filter.Filter{})
		w.start()
		synctest.Wait()
		done := w.inv.Expect(5)
		as, d := w.add("fetch", can.Metadata{Description: "theirs"})
		w.add("other size", can.Metadata{})
		synctest.Wait()
		require.EqualValues(t, 1, l.Counts().Live)
		time.Sleep(10 * time.Second)
		require.Zero(t, w.svc.Reads(as.Handle))
		require.NoError(t, w.inv.Put(t.Context(), inventory.Item{
			Handle: as.Handle, Digest: d, Size: 5, Root: [32]byte{1}, Baseline: inventory.FingerprintOf(as.Metadata), Flags: inventory.Ingested,
		}))
		done()
		settle()
		require.Zero(t, w.svc.Reads(as.Handle))
		require.False(t, w.entry(l, d).Known(), "the fetcher's library is told by no one")
		// An ingest that never ends does not hide the user's assets for ever.
		defer w.inv.Expect(3)()
		_, d = w.add("abc", can.Metadata{})
		settle()
		require.True(t, w.entry(l, d).Member)
		w.close()
	})
}

func TestKnownAssetsAreAdopted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{})
		_, same := w.add("same", can.Metadata{Description: "agreed"})
		_, other := w.add("other", can.Metadata{Description: "mine"})
		l := w.open(filter.Filter{}, false)
		w.libs = append(w.libs, l)
		w.start()
		settle()
		require.Zero(t, l.Counts().Live, "nothing is said before the library has met")
		a, _ := w.svc.Get(same.String())
		b, _ := w.svc.Get(other.String())
		b.Description = "theirs"
		for d, as := range map[can.Digest]can.Asset{same: a, other: b} {
			draft, err := l.Announcement(record.Announce, d, record.FromAsset(as, [32]byte{1}, uint64(as.Size)))
			require.NoError(t, err)
			require.NoError(t, l.Say(t.Context(), draft))
			_, err = l.Settle(t.Context(), []replica.Settled{{Asset: d}}) // as if a peer had said it
			require.NoError(t, err)
		}
		require.EqualValues(t, 2, l.Counts().Queued)
		l.Session(nil).OnRound(w.device.PeerID())
		synctest.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
		require.Zero(t, w.count(Announced))
		local, err := l.Local(t.Context(), same)
		require.NoError(t, err)
		require.Equal(t, replica.Have, local.State)
		_, queued, err := l.Work(t.Context(), same)
		require.NoError(t, err)
		require.False(t, queued)
		_, queued, err = l.Work(t.Context(), other)
		require.NoError(t, err)
		require.True(t, queued, "its metadata is to be applied")
		w.close()
	})
}

func TestSecondHandleIsSilent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{Rule: cantest.HashRandom})
		l, picky := w.library(filter.Filter{}), w.library(filter.Filter{User: "b"})
		w.start()
		a, d := w.add("x", can.Metadata{User: "a"})
		synctest.Wait()
		b, _ := w.add("x", can.Metadata{User: "b"})
		settle()
		require.Equal(t, "a", w.entry(l, d).Body.User)
		require.Equal(t, "b", w.entry(picky, d).Body.User, "the oldest that matches speaks")
		w.svc.Edit(b.Handle, can.Update{Description: set("silent in one")})
		settle()
		require.Empty(t, w.entry(l, d).Body.Description)
		require.NotEmpty(t, w.entry(picky, d).Body.Description)
		// The other copy remains: nothing is removed.
		w.svc.TrashNow(a.Handle)
		settle()
		require.True(t, w.entry(l, d).Member)
		w.svc.TrashNow(b.Handle)
		settle()
		require.True(t, w.entry(l, d).Tombstone())
		w.close()
	})
}

func TestTooLargeMetadataIsReportedOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{})
		l := w.library(filter.Filter{})
		_, d := w.add("x", can.Metadata{User: fmt.Sprintf("%02000d", 1)})
		w.many(0, 10)
		w.start()
		settle()
		l.SetMode(library.ModeReceiveOnly)
		settle()
		l.SetMode(library.ModeSync) // everything is offered again
		settle()
		require.EqualValues(t, 10, l.Counts().Live)
		require.Equal(t, 1, w.count(Failed))
		require.ErrorIs(t, w.failure(), record.ErrTooLarge)
		require.False(t, w.entry(l, d).Known())
		w.close()
	})
}

// What is edited while a library can't be spoken in is said as soon as it can, and not
// with the next full scan only.
func TestEditsWaitForTheLibrary(t *testing.T) {
	rarely := func(c *Config) { c.FullScanInterval = 24 * time.Hour }
	bubble(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{})
		l := w.library(filter.Filter{})
		as, d := w.add("x", can.Metadata{})
		w.start(rarely)
		synctest.Wait()
		l.SetMode(library.ModePaused)
		require.True(t, w.svc.Edit(as.Handle, can.Update{Description: set("while paused")}))
		time.Sleep(time.Hour)
		require.Zero(t, w.count(Edited))
		l.SetMode(library.ModeSync)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 1, w.count(Edited))
		require.Equal(t, "while paused", w.entry(l, d).Body.Description)

		// The announcer begins, and what the library was offered can't be read at first.
		require.NoError(t, w.a.Close())
		require.True(t, w.svc.Edit(as.Handle, can.Update{Description: set("while off")}))
		marks := &failingMarks{Store: w.store}
		marks.left.Store(1)
		w.inv = inventory.New(marks)
		w.start(rarely)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.LessOrEqual(t, marks.left.Load(), int64(0), "no fault injected")
		require.Equal(t, 2, w.count(Edited))
		require.Equal(t, "while off", w.entry(l, d).Body.Description)
		w.close()
	})
}

// failingMarks is a store that fails to tell what libraries were offered.
type failingMarks struct {
	*smemory.Store
	left atomic.Int64
}

func (s *failingMarks) Get(ctx context.Context, key ds.Key) ([]byte, error) {
	if strings.Contains(key.String(), "caught") && s.left.Add(-1) >= 0 {
		return nil, errors.New("disk trouble")
	}
	return s.Store.Get(ctx, key)
}
