package reconcile

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"iter"
	"slices"
)

const (
	// DefaultPrefix is how many coded symbols a Set keeps unless told otherwise:
	// 192 KiB, enough to decode some 2,800 differences without a scan.
	DefaultPrefix = 4096
	// MinPrefix is the least a Set keeps: the digest covers that many.
	MinPrefix = 64
	// MaxPrefix is the most a Set keeps: 3 MiB.
	MaxPrefix = 65536
)

// Set keeps the first coded symbols of one library's set of ids. It does not hold
// the ids: whoever does must call Insert and Remove exactly once for each change,
// or the symbols stand for another set. It is not safe for concurrent use.
type Set struct {
	key     Key
	h       hasher
	symbols []symbol
	shared  bool // symbols belong to a Snapshot: copy before writing
	snap    *Snapshot
}

// NewSet returns the symbols of the empty set. A prefix of zero means
// DefaultPrefix; others are brought within MinPrefix and MaxPrefix.
func NewSet(key Key, prefix int) *Set {
	if prefix == 0 {
		prefix = DefaultPrefix
	}
	prefix = min(max(prefix, MinPrefix), MaxPrefix)
	return &Set{key: key, h: newHasher(key), symbols: make([]symbol, prefix)}
}

// Build returns the symbols of the ids, each of which must come once, in any
// order. It ends with the first error of the sequence.
//
// To build in the background while ids come and go: begin a consistent scan
// and at the same moment an empty Set of the same prefix, note changes in that
// one, and Merge it into the result.
func Build(key Key, prefix int, ids iter.Seq2[ID, error]) (*Set, error) {
	s := NewSet(key, prefix)
	for id, err := range ids {
		if err != nil {
			return nil, err
		}
		s.h.addAll(s.symbols, &id, 1)
	}
	return s, nil
}

func (s *Set) write() {
	if s.shared {
		s.symbols = slices.Clone(s.symbols)
		s.shared = false
	}
	s.snap = nil
}

// Insert notes that an id which was not in the set now is.
func (s *Set) Insert(id ID) {
	s.write()
	s.h.addAll(s.symbols, &id, 1)
}

// Remove notes that an id which was in the set no longer is.
func (s *Set) Remove(id ID) {
	s.write()
	s.h.addAll(s.symbols, &id, -1)
}

// ErrMismatch says that two Sets differ in key or prefix and cannot be merged.
var ErrMismatch = errors.New("reconcile: sets differ in key or prefix")

// Merge adds the changes noted in another Set of the same key and prefix, which
// may have noted removals of ids it never saw inserted.
func (s *Set) Merge(changes *Set) error {
	if s.key != changes.key || len(s.symbols) != len(changes.symbols) {
		return ErrMismatch
	}
	s.write()
	for i := range s.symbols {
		c := &changes.symbols[i]
		s.symbols[i].apply(&c.sum, c.check, c.count)
	}
	return nil
}

// Grow makes the prefix four times as long, up to MaxPrefix, from a scan of
// exactly the ids the Set stands for. The Set is unchanged if the sequence ends in
// an error or does not lead to the same symbols (ErrStale).
func (s *Set) Grow(ids iter.Seq2[ID, error]) error {
	larger, err := Build(s.key, 4*len(s.symbols), ids)
	if err != nil {
		return err
	}
	if !slices.Equal(larger.symbols[:len(s.symbols)], s.symbols) {
		return ErrStale
	}
	s.write()
	s.symbols = larger.symbols
	return nil
}

// ErrStale says that a scan saw another set than the one it was made for.
var ErrStale = errors.New("reconcile: the scan does not match the set")

// Len returns the number of ids; it is negative if a Set of changes noted more
// removals than insertions.
func (s *Set) Len() int { return int(s.symbols[0].count) }

// Prefix returns the number of coded symbols kept.
func (s *Set) Prefix() int { return len(s.symbols) }

// Snapshot returns the Set as it is now. It costs nothing by itself; the next
// change copies the symbols once (48 bytes each).
func (s *Set) Snapshot() *Snapshot {
	if s.snap == nil {
		s.shared = true
		s.snap = &Snapshot{key: s.key, h: s.h, symbols: s.symbols, digest: digest(s.symbols)}
	}
	return s.snap
}

// Snapshot is a Set at one moment. It does not change and is safe for concurrent use.
type Snapshot struct {
	key     Key
	h       hasher
	symbols []symbol
	digest  [32]byte
}

// Len returns the number of ids.
func (s *Snapshot) Len() int { return int(s.symbols[0].count) }

// Digest identifies the whole set among holders of the key: SHA-256 over the
// size and the first MinPrefix coded symbols, of which the first sums up all ids.
// It does not depend on the length of the prefix.
func (s *Snapshot) Digest() [32]byte { return s.digest }

func digest(symbols []symbol) [32]byte {
	b := make([]byte, 0, 32+MinPrefix*(fixedSize+8))
	b = append(b, "cansync reconcile digest 1\n"...)
	for i := range symbols[:MinPrefix] {
		b = symbols[i].appendFixed(b)
		b = binary.LittleEndian.AppendUint64(b, uint64(symbols[i].count))
	}
	return sha256.Sum256(b)
}
