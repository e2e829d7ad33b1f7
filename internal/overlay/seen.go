package overlay

import (
	"encoding/binary"

	"github.com/dchest/siphash"
)

const (
	// SeenEntries is how many ids a [Seen] made with 0 holds at most.
	SeenEntries = 16384

	seenWays  = 8  // entries that compete for a place
	seenFirst = 64 // entries that an empty Seen makes room for
)

// Seen remembers which records the peer of a link has, because the peer pushed
// them or they were pushed to it. It keeps a keyed hash of 8 bytes per id and no
// more: SeenEntries take 128 KiB, and less as long as fewer were added. When it is
// full, ids added longest ago are forgotten; that costs at most a push of what the
// peer has. Two ids of one hash, 1 chance in 10^15 for each id added to a full one,
// cost a push that the next reconciliation makes up for: nothing but pushes may
// depend on Seen.
//
// The table is set-associative: a hash has its place in one group of eight, and
// the newest of a group come first.
//
// A Seen is not safe for concurrent use.
type Seen struct {
	k0, k1 uint64
	most   int
	used   int
	table  []uint64 // 0 is empty
}

// NewSeen returns an empty Seen that holds at most the given number of ids, rounded
// up to a power of two of at least 64; 0 is [SeenEntries]. The key should be random,
// so that nobody can choose ids that crowd one group.
func NewSeen(entries int, key [16]byte) *Seen {
	if entries <= 0 {
		entries = SeenEntries
	}
	most := seenFirst
	for most < entries && most < 1<<30 {
		most *= 2
	}
	return &Seen{
		k0: binary.LittleEndian.Uint64(key[:8]), k1: binary.LittleEndian.Uint64(key[8:]), most: most,
	}
}

// Add remembers an id and reports whether it was new: whether the peer has to be
// told. An id that was known counts as added again.
func (s *Seen) Add(id [32]byte) bool {
	h := s.hash(&id)
	if s.table == nil {
		s.table = make([]uint64, seenFirst)
	}
	// Half full, so that few groups overflow before the whole does.
	if s.used*2 >= len(s.table) && len(s.table) < s.most {
		s.grow()
	}
	return s.put(h)
}

// Has reports whether an id is remembered.
func (s *Seen) Has(id [32]byte) bool {
	if s.table == nil {
		return false
	}
	h := s.hash(&id)
	for _, e := range s.group(h) {
		if e == h {
			return true
		}
	}
	return false
}

// Len returns how many ids are remembered.
func (s *Seen) Len() int { return s.used }

// Bytes returns the memory that the ids take now.
func (s *Seen) Bytes() int { return 8 * cap(s.table) }

func (s *Seen) hash(id *[32]byte) uint64 {
	return max(siphash.Hash(s.k0, s.k1, id[:]), 1)
}

func (s *Seen) group(h uint64) []uint64 {
	at := int(h>>32) & (len(s.table)/seenWays - 1) * seenWays
	return s.table[at : at+seenWays : at+seenWays]
}

// put moves a hash to the front of its group.
func (s *Seen) put(h uint64) bool {
	g := s.group(h)
	carry := h
	for i, e := range g {
		g[i] = carry
		switch e {
		case h:
			return false
		case 0:
			s.used++
			return true
		}
		carry = e
	}
	return true // the last of the group is forgotten
}

// grow doubles the table. Groups are split oldest first, so that their order stays.
func (s *Seen) grow() {
	old := s.table
	s.table, s.used = make([]uint64, 2*len(old)), 0
	for at := 0; at < len(old); at += seenWays {
		for i := at + seenWays - 1; i >= at; i-- {
			if old[i] != 0 {
				s.put(old[i])
			}
		}
	}
}
