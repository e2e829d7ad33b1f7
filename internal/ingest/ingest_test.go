package ingest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/store/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// content is the n-th test content; sizes repeat, so that size alone tells little.
func content(n int) []byte {
	return append(bytes.Repeat([]byte{byte(n)}, 10+n%3), fmt.Sprintf("content %06d", n)...)
}

func jobOf(b []byte, n int) Job {
	sum := blob.Sum(b)
	return Job{
		Digest: sum.Digest, Size: int64(len(b)), Root: sum.Root, Outboard: func() (*io.SectionReader, error) {
			return io.NewSectionReader(bytes.NewReader(sum.Outboard), 0, int64(len(sum.Outboard))), nil
		},
		Body: record.AssetBody{
			Size: sum.Size, Root: sum.Root, Timestamp: 900_000_000_000 + int64(n)*1000, MIMEType: "text/plain", Application: "app",
			User: "u", Description: "d " + strconv.Itoa(n), Tags: []string{"z", "a"}, Filename: "f.txt", Path: "/p",
		},
		Content: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil },
	}
}

func job(n int) Job { return jobOf(content(n), n) }

type world struct {
	t   testing.TB
	svc *cantest.Service
	st  store.Store
	inv *inventory.Inventory
	g   *Ingester
}

func newWorld(t testing.TB, o cantest.Options) *world {
	w := &world{t: t, svc: cantest.New(o), st: memory.New()}
	w.start(w.svc)
	return w
}

func (w *world) start(c can.Client) {
	w.inv = inventory.New(w.st)
	w.g = New(Config{Service: c, Inventory: w.inv, Logger: slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))})
}

func (w *world) stop() { require.NoError(w.t, w.g.Close()) }

func (w *world) close() {
	w.stop()
	require.NoError(w.t, w.svc.Close())
	require.NoError(w.t, w.st.Close())
}

func (w *world) ingest(n int) (Result, error) { return w.g.Ingest(w.t.Context(), job(n)) }

func (w *world) intents() (n int) {
	for _, err := range w.inv.Intents(w.t.Context()) {
		require.NoError(w.t, err)
		n++
	}
	return n
}

var rules = []cantest.HashRule{cantest.HashContent, cantest.HashTimestamp, cantest.HashRandom}

// minimal is a service that has ingest, list and asset bytes only.
const minimal = cantest.AllFeatures

func TestIngestKeepsEverything(t *testing.T) {
	for _, rule := range rules {
		for _, lacks := range []cantest.Features{0, cantest.FeatureMeta | cantest.FeatureUpdate, minimal} {
			t.Run(fmt.Sprintf("%v/%b", rule, lacks), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, cantest.Options{Rule: rule, Lacks: lacks})
					defer w.close()
					for n := range 150 {
						res, err := w.ingest(n)
						require.NoError(t, err)
						require.True(t, res.Created)
						a, ok := w.svc.Get(res.Handle)
						require.True(t, ok)
						require.Equal(t, job(n).Body.Metadata(), a.Metadata)
						require.Equal(t, inventory.FingerprintOf(a.Metadata), res.Baseline)
						if lacks == 0 {
							require.Equal(t, job(n).Body.Timestamp, a.Timestamp)
						}
						item, ok, err := w.inv.Present(t.Context(), job(n).Digest)
						require.NoError(t, err)
						require.True(t, ok)
						require.Equal(t, res.Item, item)
						require.True(t, item.Is(inventory.Ingested))
					}
					require.Zero(t, w.intents())
					require.False(t, w.inv.Expected(-1))
					calls := w.svc.Calls()
					require.Equal(t, 150, calls[cantest.RouteIngest])
					require.Zero(t, calls[cantest.RouteMeta]+calls[cantest.RouteUpdate]+calls[cantest.RouteList])
					require.GreaterOrEqual(t, calls[cantest.RouteAsset], firstChecked)
					require.Less(t, calls[cantest.RouteAsset], firstChecked+5, "later ones are read back by sample only")

					res, err := w.ingest(3)
					require.NoError(t, err)
					require.False(t, res.Created)
					require.Equal(t, 150, w.svc.Calls()[cantest.RouteIngest], "what is there is not sent again")
				})
			})
		}
	}
}

func TestOneIngestForManyCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{Rule: cantest.HashTimestamp})
		defer w.close()
		w.svc.Inject(cantest.Fault{Route: cantest.RouteIngest, Action: cantest.Action{Kind: cantest.ActSlow, Every: time.Second}})
		var wg sync.WaitGroup
		var mu sync.Mutex
		created := 0
		for range 20 {
			wg.Go(func() {
				res, err := w.ingest(1)
				mu.Lock()
				defer mu.Unlock()
				require.NoError(t, err)
				if res.Created {
					created++
				}
			})
		}
		synctest.Wait()
		require.True(t, w.inv.Expected(job(1).Size), "it is known to be on its way")
		wg.Wait()
		require.Equal(t, 1, created)
		require.Equal(t, 1, w.svc.Calls()[cantest.RouteIngest])
	})
}

func TestACallerWhoGivesUpDoesNotStopTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{Rule: cantest.HashTimestamp})
		defer w.close()
		w.svc.Inject(cantest.Fault{Route: cantest.RouteIngest, Times: 1, Action: cantest.Action{Kind: cantest.ActHangAfter}})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := w.g.Ingest(ctx, job(1))
			require.ErrorIs(t, err, context.Canceled)
		})
		synctest.Wait()
		wg.Go(func() {
			res, err := w.ingest(1)
			require.NoError(t, err)
			require.False(t, res.Created, "the first call had stored it")
		})
		synctest.Wait()
		cancel()
		wg.Wait()
		require.Equal(t, 1, w.svc.Posts()[job(1).Digest])
		require.Zero(t, w.intents())
	})
}

func TestRefusalsAreDefinite(t *testing.T) {
	for status, want := range map[int]error{400: ErrRejected, 413: ErrRejected, 401: ErrRejected, 429: ErrDown, 503: ErrDown} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, cantest.Options{})
				defer w.close()
				f := w.svc.Inject(cantest.Fault{Route: cantest.RouteIngest, Times: 1, Action: cantest.Action{Status: status}})
				_, err := w.ingest(1)
				require.ErrorIs(t, err, want)
				require.Equal(t, 1, f.Fired())
				require.Zero(t, w.intents())
				require.Zero(t, w.svc.Calls()[cantest.RouteList], "there is nothing to look for")
				_, err = w.ingest(1)
				require.NoError(t, err)
			})
		})
	}
}

func TestBadContentIsTheCallersFault(t *testing.T) {
	w := newWorld(t, cantest.Options{})
	defer w.close()
	j := job(1)
	j.Size++
	_, err := w.g.Ingest(t.Context(), j)
	require.ErrorIs(t, err, ErrContent)
	require.NotErrorIs(t, err, ErrRejected)
	require.Zero(t, w.intents())
	require.Zero(t, w.svc.Len())
}

// settle ingests again and again until it succeeds.
func (w *world) settle(n int) Result {
	for range 50 {
		res, err := w.ingest(n)
		if err == nil {
			return res
		}
		wait(w.t.Context(), 10*time.Second)
	}
	w.t.Fatal("the asset does not arrive")
	return Result{}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func TestAmbiguousIngestsAreLookedFor(t *testing.T) {
	after := []cantest.ActionKind{cantest.ActAnswerLost, cantest.ActStatusAfter, cantest.ActCut, cantest.ActExtra, cantest.ActHangAfter, cantest.ActWrongHash}
	beforeIt := []cantest.ActionKind{cantest.ActReset, cantest.ActHTML, cantest.ActErrorEnvelope, cantest.ActBadJSON, cantest.ActHangBefore, cantest.ActForget}
	for _, rule := range rules {
		for _, lacks := range []cantest.Features{0, cantest.FeatureTimestamp, minimal} {
			t.Run(fmt.Sprintf("%v/%b", rule, lacks), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, cantest.Options{Rule: rule, Lacks: lacks, PageCap: 20})
					defer w.close()
					for n := range 60 {
						w.svc.Add(content(1000+n), can.Metadata{})
						w.svc.AddAt(content(2000+n), can.Metadata{}, job(100+n).Body.Timestamp)
					}
					n := 100
					for _, kind := range append(append([]cantest.ActionKind{}, after...), beforeIt...) {
						f := w.svc.Inject(cantest.Fault{Route: cantest.RouteIngest, Times: 1, Action: cantest.Action{Kind: kind, N: 1}})
						res := w.settle(n)
						require.Equal(t, 1, f.Fired(), "action %v", kind)
						f.Remove()
						require.Equal(t, 1, w.svc.Digests()[job(n).Digest], "action %v", kind)
						a, _ := w.svc.Get(res.Handle)
						require.False(t, a.Trashed)
						n++
					}
					require.Empty(t, w.svc.Duplicates())
					require.Zero(t, w.intents())
					require.Positive(t, w.g.Stats().Adopted)
				})
			})
		}
	}
}

