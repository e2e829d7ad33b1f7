package ingest

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/inventory"
)

// A process that dies at the end of a long upload leaves a service that is still
// at work on it. The next one may not take the asset's absence for an answer at
// once, however long ago the upload was begun.
func TestAServiceIsGivenTimeAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{Rule: cantest.HashTimestamp})
		defer w.close()
		j := job(1)
		require.NoError(t, w.inv.Begin(t.Context(), inventory.Intent{
			Digest: j.Digest, Size: j.Size, Begun: time.Now().Add(-time.Minute).UnixMilli(), Timestamp: j.Body.Timestamp,
		}))
		w.stop()
		w.start(w.svc)
		_, err := w.g.Recover(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, w.intents(), "it may still appear")
		_, err = w.ingest(1)
		require.ErrorIs(t, err, ErrUnknown)
		wait(t.Context(), 2*time.Second)
		w.svc.Add(content(1), j.Body.Metadata()) // now the service is through
		require.False(t, w.settle(1).Created)
		require.Equal(t, 1, w.svc.Len())
		require.Zero(t, w.intents())
	})
}
