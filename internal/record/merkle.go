package record

import "crypto/sha256"

// The tree over a batch is that of RFC 9162, section 2.1: leaves and inner nodes
// are hashed with different first bytes, so that an inner node never passes for a
// record, and the count is signed with the root, so that the shape of the tree
// and with it the length of every path are fixed.

const (
	leafPrefix = 0x00
	nodePrefix = 0x01
)

func leafHash(id ID) [32]byte {
	var b [1 + 32]byte
	b[0] = leafPrefix
	copy(b[1:], id[:])
	return sha256.Sum256(b[:])
}

func nodeHash(l, r [32]byte) [32]byte {
	var b [1 + 64]byte
	b[0] = nodePrefix
	copy(b[1:], l[:])
	copy(b[33:], r[:])
	return sha256.Sum256(b[:])
}

// buildTree returns the root over the leaves and appends to each path, which
// runs from the leaf up.
func buildTree(leaves [][32]byte, paths [][][32]byte) [32]byte {
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := 1
	for k*2 < len(leaves) {
		k *= 2
	}
	l := buildTree(leaves[:k], paths[:k])
	r := buildTree(leaves[k:], paths[k:])
	for i := range paths {
		if i < k {
			paths[i] = append(paths[i], r)
		} else {
			paths[i] = append(paths[i], l)
		}
	}
	return nodeHash(l, r)
}

// climb returns the root that a leaf at index of count has by its path, by RFC
// 9162, section 2.1.3.2. The path has pathLen(index, count) digests.
func climb(leaf [32]byte, index, count int, path [][32]byte) [32]byte {
	fn, sn := index, count-1
	for _, p := range path {
		if fn&1 == 1 || fn == sn {
			leaf = nodeHash(p, leaf)
			for fn&1 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		} else {
			leaf = nodeHash(leaf, p)
		}
		fn, sn = fn>>1, sn>>1
	}
	return leaf
}

// pathLen returns the length of the path of the leaf at index of count.
func pathLen(index, count int) (n int) {
	for fn, sn := index, count-1; sn > 0; fn, sn, n = fn>>1, sn>>1, n+1 {
		if fn == sn {
			for fn&1 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		}
	}
	return n
}
