package overlay

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestSeenForgetsOnlyTheOld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := NewSeen(rapid.IntRange(1, 200).Draw(t, "entries"), [16]byte{7})
		n := rapid.IntRange(0, 1200).Draw(t, "ids")
		added := make(map[[32]byte]int)
		for i := range n {
			id := [32]byte(testID(i))
			if back := rapid.IntRange(0, 3).Draw(t, "again"); back == 0 && i > 0 {
				id = testID(rapid.IntRange(0, i-1).Draw(t, "which"))
			}
			had := s.Has(id)
			require.Equal(t, !had, s.Add(id))
			require.True(t, s.Has(id))
			if had {
				require.Contains(t, added, id, "never saw what was not added")
			}
			added[id] = i
		}
		require.LessOrEqual(t, s.Len(), s.most)
		require.LessOrEqual(t, s.Bytes(), 8*s.most)
		kept := 0
		for id, at := range added {
			has := s.Has(id)
			if has {
				kept++
			}
			// Each group holds its eight newest: the very last are there in any case.
			require.True(t, has || n-at > seenWays)
		}
		require.Equal(t, s.Len(), kept)
	})
}

func TestSeenHoldsWhatItPromises(t *testing.T) {
	s := NewSeen(0, [16]byte{1})
	require.False(t, s.Has(testID(0)))
	require.Zero(t, s.Bytes())
	for i := range 1000 {
		require.True(t, s.Add(testID(i)))
	}
	require.LessOrEqual(t, s.Bytes(), 8*2048, "grows with what is in it")
	lost := 0
	for i := range 1000 {
		if !s.Has(testID(i)) {
			lost++
		}
	}
	require.LessOrEqual(t, lost, 1000*3/100, "few are forgotten before it is full")
	for i := range 3 * SeenEntries {
		s.Add(testID(i))
	}
	require.Equal(t, 8*SeenEntries, s.Bytes())
	recent := 0
	for i := 3*SeenEntries - SeenEntries/2; i < 3*SeenEntries; i++ {
		if s.Has(testID(i)) {
			recent++
		}
	}
	require.Greater(t, recent, SeenEntries/2*9/10, "the newest half is there, nearly whole")
}

func TestSeenKeepsTheOrderWhenItGrows(t *testing.T) {
	s := NewSeen(0, [16]byte{2})
	added := make(map[uint64]int)
	for i := range 4000 {
		id := [32]byte(testID(i * 7 % 3000)) // some come again
		added[s.hash(&id)] = i
		s.Add(id)
	}
	require.Greater(t, len(s.table), seenFirst)
	for at := 0; at < len(s.table); at += seenWays {
		last := 4000
		for _, h := range s.table[at : at+seenWays] {
			if h != 0 {
				require.Less(t, added[h], last, "the newest come first")
				last = added[h]
			}
		}
	}
}
