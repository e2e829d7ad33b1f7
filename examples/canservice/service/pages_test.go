package service

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
)

// Pages by offset are what they would be if all rows before them were counted,
// whatever entered and left listings since the pages that are remembered.
func TestPagesByOffset(t *testing.T) {
	type row struct {
		hash      can.Digest
		timestamp int64
	}
	ts := start(t, Config{})
	rng := rand.New(rand.NewPCG(1, 2))
	var rows []row // as listed oldest first
	marked := 0
	for n := range 400 {
		switch k := rng.IntN(10); {
		case k < 4 || len(rows) == 0:
			at := int64(1_700_000_000_000 + rng.IntN(40)) // several have the same time
			a := ts.put(fmt.Sprint("content ", n), "timestamp", fmt.Sprint(at))
			i, _ := slices.BinarySearchFunc(rows, at+1, func(r row, t int64) int { return cmp.Compare(r.timestamp, t) })
			rows = slices.Insert(rows, i, row{a.Hash, at})
		case k == 4:
			i := rng.IntN(len(rows))
			require.Equal(t, 200, ts.do("DELETE", "/asset/"+rows[i].hash.String(), "", nil).code)
			rows = slices.Delete(rows, i, i+1)
		default:
			order, want := "asc", slices.Clone(rows)
			if rng.IntN(2) == 0 {
				order = "desc"
				slices.Reverse(want)
			}
			offset, limit := rng.IntN(len(rows)+2), 1+rng.IntN(20)
			if _, _, ok := ts.svc.pages.find(pageAt{asc: order == "asc", offset: int64(offset)}); ok {
				marked++
			}
			want = want[min(offset, len(want)):]
			want = want[:min(limit, len(want))]
			var got []row
			for _, a := range ts.list(fmt.Sprintf("/list?order=%s&offset=%d&limit=%d", order, offset, limit)).Items {
				got = append(got, row{a.Hash, a.Timestamp})
			}
			require.Equal(t, append([]row{}, want...), append([]row{}, got...), "%s %d %d", order, offset, limit)
		}
	}
	require.Greater(t, marked, 30)
}

// Overlapping pages find the end of the page before, and keep finding it while newer
// assets come in.
func TestPageMarks(t *testing.T) {
	var p pageMarks
	at := func(offset int64) pageAt { return pageAt{asc: true, offset: offset} }
	for i := range int64(2000) {
		p.keep(p.now(), at(i*492+8), pageEnd{timestamp: i * 10, id: i})
		mark, end, ok := p.find(at((i + 1) * 492))
		require.True(t, ok)
		require.Equal(t, at(i*492+8), mark)
		require.Equal(t, pageEnd{timestamp: i * 10, id: i}, end)
		p.changed(1_000_000)
	}
	require.LessOrEqual(t, len(p.marks), maxPageMarks)
	old := p.now()
	p.changed(0)
	require.Empty(t, p.marks)
	p.keep(old, at(5), pageEnd{})
	require.Empty(t, p.marks, "it may be of before the change")
}
