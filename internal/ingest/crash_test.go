package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/tier"
	"github.com/cansync/cansync/store"
)

var errDead = errors.New("the process is dead")

// mortal kills the process at the n-th step: from then on nothing it does has an
// effect. With late set the step itself still has one, and its answer is lost.
type mortal struct {
	mu   sync.Mutex
	left int
	late bool
	dead bool
}

// step reports whether the step has an effect and whether it is answered.
func (m *mortal) step() (do, answer bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return false, false
	}
	if m.left--; m.left > 0 {
		return true, true
	}
	m.dead = true
	return m.late, false
}

func try[T any](m *mortal, fn func() (T, error)) (v T, err error) {
	do, answer := m.step()
	if do {
		v, err = fn()
	}
	if !answer {
		var zero T
		return zero, errDead
	}
	return v, err
}

func tryErr(m *mortal, fn func() error) error {
	_, err := try(m, func() (struct{}, error) { return struct{}{}, fn() })
	return err
}

// mortalStore and mortalTxn are the store of such a process.
type mortalStore struct {
	store.Store
	m *mortal
}

func (s mortalStore) Get(ctx context.Context, k ds.Key) ([]byte, error) {
	return try(s.m, func() ([]byte, error) { return s.Store.Get(ctx, k) })
}

func (s mortalStore) Query(ctx context.Context, q query.Query) (query.Results, error) {
	return try(s.m, func() (query.Results, error) { return s.Store.Query(ctx, q) })
}

func (s mortalStore) Put(ctx context.Context, k ds.Key, v []byte) error {
	return tryErr(s.m, func() error { return s.Store.Put(ctx, k, v) })
}

func (s mortalStore) Delete(ctx context.Context, k ds.Key) error {
	return tryErr(s.m, func() error { return s.Store.Delete(ctx, k) })
}

func (s mortalStore) NewTransaction(ctx context.Context, ro bool) (ds.Txn, error) {
	t, err := s.Store.NewTransaction(ctx, ro)
	return mortalTxn{t, s.m}, err
}

type mortalTxn struct {
	ds.Txn
	m *mortal
}

func (t mortalTxn) Commit(ctx context.Context) error {
	return tryErr(t.m, func() error { return t.Txn.Commit(ctx) })
}

// mortalClient is the service as such a process sees it.
type mortalClient struct {
	*cantest.Service
	m *mortal
}

func (c mortalClient) Ingest(ctx context.Context, in can.Ingest) (can.Asset, error) {
	return try(c.m, func() (can.Asset, error) { return c.Service.Ingest(ctx, in) })
}

func (c mortalClient) List(ctx context.Context, o can.ListOptions) (can.Page, error) {
	return try(c.m, func() (can.Page, error) { return c.Service.List(ctx, o) })
}

func (c mortalClient) Open(ctx context.Context, h string, off, n int64) (io.ReadCloser, error) {
	return try(c.m, func() (io.ReadCloser, error) { return c.Service.Open(ctx, h, off, n) })
}

func (c mortalClient) Meta(ctx context.Context, h string) (can.Asset, error) {
	return try(c.m, func() (can.Asset, error) { return c.Service.Meta(ctx, h) })
}

func (c mortalClient) UpdateMeta(ctx context.Context, h string, up can.Update) (can.Asset, error) {
	return try(c.m, func() (can.Asset, error) { return c.Service.UpdateMeta(ctx, h, up) })
}

