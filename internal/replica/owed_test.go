package replica_test

import (
	"testing"

	"github.com/ipfs/go-datastore/query"
	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/store/memory"
	"github.com/cansync/cansync/transport"
)

// A member that sees more would offer the whole record for ever, were it replaced.
func TestAHeaderTakesThePlaceOfNothingWhole(t *testing.T) {
	w := newWorld(t)
	r := w.open(t, memory.New())
	_, err := r.Apply(t.Context(), w.control, transport.PeerID{})
	check(t, err)
	first := w.sign(t, 0, record.Announce, digest(1), record.ClockAt(start), "image/png", 1)
	edit := w.sign(t, 0, record.Edit, digest(1), record.ClockAt(start)+1, "text/plain", 1)
	for _, rec := range []record.Record{first, edit.WithoutBody()} {
		_, err = r.Apply(t.Context(), []record.Record{rec}, transport.PeerID{9})
		check(t, err)
	}
	_, err = r.Record(t.Context(), first.ID(), false)
	check(t, err)
	_, err = r.Record(t.Context(), edit.ID(), false)
	require.ErrorIs(t, err, replica.ErrNoRecord)
	_, err = r.EntryOf(t.Context(), edit.ID())
	require.ErrorIs(t, err, replica.ErrNoRecord)
	e, err := r.EntryOf(t.Context(), first.ID())
	check(t, err)
	require.Equal(t, first.Subject, [32]byte(e.Asset))
	_, err = r.Apply(t.Context(), []record.Record{edit}, transport.PeerID{9})
	check(t, err)
	_, err = r.Record(t.Context(), first.ID(), false)
	require.ErrorIs(t, err, replica.ErrNoRecord)
	require.EqualValues(t, 1, r.Counts().Records)
	check(t, r.Close())
}

// A head that was paid to one member is still news to the next, who would take the
// owed record that it outdates for the live one.
func TestAnOwedRecordComesWithItsHead(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, capability.AllRights, capability.Read|capability.Write)
	r := w.open(t, memory.New())
	_, err := r.Apply(ctx, w.control, transport.PeerID{})
	check(t, err)
	images := filter.Filter{MIMEPrefix: "image/"}
	check(t, r.SetOwnView(ctx, images))
	old := w.sign(t, 0, record.Announce, digest(1), record.ClockAt(start), "text/plain", 1)
	head := w.sign(t, 1, record.Edit, digest(1), record.ClockAt(start)+1, "text/plain", 2)
	_, err = r.Apply(ctx, []record.Record{old, head}, transport.PeerID{9})
	check(t, err)
	e, err := r.Entry(ctx, digest(1))
	check(t, err)
	require.Equal(t, head.ID(), e.ID())

	s := replica.NewSight(filter.View{images}, nil)
	require.Equal(t, []record.Record{old, head}, s.Hand(old, e))
	require.Equal(t, []record.Record{head}, s.Hand(head, e))
	require.Empty(t, replica.NewSight(filter.View{images}, filter.View{images}).Hand(old, e))

	other := w.open(t, memory.New())
	for _, recs := range [][]record.Record{w.control, s.Hand(old, e)} {
		_, err = other.Apply(ctx, recs, transport.PeerID{9})
		check(t, err)
	}
	e, err = other.Entry(ctx, digest(1))
	check(t, err)
	require.Equal(t, head.ID(), e.ID())
	check(t, r.Close())
	check(t, other.Close())
}

// What is owed is no more than what is stored, and goes with it.
func TestOwedRowsEnd(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	s := memory.New()
	r := w.open(t, s)
	_, err := r.Apply(ctx, w.control, transport.PeerID{})
	check(t, err)
	check(t, r.SetOwnView(ctx, filter.Filter{MIMEPrefix: "image/"}))
	owed := func() (ids []record.ID) {
		for id, err := range r.Owed(ctx, nil, record.ID{}) {
			check(t, err)
			ids = append(ids, id)
		}
		return ids
	}
	var last record.Record
	for i := range 5 {
		last = w.sign(t, 0, record.Edit, digest(1), record.ClockAt(start)+record.Clock(i), "text/plain", 1)
		_, err = r.Apply(ctx, []record.Record{last}, transport.PeerID{9})
		check(t, err)
		require.Equal(t, []record.ID{last.ID()}, owed(), "the newest of an author only")
	}
	other := w.sign(t, 0, record.Announce, digest(2), record.ClockAt(start), "text/plain", 1)
	_, err = r.Apply(ctx, []record.Record{other}, transport.PeerID{9})
	check(t, err)
	require.Len(t, owed(), 2)
	require.Empty(t, func() (ids []record.ID) {
		for id := range r.Owed(ctx, filter.View{{MIMEPrefix: "text/"}}, record.ID{}) {
			ids = append(ids, id)
		}
		return ids
	}(), "a peer that does not see everything is offered nothing")
	check(t, r.SetOwnView(ctx, filter.Filter{MIMEPrefix: "text/"}))
	require.Empty(t, owed(), "they are in the sets now")
	check(t, r.SetOwnView(ctx, filter.Filter{MIMEPrefix: "image/"}))
	require.Len(t, owed(), 2)
	check(t, r.Paid(ctx, []record.ID{other.ID()}))
	require.Equal(t, []record.ID{last.ID()}, owed())
	kept, err := r.Keeps(ctx, []record.ID{last.ID(), {1}, other.ID()})
	check(t, err)
	require.Equal(t, []bool{true, false, true}, kept)

	check(t, r.Close())
	check(t, replica.Drop(ctx, s, w.keys.ID))
	rs, err := s.Query(ctx, query.Query{KeysOnly: true})
	check(t, err)
	left, err := rs.Rest()
	check(t, err)
	require.Empty(t, left)
}
