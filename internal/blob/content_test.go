package blob

import (
	"encoding/binary"

	"pgregory.net/rapid"
)

// pattern returns n bytes that differ from group to group.
func pattern(n int) []byte {
	b := make([]byte, n)
	x := uint64(n)*0x9e3779b97f4a7c15 + 1
	i := 0
	for ; i+8 <= n; i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(b[i:], x)
	}
	for ; i < n; i++ {
		b[i] = byte(x >> (8 * (i % 8)))
	}
	return b
}

// sizes draws content lengths, most of them near a boundary of the tree.
func sizes(maxGroups int) *rapid.Generator[int] {
	return rapid.Custom(func(t *rapid.T) int {
		unit := rapid.SampledFrom([]int{1, 64, 1024, GroupSize}).Draw(t, "unit")
		n := rapid.IntRange(0, maxGroups*GroupSize/unit).Draw(t, "units") * unit
		return max(0, min(maxGroups*GroupSize, n+rapid.IntRange(-1, 1).Draw(t, "off by")))
	})
}

// runs draws a run inside content of the given size.
func runs(size int) *rapid.Generator[Run] {
	return rapid.Custom(func(t *rapid.T) Run {
		n := Groups(uint64(size))
		first := rapid.Uint64Range(0, n-1).Draw(t, "first")
		return Run{First: first, Count: rapid.Uint64Range(1, n-first).Draw(t, "count")}
	})
}
