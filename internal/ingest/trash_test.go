package ingest

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/inventory"
)

// rot ingests a content and lets it rot in the service, which is then known.
func (w *world) rot(n int) inventory.Item {
	res, err := w.ingest(n)
	require.NoError(w.t, err)
	b := bytes.Clone(content(n))
	b[3] ^= 1
	require.True(w.t, w.svc.Corrupt(res.Handle, b))
	require.NoError(w.t, w.inv.Modify(w.t.Context(), []string{res.Handle}, func(i *inventory.Item) bool {
		i.Flags |= inventory.Bad
		return true
	}))
	wait(w.t.Context(), time.Minute)
	return res.Item
}

func (w *world) requireRight(n int) {
	item, ok, err := w.inv.Present(w.t.Context(), job(n).Digest)
	require.NoError(w.t, err)
	require.True(w.t, ok)
	b, ok := w.svc.Content(item.Handle)
	require.True(w.t, ok)
	require.Equal(w.t, content(n), b)
	require.Equal(w.t, 1, w.svc.Len())
	require.Zero(w.t, w.intents())
}

// TestRottenContentIsReplaced: whatever the service makes handles of, and although
// it answers an ingest of content that it holds with what it has.
func TestRottenContentIsReplaced(t *testing.T) {
	for _, rule := range rules {
		t.Run(fmt.Sprint(rule), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, cantest.Options{Rule: rule})
				defer w.close()
				old := w.rot(1)
				res := w.settle(1)
				require.True(t, res.Created)
				w.requireRight(1)
				require.Equal(t, 1, w.svc.Calls()[cantest.RouteTrash])
				if res.Handle == old.Handle {
					return
				}
				item, ok, err := w.inv.ByHandle(t.Context(), old.Handle)
				require.NoError(t, err)
				require.True(t, ok)
				require.True(t, item.Is(inventory.Bad|inventory.Trashed|inventory.TrashedByUs))
			})
		})
	}
}

// TestRottenContentWhereNothingIsTrashed: a service without trash keeps a rotten
// asset that it names by the content, and gets another where it does not.
func TestRottenContentWhereNothingIsTrashed(t *testing.T) {
	for _, rule := range []cantest.HashRule{cantest.HashContent, cantest.HashRandom} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, cantest.Options{Rule: rule, Lacks: cantest.FeatureTrash})
			defer w.close()
			w.rot(1)
			res, err := w.ingest(1)
			if rule == cantest.HashContent {
				require.ErrorIs(t, err, ErrNotHeld)
				_, ok, err := w.inv.Present(t.Context(), job(1).Digest)
				require.NoError(t, err)
				require.False(t, ok)
				return
			}
			require.NoError(t, err)
			b, _ := w.svc.Content(res.Handle)
			require.Equal(t, content(1), b)
		})
	}
}

// TestACrashWhileRottenContentIsReplaced kills the process at every step: the right
// content is there in the end, once.
func TestACrashWhileRottenContentIsReplaced(t *testing.T) {
	for _, rule := range rules {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v/late=%v", rule, late), func(t *testing.T) {
				kills := 0
				for at := 1; ; at++ {
					died := false
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t, cantest.Options{Rule: rule})
						defer w.close()
						w.rot(1)
						w.stop()
						inner := w.st
						m := &mortal{left: at, late: late}
						w.st = mortalStore{inner, m}
						w.start(mortalClient{w.svc, m})
						_, _ = w.ingest(1)
						w.stop()
						died = m.dead
						wait(t.Context(), time.Second)
						w.st = inner
						w.start(w.svc)
						_, err := w.g.Recover(t.Context())
						require.NoError(t, err)
						w.settle(1)
						w.requireRight(1)
					})
					if !died {
						break
					}
					kills++
				}
				require.GreaterOrEqual(t, kills, 10, "there are that many steps")
			})
		}
	}
}
