package ingest

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
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

// TestASearchThroughLongPages: the asset is found although a page of what is listed
// around it is longer than the HTTP client reads.
func TestASearchThroughLongPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{Rule: cantest.HashRandom})
		defer w.close()
		w.stop()
		c, err := can.NewHTTPClient("http://can.test", can.HTTPOptions{Transport: w.svc.RoundTripper()})
		require.NoError(t, err)
		defer func() { require.NoError(t, c.Close()) }()
		w.start(c)
		lost := w.svc.Inject(cantest.Fault{Route: cantest.RouteIngest, Times: 1, Action: cantest.Action{Kind: cantest.ActAnswerLost}})
		for n := range 120 {
			w.svc.Add(fmt.Append(nil, n), can.Metadata{Description: strings.Repeat("d", 100<<10)})
		}
		res := w.settle(1)
		require.Equal(t, 1, lost.Fired())
		require.False(t, res.Created)
		require.Equal(t, 1, w.svc.Posts()[job(1).Digest])
		require.EqualValues(t, 1, w.g.Stats().Adopted)
	})
}
