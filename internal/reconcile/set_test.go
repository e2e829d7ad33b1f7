package reconcile

import (
	"errors"
	"iter"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func seq(ids []ID) iter.Seq2[ID, error] {
	return func(yield func(ID, error) bool) {
		for _, id := range ids {
			if !yield(id, nil) {
				return
			}
		}
	}
}

// naive are the first n symbols by the definition: each id in every symbol its mapping names.
func naive(key Key, ids map[ID]bool, n int) []symbol {
	symbols := make([]symbol, n)
	h := newHasher(key)
	for id := range ids {
		check, m := h.hash(&id)
		in := map[uint64]bool{}
		for ; m.index < uint64(n); m.next() {
			in[m.index] = true
		}
		for i := range symbols {
			if in[uint64(i)] {
				w := words(&id)
				symbols[i].apply(&w, check, 1)
			}
		}
	}
	return symbols
}

// A Set is the same whatever way the ids came into it, and equals the definition.
func TestSetIsAFunctionOfItsIDs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		src := source(rapid.Uint64().Draw(t, "seed"))
		pool := randomIDs(src, 40)
		prefix := rapid.SampledFrom([]int{64, 100, 256}).Draw(t, "prefix")
		s := NewSet(testKey, prefix)
		require.Equal(t, prefix, s.Prefix())
		now := map[ID]bool{}
		snaps := map[*Snapshot]map[ID]bool{}
		changes, base := NewSet(testKey, prefix), (*Set)(nil)
		t.Repeat(map[string]func(*rapid.T){
			"toggle": func(t *rapid.T) {
				id := rapid.SampledFrom(pool).Draw(t, "id")
				if now[id] {
					delete(now, id)
					s.Remove(id)
					changes.Remove(id)
				} else {
					now[id] = true
					s.Insert(id)
					changes.Insert(id)
				}
			},
			"snapshot": func(t *rapid.T) {
				snap := s.Snapshot()
				snaps[snap] = setOf(keys(now))
				require.Same(t, snap, s.Snapshot())
			},
			"rebuild in the background": func(t *rapid.T) {
				var err error
				base, err = Build(testKey, prefix, seq(keys(now)))
				require.NoError(t, err)
				changes = NewSet(testKey, prefix)
			},
			"merge": func(t *rapid.T) {
				if base == nil {
					return
				}
				require.NoError(t, base.Merge(changes))
				require.Equal(t, s.symbols, base.symbols)
				changes, base = NewSet(testKey, prefix), nil
			},
			"grow": func(t *rapid.T) {
				if prefix > 256 {
					return
				}
				require.NoError(t, s.Grow(seq(keys(now))))
				prefix *= 4
				changes, base = NewSet(testKey, prefix), nil
			},
			"image": func(t *rapid.T) {
				b, err := s.MarshalBinary()
				require.NoError(t, err)
				again := NewSet(testKey, 0)
				require.NoError(t, again.UnmarshalBinary(b))
				require.Equal(t, s.symbols, again.symbols)
				s = again
			},
			"": func(t *rapid.T) {
				require.Equal(t, len(now), s.Len())
				require.Equal(t, naive(testKey, now, prefix), s.symbols)
				for snap, ids := range snaps {
					require.Equal(t, len(ids), snap.Len())
					require.Equal(t, naive(testKey, ids, len(snap.symbols)), snap.symbols)
					require.Equal(t, digest(snap.symbols), snap.Digest())
				}
			},
		})
	})
}

