package ingest

import (
	"io"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/inventory"
)

func generated(t testing.TB, seed uint64, size int64) []byte {
	b, err := io.ReadAll(cantest.Generated(seed, size))
	require.NoError(t, err)
	return b
}

// TestLargeContentNamedByItsDigestIsReadInPlaces: a service that computed the digest
// is not made to send all of a large content back.
func TestLargeContentNamedByItsDigestIsReadInPlaces(t *testing.T) {
	for _, c := range []struct {
		rule  cantest.HashRule
		lacks cantest.Features
		whole int64
	}{
		{cantest.HashContent, 0, 0}, {cantest.HashContent, cantest.FeatureRange, 1}, {cantest.HashTimestamp, 0, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, cantest.Options{Rule: c.rule, Lacks: c.lacks})
			defer w.close()
			b := generated(t, 1, wholeCheck+placeCheck+1)
			res, err := w.g.Ingest(t.Context(), jobOf(b, 1))
			require.NoError(t, err)
			require.True(t, res.Created)
			s := w.g.Stats()
			require.Equal(t, c.whole, s.Checked)
			require.Equal(t, 1-c.whole, s.Glanced)
		})
	}
}

// TestOtherBytesInAnyPlaceAreSeen: what is in the service at the places that are
// looked at is not what was sent.
func TestOtherBytesInAnyPlaceAreSeen(t *testing.T) {
	for place := range 3 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, cantest.Options{})
			defer w.close()
			f := w.svc.Inject(cantest.Fault{
				Route: cantest.RouteAsset, Nth: place + 1, Times: 1, Action: cantest.Action{Kind: cantest.ActWrongBytes, At: 7},
			})
			b := generated(t, 1, wholeCheck+1)
			res, err := w.g.Ingest(t.Context(), jobOf(b, 1))
			require.NoError(t, err, "the whole is read then, and is right")
			require.False(t, res.Created)
			require.Equal(t, 1, f.Fired())
			s := w.g.Stats()
			require.EqualValues(t, 1, s.NotHeld)
			require.EqualValues(t, 1, s.Adopted)
			require.Zero(t, s.Glanced)
			require.True(t, res.Is(inventory.Ingested))
		})
	}
}
