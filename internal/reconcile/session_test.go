package reconcile

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cansync/cansync/internal/tier"
)

func setOf(ids ...[]ID) map[ID]bool {
	m := map[ID]bool{}
	for _, some := range ids {
		for _, id := range some {
			m[id] = true
		}
	}
	return m
}

// model is the merge of two sets: what each lacks.
func model(a, b map[ID]bool) (onlyA, onlyB map[ID]bool) {
	onlyA, onlyB = map[ID]bool{}, map[ID]bool{}
	for id := range a {
		if !b[id] {
			onlyA[id] = true
		}
	}
	for id := range b {
		if !a[id] {
			onlyB[id] = true
		}
	}
	return onlyA, onlyB
}

// whatever two sets, sessions end with the union on both sides, each told exactly
// what the merge of both sets says, within the bounds on messages and bytes.
func TestReconcileIsSetUnion(t *testing.T) {
	tier.Check(t, 2000, 100_000, func(t *rapid.T) {
		src := source(rapid.Uint64().Draw(t, "seed"))
		size := rapid.OneOf(rapid.IntRange(0, 20), rapid.IntRange(0, 2000))
		both := randomIDs(src, size.Draw(t, "both"))
		onlyA := randomIDs(src, size.Draw(t, "onlyA"))
		onlyB := randomIDs(src, size.Draw(t, "onlyB"))
		prefix := rapid.SampledFrom([]int{64, 256, DefaultPrefix})
		a := newReplica(testKey, prefix.Draw(t, "prefixA"), both, onlyA)
		b := newReplica(testKey, prefix.Draw(t, "prefixB"), both, onlyB)
		a.page = rapid.IntRange(1, 3000).Draw(t, "page")
		union := setOf(both, onlyA, onlyB)

		for session := 1; ; session++ {
			if session > 3 {
				t.Fatalf("not equal after three sessions")
			}
			wantA, wantB := model(a.ids, b.ids)
			d := len(wantA) + len(wantB)
			m := &meeting{t: t, a: a, b: b}
			require.NoError(t, m.run())
			require.LessOrEqual(t, m.bytes, 400+250*d+48*min(len(a.ids), len(b.ids)))
			require.LessOrEqual(t, m.messages, 12)
			if m.sa.Stats().Equal {
				require.Equal(t, union, a.ids)
				require.Equal(t, union, b.ids)
				return
			}
			if m.bulkA == nil {
				// One side decoded or merged: it was told everything, the other what to push.
				know, other, surplus, missing := a, b, wantA, wantB
				if m.listed == a {
					know, other, surplus, missing = b, a, wantB, wantA
				}
				require.Equal(t, missing, know.missing)
				require.Equal(t, surplus, know.surplus)
				require.Equal(t, missing, other.surplus)
			}
			m.push()
		}
	})
}

func TestBudgets(t *testing.T) {
	const n = 100_000
	src := source(7)
	both := randomIDs(src, n)
	for _, c := range []struct{ d, bytes, rounds int }{
		{0, 200, 1}, {1, 3000, 2}, {10, 3000, 2}, {1000, 120_000, 2},
	} {
		for trial := range 4 {
			only := randomIDs(src, c.d)
			cut := []int{c.d / 2, 0, c.d, c.d / 3}[trial]
			a := newReplica(testKey, 0, both, only[:cut])
			b := newReplica(testKey, 0, both, only[cut:])
			m := &meeting{t: t, a: a, b: b}
			require.NoError(t, m.run())
			st := m.sa.Stats()
			t.Logf("d=%d: %d bytes, %d rounds, %d symbols", c.d, m.bytes, st.Rounds, st.Symbols)
			require.LessOrEqual(t, m.bytes, c.bytes)
			require.LessOrEqual(t, st.Rounds, c.rounds)
			require.Zero(t, st.Scans+m.sb.Stats().Scans)
			require.Equal(t, setOf(only[:cut]), a.surplus)
			require.Equal(t, setOf(only[cut:]), a.missing)
			require.Equal(t, setOf(only[cut:]), b.surplus)
		}
	}
}