func TestASearchThatDoesNotCompleteSendsNothing(t *testing.T) {
	for name, f := range map[string]cantest.Fault{
		"down":      {Route: cantest.RouteList, Action: cantest.Action{Status: 500}},
		"empty":     {Route: cantest.RouteList, Action: cantest.Action{Kind: cantest.ActEmptyList}},
		"broken":    {Route: cantest.RouteList, Action: cantest.Action{Kind: cantest.ActBadJSON}},
		"bytes":     {Route: cantest.RouteAsset, Action: cantest.Action{Status: 503}},
		"corrupted": {Route: cantest.RouteAsset, Times: 3 * readTries, Action: cantest.Action{Status: 500}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, cantest.Options{Rule: cantest.HashTimestamp})
				defer w.close()
				_, err := w.ingest(1)
				require.NoError(t, err)
				lost := w.svc.Inject(cantest.Fault{Route: cantest.RouteIngest, Times: 1, Action: cantest.Action{Kind: cantest.ActAnswerLost}})
				bad := w.svc.Inject(f)
				for range 3 {
					_, err = w.ingest(2)
					require.Error(t, err)
					wait(t.Context(), time.Minute)
				}
				require.Equal(t, 1, lost.Fired())
				require.Positive(t, bad.Fired())
				require.Equal(t, 1, w.svc.Posts()[job(2).Digest])
				bad.Remove()
				res := w.settle(2)
				require.False(t, res.Created)
				require.Equal(t, 1, w.svc.Posts()[job(2).Digest])
				require.Empty(t, w.svc.Duplicates())
			})
		})
	}
}

func TestWrongBytesAreNeverHad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{Rule: cantest.HashTimestamp})
		defer w.close()
		bad := w.svc.Inject(cantest.Fault{Route: cantest.RouteAsset, Action: cantest.Action{Kind: cantest.ActWrongBytes}})
		_, err := w.ingest(1)
		require.ErrorIs(t, err, ErrNotHeld)
		_, ok, err := w.inv.Present(t.Context(), job(1).Digest)
		require.NoError(t, err)
		require.False(t, ok)
		require.Positive(t, bad.Fired())
		require.Equal(t, int64(1), w.g.Stats().NotHeld)
		bad.Remove()
		res := w.settle(1)
		require.False(t, res.Created, "what is there turned out to be right")
		require.Equal(t, 1, w.svc.Posts()[job(1).Digest])
	})
}

func TestFieldsThatTheServiceDropsAreAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{Echo: []func(*can.Metadata){cantest.DropDescription, cantest.SortTags}})
		defer w.close()
		res, err := w.ingest(1)
		require.NoError(t, err)
		require.Equal(t, 1, w.svc.Calls()[cantest.RouteUpdate], "one attempt")
		a, _ := w.svc.Get(res.Handle)
		require.Empty(t, a.Description)
		require.Equal(t, inventory.FingerprintOf(a.Metadata), res.Baseline)
	})
}

func TestWhatTheNodeTrashedComesBack(t *testing.T) {
	for _, rule := range rules {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, cantest.Options{Rule: rule, Lacks: cantest.FeatureTimestamp})
			defer w.close()
			res, err := w.ingest(1)
			require.NoError(t, err)
			ok, err := w.g.Trash(t.Context(), res.Item)
			require.NoError(t, err)
			require.True(t, ok)
			item, _, err := w.inv.ByHandle(t.Context(), res.Handle)
			require.NoError(t, err)
			require.True(t, item.Is(inventory.Trashed|inventory.TrashedByUs))
			wait(t.Context(), time.Second)
			res, err = w.ingest(1)
			require.NoError(t, err)
			require.True(t, res.Created)
			require.True(t, res.Present())
			require.Equal(t, 1, w.svc.Digests()[job(1).Digest])
		})
	}
}
