package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStudyHolds(t *testing.T) {
	for _, members := range []int{2, 10, 100, 1000} {
		t.Run(fmt.Sprint(members), func(t *testing.T) {
			for _, r := range study(members, 8, 3, 1) {
				require.NoError(t, r.check(), "%+v", r)
			}
		})
	}
}

// whole is a scene in which everybody is up.
func whole(members int) scene {
	w := newNetwork(members, 8, 1)
	w.settle(w.up())
	return view(w, 1)
}

func TestPlantedBugsAreCaught(t *testing.T) {
	s := whole(300)
	require.NoError(t, s.measure(s, fault{}, 5, 1).check())
	require.NoError(t, s.measure(s, fault{loss: 0.4}, 5, 1).check())

	r := s.measure(s, fault{noForward: true}, 5, 1)
	require.ErrorContains(t, r.check(), "missed by pushes", "without forwarding, reconciliation has to do it")
	r = s.measure(s, fault{noForward: true, noReconcile: true}, 5, 1)
	require.ErrorContains(t, r.check(), "not reached")
	r = s.measure(s, fault{loss: 0.6, noReconcile: true}, 5, 1)
	require.ErrorContains(t, r.check(), "not reached", "pushes that are lost have to be made up for")

	r = whole(9).measure(whole(9), fault{noSuppress: true}, 5, 1)
	with := whole(9).measure(whole(9), fault{}, 5, 1)
	require.NoError(t, with.check())
	require.Greater(t, r.total.pushed, with.total.pushed+5*8, "a push back to whom the record came from")
	r = s.measure(s, fault{noSuppress: true}, 5, 1)
	with = s.measure(s, fault{}, 5, 1)
	require.GreaterOrEqual(t, r.total.pushed-with.total.pushed, 5*299)
}

func TestReconciliationRepairsWhatPushesLost(t *testing.T) {
	s := whole(300)
	r := s.measure(s, fault{loss: 0.5}, 5, 1)
	require.NoError(t, r.check())
	require.Positive(t, r.total.repairs)
	require.Positive(t, r.total.lost)
}

func TestRunPrintsTheSameTable(t *testing.T) {
	args := []string{"-members", "10,60", "-records", "3", "-seed", "9"}
	var a, b, c bytes.Buffer
	require.NoError(t, run(args, &a))
	require.NoError(t, run(args, &b))
	require.Equal(t, a.String(), b.String())
	require.NoError(t, run(append(args[:5], "10"), &c))
	require.NotEqual(t, a.String(), c.String())
	lines := strings.Split(strings.TrimSpace(a.String()), "\n")
	require.Len(t, lines, 2+2*4)
	for _, l := range lines {
		require.Equal(t, strings.Count(lines[0], "|"), strings.Count(l, "|"))
	}
	for _, bad := range [][]string{{"-members", "1"}, {"-members", "x"}, {"-degree", "0"}, {"-records", "0"}, {"-size", "0"}} {
		require.Error(t, run(bad, &c))
	}
}
