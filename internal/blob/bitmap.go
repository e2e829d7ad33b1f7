package blob

import (
	"iter"
	"math/bits"
)

// Bitmap is a set of chunk groups out of a fixed number of them: one bit each, and
// a count. It is not safe for concurrent use. Make one with [NewBitmap]; the zero
// value is the set over no groups.
type Bitmap struct {
	n     uint64
	count uint64
	words []uint64
}

// NewBitmap returns the empty set over n groups. It allocates n/8 bytes, so n must
// come from a size that the caller has accepted.
func NewBitmap(n uint64) *Bitmap {
	return &Bitmap{n: n, words: make([]uint64, (n+63)/64)}
}

// Len returns the number of groups that the set is over.
func (b *Bitmap) Len() uint64 { return b.n }

// Count returns the number of groups in the set.
func (b *Bitmap) Count() uint64 { return b.count }

// Full reports whether all groups are in the set.
func (b *Bitmap) Full() bool { return b.count == b.n }

// Test reports whether group i is in the set; groups beyond its length are not.
func (b *Bitmap) Test(i uint64) bool {
	return i < b.n && b.words[i/64]&(1<<(i%64)) != 0
}

// Has reports whether the whole run is in the set; an empty run is.
func (b *Bitmap) Has(run Run) bool {
	return run.Count == 0 || run.First < b.n && run.Count <= b.n-run.First && b.nextClear(run.First, run.End()) == run.End()
}

// Set adds a run and returns how many of its groups were new. Groups beyond the
// length of the set are ignored.
func (b *Bitmap) Set(run Run) uint64 {
	before := b.count
	b.each(run, func(w *uint64, mask uint64) {
		b.count += uint64(bits.OnesCount64(mask &^ *w))
		*w |= mask
	})
	return b.count - before
}

// Clear removes a run and returns how many of its groups were in the set.
func (b *Bitmap) Clear(run Run) uint64 {
	before := b.count
	b.each(run, func(w *uint64, mask uint64) {
		b.count -= uint64(bits.OnesCount64(mask & *w))
		*w &^= mask
	})
	return before - b.count
}

// each calls fn for each word that the run touches, with the run's bits in it.
func (b *Bitmap) each(run Run, fn func(w *uint64, mask uint64)) {
	if run.First >= b.n {
		return
	}
	end := run.First + min(run.Count, b.n-run.First)
	for i := run.First; i < end; {
		next := min(end, (i/64+1)*64)
		mask := ^uint64(0) << (i % 64)
		if k := next % 64; k != 0 {
			mask &= 1<<k - 1
		}
		fn(&b.words[i/64], mask)
		i = next
	}
}

// Clone returns a copy.
func (b *Bitmap) Clone() *Bitmap {
	c := *b
	c.words = append([]uint64(nil), b.words...)
	return &c
}

// NextMissing returns the first run of groups from index from on that are not in
// the set, at most limit groups long (0 means any length), or false when none is
// left.
func (b *Bitmap) NextMissing(from, limit uint64) (Run, bool) {
	first := b.nextClear(from, b.n)
	if first >= b.n {
		return Run{}, false
	}
	end := b.n
	if limit > 0 && limit < end-first {
		end = first + limit
	}
	return Run{First: first, Count: b.nextSet(first, end) - first}, true
}

// Missing yields the maximal runs of groups that are not in the set, in order. The
// set may grow meanwhile.
func (b *Bitmap) Missing() iter.Seq[Run] {
	return func(yield func(Run) bool) {
		for at := uint64(0); ; {
			run, ok := b.NextMissing(at, 0)
			if !ok || !yield(run) {
				return
			}
			at = run.End()
		}
	}
}

// Prefix returns how many groups are in the set before the first missing one.
func (b *Bitmap) Prefix() uint64 { return b.nextClear(0, b.n) }

// nextClear returns the first index in [from, end) that is not in the set, or end.
func (b *Bitmap) nextClear(from, end uint64) uint64 { return b.scan(from, end, ^uint64(0)) }

// nextSet returns the first index in [from, end) that is in the set, or end.
func (b *Bitmap) nextSet(from, end uint64) uint64 { return b.scan(from, end, 0) }

// scan finds the first set bit of the words xored with flip.
func (b *Bitmap) scan(from, end, flip uint64) uint64 {
	for i := from; i < end; i = (i/64 + 1) * 64 {
		if w := (b.words[i/64] ^ flip) >> (i % 64); w != 0 {
			return min(end, i+uint64(bits.TrailingZeros64(w)))
		}
	}
	return end
}