// TestACrashAtEachStepMakesNoDuplicate is C-08 and C-11: it kills the process at
// every step of an ingest, and of the one after the restart, and lets a third one
// finish, whatever the service makes handles of and whatever it lacks.
func TestACrashAtEachStepMakesNoDuplicate(t *testing.T) {
	all := 0
	for _, rule := range rules {
		for _, lacks := range []cantest.Features{0, cantest.FeatureTimestamp, minimal} {
			for _, lost := range []bool{false, true} {
				for _, late := range []bool{false, true} {
					o := cantest.Options{Rule: rule, Lacks: lacks, Echo: []func(*can.Metadata){cantest.DropDescription}}
					t.Run(fmt.Sprintf("%v/%b/lost=%v,late=%v", rule, lacks, lost, late), func(t *testing.T) {
						kills, sent := 0, 0
						for at := 1; ; at++ {
							died := false
							synctest.Test(t, func(t *testing.T) { died = crashAt(t, o, at, lost, late, &sent) })
							if !died {
								break
							}
							kills++
						}
						require.GreaterOrEqual(t, kills, 8, "there are that many steps")
						if lost {
							require.Zero(t, sent, "the answer to the one ingest was lost, whenever that was")
						} else {
							require.Positive(t, sent, "some of the kills came before anything was stored")
						}
						all += kills
					})
				}
			}
		}
	}
	t.Log("killed at", all, "points")
	require.GreaterOrEqual(t, all, 200)
}

func crashAt(t *testing.T, o cantest.Options, at int, lost, late bool, sent *int) (died bool) {
	w := newWorld(t, o)
	defer w.close()
	w.stop()
	if lost {
		w.svc.Inject(cantest.Fault{Route: cantest.RouteIngest, Times: 1, Action: cantest.Action{Kind: cantest.ActAnswerLost}})
	}
	inner := w.st
	for life := range 2 {
		m := &mortal{left: at, late: late}
		w.st = mortalStore{inner, m}
		w.start(mortalClient{w.svc, m})
		if life > 0 {
			_, _ = w.g.Recover(t.Context())
		}
		_, _ = w.ingest(1)
		w.stop()
		died = died || m.dead
		wait(t.Context(), time.Second)
	}
	w.st = inner
	w.start(w.svc)
	_, err := w.g.Recover(t.Context())
	require.NoError(t, err)
	res := w.settle(1)
	require.True(t, res.Present())
	require.Equal(t, 1, w.svc.Posts()[job(1).Digest], "killed at step %d", at)
	require.Equal(t, 1, w.svc.Len())
	require.Zero(t, w.intents())
	if res.Created {
		*sent++
	}
	return died
}

func (c mortalClient) Trash(ctx context.Context, h string) error {
	return tryErr(c.m, func() error { return c.Service.Trash(ctx, h) })
}

// TestManyAmbiguousIngestsAtOnce is two thousand assets of which a tenth get no
// clear answer, in a service that makes a new asset of each ingest.
func TestManyAmbiguousIngestsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{Rule: cantest.HashTimestamp, Lacks: cantest.FeatureTimestamp, Seed: 7})
		defer w.close()
		kinds := []cantest.ActionKind{cantest.ActAnswerLost, cantest.ActStatusAfter, cantest.ActReset, cantest.ActErrorEnvelope, cantest.ActHangAfter}
		var faults []*cantest.Injected
		for _, k := range kinds {
			faults = append(faults, w.svc.Inject(cantest.Fault{Route: cantest.RouteIngest, Probability: 0.02, Action: cantest.Action{Kind: k}}))
		}
		assets := tier.Of(2000, 20_000)
		next := make(chan int)
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() {
				for n := range next {
					w.settle(n)
				}
			})
		}
		for n := range assets {
			next <- n
		}
		close(next)
		wg.Wait()
		fired := 0
		for i, f := range faults {
			require.Positive(t, f.Fired(), "action %v", kinds[i])
			fired += f.Fired()
		}
		require.Greater(t, fired, assets/20)
		require.Equal(t, assets, w.svc.Len())
		require.Empty(t, w.svc.Duplicates())
		require.Zero(t, w.intents())
		for n := range assets {
			item, ok, err := w.inv.Present(t.Context(), job(n).Digest)
			require.NoError(t, err)
			require.True(t, ok)
			require.Equal(t, job(n).Root, item.Root)
		}
	})
}
