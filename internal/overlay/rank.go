package overlay

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"
	"time"

	"github.com/dchest/siphash"

	"github.com/cansync/cansync/transport"
)

// ranker computes the weights of pairs at one time.
type ranker struct {
	k0, k1 uint64
	now    uint64 // seconds
}

func newRanker(seed [16]byte, now time.Time) ranker {
	return ranker{
		k0:  binary.LittleEndian.Uint64(seed[:8]),
		k1:  binary.LittleEndian.Uint64(seed[8:]),
		now: uint64(now.Unix()),
	}
}

// weight returns the weight of a pair, the same for (a, b) and (b, a); less is
// better. One hash of the pair yields when its turns begin and, mixed with the
// number of the turn, the weight.
func (r ranker) weight(a, b *transport.PeerID) uint64 {
	var buf [2 * len(a)]byte
	if bytes.Compare(a[:], b[:]) > 0 {
		a, b = b, a
	}
	copy(buf[:], a[:])
	copy(buf[len(a):], b[:])
	base, offset := siphash.Hash128(r.k0, r.k1, buf[:])
	const turn = uint64(Turn / time.Second)
	shift, _ := bits.Mul64(offset, turn) // uniform in [0, turn)
	return mix(base + (r.now+shift)/turn*0x9e3779b97f4a7c15)
}

// mix is the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// ranked is a peer of a view, by its index, with the weight of the pair.
type ranked struct {
	weight uint64
	at     int
}

// order is total: weights that are equal by chance are told apart by id.
func (v *View) order(a, b ranked) int {
	if c := cmp.Compare(a.weight, b.weight); c != 0 {
		return c
	}
	return bytes.Compare(v.Peers[a.at].ID[:], v.Peers[b.at].ID[:])
}

// best holds the least few of the ranked peers added to it, in order.
type best struct {
	v    *View
	most int
	list []ranked
}

func (b *best) add(r ranked) {
	n := len(b.list)
	if n == b.most {
		if n == 0 || b.v.order(r, b.list[n-1]) >= 0 {
			return
		}
		b.list = b.list[:n-1]
	}
	i, _ := slices.BinarySearchFunc(b.list, r, b.v.order)
	b.list = slices.Insert(b.list, i, r)
}
