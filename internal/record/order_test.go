package record

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cansync/cansync/internal/tier"
)

func TestAnEditBeatsALaterFirstAnnouncement(t *testing.T) {
	edit := Header{Kind: Edit, Clock: 1}
	late := Header{Kind: Announce, Clock: ^Clock(0)}
	tomb := Header{Kind: Tombstone, Clock: 2}
	require.True(t, Newer(edit, late))
	require.True(t, Newer(tomb, late))
	require.True(t, Newer(tomb, edit), "edit and tombstone go by their clocks")
	require.False(t, Newer(Header{Kind: Edit, Clock: 1, Author: [32]byte{1}}, tomb))
	require.True(t, Newer(Header{Kind: Edit, Clock: 2, Author: [32]byte{1}}, tomb), "then the greater author")
}

func genHeader(t *rapid.T, label string) Header {
	// Few values, so that ties are the rule.
	return Header{
		Kind:    rapid.SampledFrom([]Kind{Announce, Edit, Tombstone}).Draw(t, label+"kind"),
		Clock:   Clock(rapid.Uint64Range(0, 2).Draw(t, label+"clock")),
		Author:  [32]byte{rapid.ByteRange(0, 1).Draw(t, label+"author")},
		Subject: [32]byte{rapid.ByteRange(0, 1).Draw(t, label+"subject")},
	}
}

func TestCompareIsATotalOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := genHeader(t, "a"), genHeader(t, "b"), genHeader(t, "c")
		require.Equal(t, -Compare(a, b), Compare(b, a))
		require.Equal(t, a == b, Compare(a, b) == 0)
		if Compare(a, b) <= 0 && Compare(b, c) <= 0 {
			require.LessOrEqual(t, Compare(a, c), 0)
		}
	})
}

// replica is a model of what a member keeps: the newest record of each author
// about each asset, of which the greatest lives.
type replica map[[32]byte]map[[32]byte]Header

func (m replica) add(h Header) {
	of := m[h.Subject]
	if of == nil {
		of = map[[32]byte]Header{}
		m[h.Subject] = of
	}
	if old, ok := of[h.Author]; !ok || Newer(h, old) {
		of[h.Author] = h
	}
}

func (m replica) live() map[[32]byte]Header {
	out := map[[32]byte]Header{}
	for s, of := range m {
		for _, h := range of {
			if old, ok := out[s]; !ok || Newer(h, old) {
				out[s] = h
			}
		}
	}
	return out
}

// An author that says two things at the same time, and another who answers,
// leave the same state wherever and in whichever order they arrive.
func TestForksConverge(t *testing.T) {
	fork := make([]Draft, 2)
	for i := range fork {
		d, err := Asset(Edit, ClockAt(epoch), sum("library"), sum("asset"), sum("cert"), sampleBody(i))
		require.NoError(t, err)
		fork[i] = d
	}
	byFork, err := Sign(testKey(1), fork)
	require.NoError(t, err)
	first, err := Sign(testKey(2), drafts(t, 1))
	require.NoError(t, err)
	other, err := Sign(testKey(3), []Draft{Removal(ClockAt(epoch)-1, sum("library"), sum("asset"), sum("cert"))})
	require.NoError(t, err)
	all := []Header{byFork[0].Header, byFork[1].Header, first[0].Header, other[0].Header}
	all[2].Subject = sum("asset")
	want := all[0]
	if all[1].ID().Compare(want.ID()) > 0 {
		want = all[1]
	}
	orders := permutations(all)
	require.Len(t, orders, 24)
	v := NewVerifier(0)
	for _, r := range byFork {
		require.NoError(t, v.Verify(r))
	}
	for i := range orders {
		replicas := make([]replica, 4)
		for n := range replicas {
			replicas[n] = replica{}
			for _, h := range orders[(i+n*7)%len(orders)] {
				replicas[n].add(h)
			}
			require.Equal(t, replicas[0], replicas[n])
			require.Equal(t, want, replicas[n].live()[sum("asset")], "the greater id")
		}
	}
}

func permutations(in []Header) (out [][]Header) {
	if len(in) <= 1 {
		return [][]Header{slices.Clone(in)}
	}
	for i := range in {
		rest := slices.Delete(slices.Clone(in), i, i+1)
		for _, p := range permutations(rest) {
			out = append(out, append([]Header{in[i]}, p...))
		}
	}
	return out
}

func TestStateDoesNotDependOnTheOrderOfArrival(t *testing.T) {
	tier.Check(t, 5000, 100_000, func(t *rapid.T) {
		hs := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Header { return genHeader(t, "") }), 1, 12).Draw(t, "records")
		a, b := replica{}, replica{}
		for _, h := range hs {
			a.add(h)
		}
		for _, h := range rapid.Permutation(hs).Draw(t, "order") {
			b.add(h)
			b.add(h)
		}
		require.Equal(t, a, b)
		require.Equal(t, a.live(), b.live())
	})
}
