package blob

import (
	"encoding/binary"

	"lukechampine.com/blake3/guts"
)

// cv is a BLAKE3 chaining value.
type cv = [8]uint32

func cvFrom(b []byte) (v cv) {
	_ = b[31]
	for i := range v {
		v[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return v
}

func appendCV(dst []byte, v *cv) []byte {
	for _, w := range v {
		dst = binary.LittleEndian.AppendUint32(dst, w)
	}
	return dst
}

func rootOf(v cv) (b [32]byte) {
	appendCV(b[:0], &v)
	return b
}

// parent returns the chaining value of the node over l and r.
func parent(l, r cv, root bool) cv {
	var flags uint32
	if root {
		flags = guts.FlagRoot
	}
	return guts.ChainingValue(guts.ParentNode(l, r, &guts.IV, flags))
}

// groupNode compresses one chunk group, all sixteen chunks at once. The caller
// adds the root flag where the group is the whole content.
func groupNode(data []byte, group uint64) guts.Node {
	if len(data) == GroupSize {
		return guts.CompressBuffer((*[GroupSize]byte)(data), GroupSize, &guts.IV, group*groupChunks, 0)
	}
	// The batched primitive reads a whole group whatever the length.
	var buf [GroupSize]byte
	n := copy(buf[:], data)
	return guts.CompressBuffer(&buf, n, &guts.IV, group*groupChunks, 0)
}

// groupCV returns the chaining value of a group; alone says that it is the only
// group of its blob and therefore the root.
func groupCV(data []byte, group uint64, alone bool) cv {
	n := groupNode(data, group)
	if alone {
		n.Flags |= guts.FlagRoot
	}
	return guts.ChainingValue(n)
}
