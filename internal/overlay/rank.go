package overlay

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"
	"time"

	"github.com/cansync/cansync/transport"
)

// ranker computes the weights of pairs at one time. Ids are public keys, hence all
// but random already; two multiplications mix in the seed, so that who does not
// know it cannot tell who is near to whom. Who does can search for an id near to
// another's with any hash, and gains one link at a member.
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

// point returns what a peer adds to the weights of its pairs.
func (r ranker) point(id *transport.PeerID) uint64 {
	a, b := binary.LittleEndian.Uint64(id[:8]), binary.LittleEndian.Uint64(id[8:16])
	return fold(mix(a^r.k0), mix(b^r.k1))
}

// weight returns the weight of a pair, given both points in either order; less is
// better. From one number of the pair follow when its turns begin and, mixed with
// the number of the turn, the weight.
func (r ranker) weight(a, b uint64) uint64 {
	pair := fold(min(a, b)^r.k1, max(a, b)^r.k0)
	const turn = uint64(Turn / time.Second)
	shift, _ := bits.Mul64(pair, turn) // uniform in [0, turn)
	return mix(pair + (r.now+shift)/turn*0x9e3779b97f4a7c15)
}

// fold multiplies two numbers and folds the product, as wyhash does (Wang Yi,
// github.com/wangyi-fudan/wyhash).
func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0xa0761d6478bd642f, b^0xe7037ed1a0b428db)
	return hi ^ lo
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
		if n == 0 || r.weight > b.list[n-1].weight || b.v.order(r, b.list[n-1]) >= 0 {
			return
		}
		b.list = b.list[:n-1]
	}
	i, _ := slices.BinarySearchFunc(b.list, r, b.v.order)
	b.list = slices.Insert(b.list, i, r)
}
