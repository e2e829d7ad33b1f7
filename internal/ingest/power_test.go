package ingest

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/tier"
	"github.com/cansync/cansync/store/storetest"
)

// TestAPowerCutAfterTheAnswerMakesNoDuplicate cuts the power when the service has
// answered and what the inventory learned of that may not be durable yet. The intent,
// which is, has the service searched.
func TestAPowerCutAfterTheAnswerMakesNoDuplicate(t *testing.T) {
	const assets = 6
	lost, kept := 0, 0
	for seed := range uint64(tier.Of(40, 400)) {
		for _, rule := range rules {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, cantest.Options{Rule: rule})
				defer w.close()
				w.stop()
				require.NoError(t, w.st.Close())
				crashable := storetest.NewCrashable(seed)
				w.st = crashable
				w.start(w.svc)
				for n := range assets {
					res, err := w.ingest(n)
					require.NoError(t, err)
					require.True(t, res.Created)
				}
				w.stop()
				w.st = crashable.Crash()
				wait(t.Context(), time.Second)
				w.start(w.svc)
				before := w.intents()
				lost += before
				for n := range assets {
					if _, ok, err := w.inv.Present(t.Context(), job(n).Digest); err == nil && ok {
						kept++
					}
				}
				require.LessOrEqual(t, before, 1, "each intent makes the items before it durable")
				found, err := w.g.Recover(t.Context())
				require.NoError(t, err)
				require.Equal(t, before, found)
				for n := range assets {
					res, err := w.ingest(n)
					require.NoError(t, err)
					require.False(t, res.Created)
					require.True(t, res.Present())
					require.Equal(t, 1, w.svc.Posts()[job(n).Digest])
				}
				require.Zero(t, w.intents())
				require.Equal(t, assets, w.svc.Len())
			})
		}
	}
	require.Positive(t, lost, "no power cut took anything")
	require.Positive(t, kept)
}