func keys(m map[ID]bool) []ID {
	ids := make([]ID, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	return ids
}

func TestSetErrors(t *testing.T) {
	ids := randomIDs(source(1), 100)
	s, err := Build(testKey, 128, seq(ids))
	require.NoError(t, err)
	before := s.Snapshot()

	require.ErrorIs(t, s.Merge(NewSet(Key{}, 128)), ErrMismatch)
	require.ErrorIs(t, s.Merge(NewSet(testKey, 256)), ErrMismatch)
	require.ErrorIs(t, s.Grow(seq(ids[1:])), ErrStale)
	broken := errors.New("broken")
	failing := func(yield func(ID, error) bool) { yield(ID{}, broken) }
	require.ErrorIs(t, s.Grow(failing), broken)
	_, err = Build(testKey, 0, failing)
	require.ErrorIs(t, err, broken)

	image, err := s.MarshalBinary()
	require.NoError(t, err)
	require.ErrorIs(t, NewSet(Key{}, 0).UnmarshalBinary(image), ErrImage, "another library's")
	for i := range image {
		bad := append([]byte(nil), image...)
		bad[i] ^= 1
		require.ErrorIs(t, s.UnmarshalBinary(bad), ErrImage)
		require.ErrorIs(t, s.UnmarshalBinary(image[:i]), ErrImage)
	}
	require.ErrorIs(t, s.UnmarshalBinary(append(image, 0)), ErrImage)
	require.Same(t, before, s.Snapshot(), "unchanged on errors")

	require.Equal(t, MinPrefix, NewSet(testKey, 1).Prefix())
	require.Equal(t, MaxPrefix, NewSet(testKey, 1<<20).Prefix())
	require.Equal(t, DefaultPrefix, NewSet(testKey, 0).Prefix())
}

func TestDigestTellsSetsApart(t *testing.T) {
	ids := randomIDs(source(2), 50)
	short, err := Build(testKey, 64, seq(ids))
	require.NoError(t, err)
	long, err := Build(testKey, 4096, seq(ids))
	require.NoError(t, err)
	require.Equal(t, short.Snapshot().Digest(), long.Snapshot().Digest(), "whatever the prefix")
	other, err := Build(Key{1}, 64, seq(ids))
	require.NoError(t, err)
	require.NotEqual(t, short.Snapshot().Digest(), other.Snapshot().Digest(), "another key")
	short.Remove(ids[7])
	require.NotEqual(t, short.Snapshot().Digest(), long.Snapshot().Digest())
	short.Insert(ids[7])
	require.Equal(t, short.Snapshot().Digest(), long.Snapshot().Digest())
}

// The paper's mapping: symbol i holds an id with probability 1/(1+i/2), independently.
func TestMappingDistribution(t *testing.T) {
	const n, width = 40_000, 512
	h := newHasher(testKey)
	hits := make([]int, width)
	pairs := 0 // ids in both symbols 5 and 6
	for _, id := range randomIDs(source(3), n) {
		_, m := h.hash(&id)
		last := -1
		for ; m.index < width; m.next() {
			require.Greater(t, int(m.index), last)
			if m.index == 6 && last == 5 {
				pairs++
			}
			last = int(m.index)
			hits[m.index]++
		}
	}
	require.Equal(t, n, hits[0])
	total, want := 0.0, 0.0
	for i := 1; i < width; i++ {
		p := 8 * float64(i+1) / float64((2*i+3)*(2*i+3))
		require.InDelta(t, p*n, float64(hits[i]), 5*math.Sqrt(n*p), "symbol %d", i)
		require.InEpsilon(t, 2/float64(2+i), p, 0.041, "the paper's")
		total += float64(hits[i])
		want += p * n
	}
	require.InEpsilon(t, want, total, 0.01)
	require.InEpsilon(t, n*(8*6.0/(13*13))*(1-math.Pow(6.5/7.5, 2)), float64(pairs), 0.05)
}

func TestMappingEnds(t *testing.T) {
	m := mapping{state: 1}
	for range 10_000 {
		old := m.index
		m.next()
		require.Greater(t, m.index, old)
		if m.index >= indexEnd {
			break
		}
	}
	require.Equal(t, uint64(indexEnd), m.index)
}

// The estimate that chooses the way must be near the truth, whichever side has the ids.
func TestEstimate(t *testing.T) {
	src := source(4)
	both := randomIDs(src, 5000)
	for _, d := range []int{20, 200, 2000} {
		for _, cut := range []int{0, d / 2, d} {
			sum := 0.0
			const trials = 12
			for range trials {
				only := randomIDs(src, d)
				a, err := Build(testKey, 64, seq(append(both[:2000:2000], only[:cut]...)))
				require.NoError(t, err)
				b, err := Build(testKey, 64, seq(append(both[:2000:2000], only[cut:]...)))
				require.NoError(t, err)
				sum += estimateCounts(a.Snapshot().counts(), b.Snapshot().counts())
			}
			require.InEpsilon(t, float64(d), sum/trials, 0.25, "d=%d cut=%d", d, cut)
		}
	}
}
