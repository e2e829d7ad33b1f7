package replica_test

import (
	"context"
	"errors"
	"testing"

	ds "github.com/ipfs/go-datastore"
	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/store/storetest"
	"github.com/cansync/cansync/transport"
)

// syncs is a store with early commits that counts its syncs.
type syncs struct {
	store.Store
	synced int
	err    error
}

func (s *syncs) Sync(ctx context.Context, k ds.Key) error {
	s.synced++
	if s.err != nil {
		return s.err
	}
	return s.Store.Sync(ctx, k)
}

// TestToldOfBeforeDurable lets a peer's records be told of as soon as they can be read,
// and Apply return only when they are durable; the node's own are durable first.
func TestToldOfBeforeDurable(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t)
	crashable := storetest.NewCrashable(1)
	s := &syncs{Store: crashable}
	r := w.open(t, s)
	_, err := r.Apply(ctx, w.control, transport.PeerID{})
	require.NoError(t, err)

	told := 0
	var before int
	r.Observe(func(ap replica.Applied) {
		if ap.Control {
			return
		}
		told++
		require.Equal(t, before, s.synced, "told of late")
		e, err := r.Entry(ctx, digest(told))
		require.NoError(t, err)
		require.True(t, e.Known())
	})
	rec := w.sign(t, 0, record.Announce, digest(1), record.Clock(start.UnixMilli()<<16), "image/png", 1)
	before = s.synced
	_, err = r.Apply(ctx, []record.Record{rec}, transport.PeerID{1})
	require.NoError(t, err)
	require.Equal(t, 1, told)
	require.Equal(t, before+1, s.synced)

	// Nothing new: nothing to wait for.
	before = s.synced
	_, err = r.Apply(ctx, []record.Record{rec}, transport.PeerID{1})
	require.NoError(t, err)
	require.Equal(t, before, s.synced)

	// A disk that fails is an error of Apply.
	s.err = errors.New("boom")
	rec = w.sign(t, 0, record.Announce, digest(2), record.Clock(start.UnixMilli()<<16), "image/png", 1)
	_, err = r.Apply(ctx, []record.Record{rec}, transport.PeerID{1})
	require.ErrorIs(t, err, s.err)
	require.Equal(t, 2, told)
	s.err = nil

	// The node's own: what was told of is there after a power cut.
	before = s.synced
	d, err := record.Asset(record.Announce, 0, w.keys.ID, digest(3), w.authors[0].cert, record.AssetBody{Size: 1, Root: [32]byte{1}, MIMEType: "image/png"})
	require.NoError(t, err)
	mine, err := r.Publish(ctx, func(d []record.Draft) ([]record.Record, error) {
		return record.SignWith(w.authors[0].key, d)
	}, []record.Draft{d})
	require.NoError(t, err)
	require.Equal(t, 3, told)
	require.Equal(t, before, s.synced)
	require.NoError(t, r.Close())
	after := crashable.Crash()
	r = w.open(t, after)
	for _, want := range append(mine, rec) { // the commit of the one made the other durable
		ok, err := r.Has(ctx, want.ID(), false)
		require.NoError(t, err)
		require.True(t, ok)
	}
	require.NoError(t, r.Close())
	require.NoError(t, after.Close())
}
