package replica_test

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/store/memory"
	"github.com/cansync/cansync/transport"
)

// However records are cut into parts that are checked on their own: what is stored and
// refused is what one after another would have been.
func TestCheckedInParts(t *testing.T) {
	w, other := newWorld(t, capability.Read|capability.Write), newWorld(t)
	ctx := context.Background()
	bad, good := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		var parts [][]record.Record
		want := make(map[record.ID]error)
		stored := 0
		for i := range rapid.IntRange(0, 12).Draw(t, "records") {
			clock := record.ClockAt(start) + record.Clock(i)
			rec := w.sign(t, rapid.IntRange(0, 1).Draw(t, "author"), record.Announce, digest(i), clock, "image/png", 1)
			switch rapid.IntRange(0, 5).Draw(t, "fault") {
			case 0:
				rec.Signature[rapid.IntRange(0, 63).Draw(t, "byte")] ^= 1
				want[rec.ID()] = record.ErrSignature
			case 1:
				rec = other.sign(t, 0, record.Announce, digest(i), clock, "image/png", 1)
				want[rec.ID()] = replica.ErrLibrary
			case 2:
				rec.Body = append(slices.Clone(rec.Body), 0)
				want[rec.ID()] = record.ErrInvalid
			default:
				stored++
			}
			if len(parts) == 0 || rapid.Bool().Draw(t, "cut") {
				parts = append(parts, nil)
			}
			parts[len(parts)-1] = append(parts[len(parts)-1], rec)
		}
		r := w.open(t, memory.New())
		defer func() { check(t, r.Close()) }()
		_, err := r.Apply(ctx, w.control, transport.PeerID{})
		check(t, err)
		checked := make([]replica.Checked, len(parts))
		for i, p := range parts {
			checked[i] = r.Check(p)
		}
		all := replica.Join(checked...)
		require.Equal(t, slices.Concat(parts...), slices.Concat(all.Records()))
		res, err := r.ApplyChecked(ctx, all, transport.PeerID{})
		check(t, err)
		require.Equal(t, stored, res.New)
		require.EqualValues(t, stored, r.Counts().Records)
		require.Len(t, res.Refused, len(want))
		for _, ref := range res.Refused {
			require.ErrorIs(t, ref.Err, want[ref.ID])
		}
		bad, good = bad+len(want), good+stored
	})
	require.NotZero(t, bad)
	require.NotZero(t, good)
}

// What was checked against one library's rules is not stored in another.
func TestCheckedElsewhere(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	a, b := w.open(t, memory.New()), other.open(t, memory.New())
	defer func() { check(t, a.Close()); check(t, b.Close()) }()
	_, err := b.Apply(t.Context(), other.control, transport.PeerID{})
	check(t, err)
	_, err = b.ApplyChecked(t.Context(), a.Check([]record.Record{
		w.sign(t, 0, record.Announce, digest(1), record.ClockAt(start), "image/png", 1),
	}), transport.PeerID{})
	require.ErrorIs(t, err, replica.ErrLibrary)
	require.Zero(t, b.Counts().Records)
}
