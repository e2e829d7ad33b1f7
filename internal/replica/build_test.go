package replica_test

import (
	"context"
	"strings"
	"testing"

	"github.com/ipfs/go-datastore/query"
	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/store/memory"
	"github.com/cansync/cansync/transport"
)

// gated lets a scan of ids begin and not go on until the gate is open.
type gated struct {
	store.Store
	begun, gate chan struct{}
}

func (g *gated) Query(ctx context.Context, q query.Query) (query.Results, error) {
	res, err := g.Store.Query(ctx, q)
	if err != nil || !strings.HasSuffix(q.Prefix, "/i") {
		return res, err
	}
	n := 0
	return query.ResultsFromIterator(q, query.Iterator{
		Next: func() (query.Result, bool) {
			if n++; n == 2 {
				close(g.begun)
				<-g.gate
			}
			return res.NextSync()
		},
		Close: res.Close,
	}), nil
}

// Records are stored while the symbols are built, and count in them.
func TestStoringWhileBuilding(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	s := memory.New()
	defer func() { check(t, s.Close()) }()
	apply := func(r *replica.Replica, at record.Clock, kind record.Kind, assets ...int) {
		var recs []record.Record
		for _, i := range assets {
			recs = append(recs, w.sign(t, 0, kind, digest(i), at, "image/png", 1))
		}
		res, err := r.Apply(ctx, recs, transport.PeerID{})
		check(t, err)
		require.Equal(t, len(assets), res.New)
	}
	clock := record.ClockAt(start)
	r := w.open(t, s)
	_, err := r.Apply(ctx, w.control, transport.PeerID{})
	check(t, err)
	apply(r, clock, record.Announce, 1, 2, 3, 4, 5)
	check(t, r.Close())

	g := &gated{Store: s, begun: make(chan struct{}), gate: make(chan struct{})}
	r = w.open(t, g)
	<-g.begun
	apply(r, clock+1, record.Announce, 6, 7)
	apply(r, clock+2, record.Tombstone, 1, 5) // in the place of those that the scan sees
	apply(r, clock+3, record.Announce, 8)
	select {
	case <-r.Ready():
		require.Fail(t, "the scan has not ended")
	default:
	}
	close(g.gate)
	got, err := r.Snapshot(ctx, false, nil)
	check(t, err)
	require.Equal(t, 8, got.Len())
	apply(r, clock+4, record.Tombstone, 8)
	got, err = r.Snapshot(ctx, false, nil)
	check(t, err)
	check(t, r.Close())

	again := w.open(t, s)
	want, err := again.Snapshot(ctx, false, nil)
	check(t, err)
	require.Equal(t, want.Digest(), got.Digest())
	stored := 0
	for _, err := range again.RecordsFrom(ctx, false, nil, can.Digest{}) {
		check(t, err)
		stored++
	}
	require.Equal(t, stored, want.Len())
	check(t, again.Close())
}

// A record that is stored before the scan has begun is seen by it, and counts once.
func TestStoringBeforeBuilding(t *testing.T) {
	w := newWorld(t)
	s := memory.New()
	defer func() { check(t, s.Close()) }()
	r := w.open(t, s)
	_, err := r.Apply(t.Context(), w.control, transport.PeerID{})
	check(t, err)
	check(t, r.Close())
	for i := range 50 {
		r := w.open(t, s)
		_, err := r.Apply(t.Context(), []record.Record{
			w.sign(t, 0, record.Announce, digest(i), record.ClockAt(start), "image/png", 1),
		}, transport.PeerID{})
		check(t, err)
		got, err := r.Snapshot(t.Context(), false, nil)
		check(t, err)
		require.Equal(t, i+1, got.Len())
		check(t, r.Close())
	}
}
