package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cansync/cansync/internal/overlay"
)

func TestNetworkIsConnectedAtBoundedDegree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := rapid.IntRange(2, 80).Draw(t, "members")
		degree := rapid.IntRange(6, 12).Draw(t, "degree")
		w := newNetwork(members, degree, rapid.Uint64().Draw(t, "seed"))
		w.settle(w.up())
		require.Len(t, w.parts(), 1)
		mean, least, most := w.degrees()
		if members <= degree+1 {
			require.Equal(t, []int{members - 1, members - 1}, []int{least, most}, "a full mesh")
			return
		}
		require.GreaterOrEqual(t, least, degree/2)
		require.LessOrEqual(t, most, 3*degree)
		require.LessOrEqual(t, mean, 1.1*float64(degree))
		require.Zero(t, w.refused)
	})
}

func TestNetworkIsStable(t *testing.T) {
	for _, members := range []int{5, 9, 40, 120} {
		w := newNetwork(members, 8, 3)
		w.settle(w.up())
		dialled, dropped := w.dialled, w.dropped
		for range 20 {
			w.tick(0)
		}
		require.Equal(t, dialled, w.dialled, "nothing changes while nothing changed")
		require.Equal(t, dropped, w.dropped)
		const turns = 2
		for range turns * 24 {
			w.tick(overlay.Turn / 24)
			require.Len(t, w.parts(), 1)
		}
		moved := float64(w.dialled-dialled) / float64(members) / turns
		if members <= 9 {
			require.Zero(t, moved, "a full mesh has nothing to change to")
			continue
		}
		require.Positive(t, moved, "links wander")
		require.Less(t, moved, 8., "but little more than once each in a turn")
		mean, _, most := w.degrees()
		require.Less(t, mean, 9.)
		require.LessOrEqual(t, most, 20)
	}
}

func TestNetworkStaysWholeUnderChurn(t *testing.T) {
	w := newNetwork(100, 8, 4)
	w.settle(w.up())
	crashes, returns, joins := 0, 0, 0
	for minute := range 120 {
		// In each minute a hundredth of the members go and about as many come.
		for i := range w.ids {
			switch {
			case !w.down[i] && w.rng.Float64() < 0.01:
				w.down[i] = true
				crashes++
			case w.down[i] && w.rng.Float64() < 0.03:
				w.down[i] = false
				returns++
			}
		}
		if minute%2 == 0 {
			w.add()
			joins++
		}
		w.tick(time.Minute)
		up := len(w.up())
		require.Greater(t, w.parts()[0], up*95/100, "all but those that just came are in one part")
		_, _, most := w.degrees()
		require.LessOrEqual(t, most, overlay.Limit(8))
	}
	require.Positive(t, w.failed, "nobody was dialled in vain")
	require.Greater(t, min(crashes, returns, joins), 50)
	for range 10 {
		w.tick(time.Minute)
	}
	require.Len(t, w.parts(), 1)
	mean, least, _ := w.degrees()
	require.GreaterOrEqual(t, least, 3)
	require.LessOrEqual(t, mean, 12.)
}

func TestNetworkHealsAfterMostMembersLeft(t *testing.T) {
	w := newNetwork(200, 8, 5)
	w.settle(w.up())
	w.fail(160)
	for range 10 {
		w.tick(time.Minute)
	}
	require.Len(t, w.parts(), 1)
	_, least, _ := w.degrees()
	require.GreaterOrEqual(t, least, 5)

	// Those that return are found again, and links move back to them.
	for i := range w.down {
		w.down[i] = false
	}
	for range 15 {
		w.tick(time.Minute)
	}
	require.Equal(t, []int{200}, w.parts())
}

func TestNetworkHealsAPartition(t *testing.T) {
	// Two halves that grew up apart: neither has a link to the other, and each has
	// given up on the other for as long as it does.
	w := newNetwork(100, 8, 6)
	for i := range w.ids {
		for j := range w.ids {
			if i%2 != j%2 {
				w.tries[i][j] = try{failures: 9, until: w.now.Add(retryMost)}
			}
		}
	}
	w.settle(w.up())
	require.Equal(t, []int{50, 50}, w.parts())
	minutes := 0
	for ; len(w.parts()) > 1; minutes++ {
		require.Less(t, minutes, 8, "healed soon after the wait is over")
		w.tick(time.Minute)
	}
	require.Positive(t, minutes)
}

func TestJoinersThroughOneMemberFindTheOthers(t *testing.T) {
	// Everybody comes by tickets of one member and knows its address alone, which
	// has to let strangers in although it cannot link to all of them.
	w := newNetwork(1, 8, 7)
	w.strangers()
	for range 150 {
		w.known[w.add()][0] = true
		if len(w.ids)%5 == 0 { // five at once
			w.tick(10 * time.Second)
			_, _, most := w.degrees()
			require.LessOrEqual(t, most, overlay.Limit(8))
		}
	}
	for range 20 {
		w.tick(time.Minute)
	}
	require.Len(t, w.parts(), 1)
	_, least, most := w.degrees()
	require.GreaterOrEqual(t, least, 4)
	require.LessOrEqual(t, most, overlay.Limit(8))

	// So it is when they come all at once.
	w = newNetwork(1, 8, 8)
	w.strangers()
	for range 150 {
		w.known[w.add()][0] = true
	}
	for range 30 {
		w.tick(time.Minute)
	}
	require.Positive(t, w.refused, "the one member was never crowded")
	require.Len(t, w.parts(), 1)
}
