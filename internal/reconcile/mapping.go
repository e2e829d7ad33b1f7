package reconcile

import (
	"encoding/binary"
	"math"

	"github.com/dchest/siphash"
)

// ID is the id of a record: uniformly distributed, as SHA-256 makes it.
type ID = [32]byte

// Key keys checksums and mapping of one library's symbols, so that who does not
// hold it cannot choose ids that collide. The zero value is a valid, public key.
type Key [16]byte

// hasher is a Key ready for use.
type hasher struct{ k0, k1 uint64 }

func newHasher(k Key) hasher {
	return hasher{binary.LittleEndian.Uint64(k[:8]), binary.LittleEndian.Uint64(k[8:])}
}

// hash returns the checksum of an id and where its mapping begins: the two
// halves of one SipHash-2-4-128, so that a collision of one says nothing of the other.
func (h hasher) hash(id *ID) (check uint64, m mapping) {
	check, seed := siphash.Hash128(h.k0, h.k1, id[:])
	return check, mapping{state: seed}
}

// mapping walks the indices of the coded symbols that an id is part of: index 0
// first, and index i with probability 1/(1+i/2), very nearly, for every i.
//
// Both peers must walk alike on every machine. The generator is SplitMix64
// (Steele, Lea and Flood, OOPSLA 2014); the step uses only operations that IEEE
// 754 rounds exactly, on operands that convert exactly, and never adds to a
// product, which a compiler may fuse.
type mapping struct {
	state uint64
	index uint64
}

// indexEnd is where mappings stop: far beyond the symbols anybody makes.
const indexEnd = 1 << 31

// next moves to the next index. It inverts the distribution of the gap as the
// paper does: gap = ceil((i+3/2)·(1/sqrt(u)-1)), u uniform in (0,1].
func (m *mapping) next() {
	m.state += 0x9e3779b97f4a7c15
	z := m.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	// 53 bits and an index below 2^31 convert to float64 without rounding.
	u := float64(int64(z>>11)+1) * (1.0 / (1 << 53))
	inverse := float64(1 / math.Sqrt(u))
	stretch := float64(inverse - 1)
	gap := math.Ceil(float64(float64(float64(int64(m.index))+1.5) * stretch))
	switch {
	case gap >= indexEnd:
		m.index = indexEnd
	case gap < 1: // u = 1: the same index twice would cancel out
		m.index++
	default:
		m.index = min(m.index+uint64(int64(gap)), indexEnd)
	}
}
