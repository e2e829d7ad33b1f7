package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestKilledAgainAndAgain kills both sidecars five times while 300 assets are
// ingested on both sides: each is ingested once on the other side, also at b,
// where the CAN Service would make another asset of a second ingest.
func TestKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	ca, cb, a, b := pair(t, usual, stamped)
	id := share(t, a, b, `{}`)
	until(t, "b has joined", func() bool { return b.library(id).Access == "write" })
	const rounds, each = 5, 30
	var ofA, ofB []string
	kills := 0
	for round := range rounds {
		for i := range each {
			// Some are larger than what travels in one message.
			fill := strings.Repeat("x", []int{10, 5_000, 300_000}[i%3])
			ofA = append(ofA, fmt.Sprintf("a %d %d %s", round, i, fill))
			ofB = append(ofB, fmt.Sprintf("b %d %d %s", round, i, fill))
			ca.ingest(ofA[len(ofA)-1], map[string]string{"tags": "a"})
			cb.ingest(ofB[len(ofB)-1], map[string]string{"tags": "b"})
		}
		// In the midst of it: some of this round are through, and not all.
		if round%2 == 0 {
			until(t, "something arrives", func() bool { return len(ca.posted())+len(cb.posted()) > round*each*2 })
		}
		for _, s := range []*sidecar{a, b} {
			s.kill()
			require.Equal(t, -1, s.end(t))
			kills++
		}
		// What the CAN Services had in full by then, they finish.
		for _, s := range []*service{ca, cb} {
			until(t, "no ingest is under way", func() (still bool) {
				s.count(func() { still = s.flying == 0 })
				return still
			})
		}
		a.start()
		b.start()
	}
	require.Equal(t, 2*rounds, kills)
	const all = 2 * rounds * each
	for _, m := range []struct {
		can    *service
		side   *sidecar
		theirs []string
	}{{ca, a, ofB}, {cb, b, ofA}} {
		until(t, "everything is there", func() bool {
			l := m.side.library(id)
			return l.Synced == all && l.Pending == 0 && len(m.can.list()) >= all
		})
		got := m.can.contents()
		require.Len(t, got, all)
		for _, copies := range got {
			require.Len(t, copies, 1)
		}
		require.Equal(t, once(m.theirs...), m.can.posted())
	}
	atRest(t, []*sidecar{a, b}, ca, cb)
}

// atRest looks on while the sidecars scan their CAN Services some more times, and
// wants nothing ingested.
func atRest(t *testing.T, sides []*sidecar, cans ...*service) {
	t.Helper()
	type state struct{ tries, lists int }
	look := func(s *service) (v state) {
		s.count(func() { v = state{s.tries, s.lists} })
		return v
	}
	scanned := func(s *sidecar) string {
		var v struct {
			Service struct {
				LastScan *string `json:"last_scan"`
			} `json:"can_service"`
		}
		require.NoError(t, s.call("GET", "/status", "", &v))
		require.NotNil(t, v.Service.LastScan)
		return *v.Service.LastScan
	}
	var before []state
	for _, s := range cans {
		before = append(before, look(s))
	}
	for range 2 {
		for _, s := range sides {
			last := scanned(s)
			until(t, "another scan is through", func() bool { return scanned(s) != last })
		}
	}
	for i, s := range cans {
		until(t, "the sidecar asks for news", func() bool { return look(s).lists >= before[i].lists+5 })
		require.Equal(t, before[i].tries, look(s).tries, "nothing is ingested at rest")
	}
}
