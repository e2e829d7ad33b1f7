// Package blob knows how the content of one asset is hashed, proven, staged and
// split among the peers it comes from.
//
// Content has two names. Its SHA-256 is its identity; its BLAKE3 root, signed
// beside the SHA-256 in the asset's record, lets a receiver check any part of it
// before the rest has arrived. The BLAKE3 tree is cut off at chunk groups of
// 16 KiB (16 chunks), as in Bao with a group of 2^4 chunks, so the tree above the
// groups costs 0.4 % of the content.
//
//   - [Hasher] computes both hashes and the tree in one pass.
//   - [Tree] proves runs of groups out of a kept tree; [Verifier] checks such a
//     proof, and then each group, against root and size alone.
//   - [Bitmap] says which groups are there.
//   - [Stage] is a large blob on its way in: a preallocated file and its durable
//     bitmap.
//   - [Scheduler] splits the missing groups among several sources.
//
// Who is to blame follows from where a check fails: a group or proof that does
// not fit the root is the fault of the peer that sent it ([ErrGroup], [ErrProof]);
// content that fits the root and not the SHA-256 is the fault of the record's
// author ([ErrContent]).
//
// Sources: the BLAKE3 paper (O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020) and
// the Bao specification (O'Connor).
package blob

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
)

const (
	// GroupSize is the length of a chunk group in bytes. Only the last group of a
	// blob may be shorter.
	GroupSize = 16 << 10
	// NodeSize is the length in bytes of a tree node: the chaining values of its
	// two children.
	NodeSize = 64
	// MaxSize is the largest content, in bytes, that this package works on.
	MaxSize = math.MaxInt64 - GroupSize

	groupChunks = 16
)

// Errors of this package, to be matched with errors.Is.
var (
	// ErrSize says that a length is not the one claimed, or is too large.
	ErrSize = errors.New("blob: length differs from the length claimed")
	// ErrRange says that a run lies outside the blob or is empty.
	ErrRange = errors.New("blob: run outside the blob")
	// ErrProof says that a proof does not lead to the root: whoever made it lies.
	ErrProof = errors.New("blob: proof does not lead to the root")
	// ErrGroup says that a group is not what the root promises: whoever sent it
	// lies, or, for bytes read back from a store of our own, the store has rotted.
	// Such errors are a [GroupError].
	ErrGroup = errors.New("blob: wrong bytes in a chunk group")
	// ErrOutboard says that a kept tree does not lead to the root: it has to be
	// made anew from the content.
	ErrOutboard = errors.New("blob: kept tree is damaged")
	// ErrContent says that content which fits its BLAKE3 root has another SHA-256
	// than its record says: the record's author is to blame, never a server.
	ErrContent = errors.New("blob: content does not have the recorded SHA-256")
	// ErrClosed says that the object was finished or closed before.
	ErrClosed = errors.New("blob: closed")
)

// GroupError names the first wrong group. It matches [ErrGroup].
type GroupError struct {
	// Group is the index of the wrong group in its blob.
	Group uint64
}

// Error implements error.
func (e *GroupError) Error() string {
	return fmt.Sprintf("blob: wrong bytes in chunk group %d", e.Group)
}

// Is matches [ErrGroup].
func (e *GroupError) Is(target error) bool { return target == ErrGroup }

// Run is a sequence of consecutive chunk groups. The zero value is empty.
type Run struct {
	// First is the index of the first group.
	First uint64
	// Count is the number of groups.
	Count uint64
}

// End returns the index after the last group.
func (r Run) End() uint64 { return r.First + r.Count }

// Contains reports whether group i belongs to the run.
func (r Run) Contains(i uint64) bool { return i >= r.First && i-r.First < r.Count }

// String returns the run as a half-open interval.
func (r Run) String() string { return fmt.Sprintf("[%d,%d)", r.First, r.End()) }

// Check returns [ErrRange] unless the run is not empty and inside a blob of the
// given size, and [ErrSize] for a size above [MaxSize].
func (r Run) Check(size uint64) error {
	if size > MaxSize {
		return fmt.Errorf("%w: %d bytes", ErrSize, size)
	}
	n := Groups(size)
	if r.Count == 0 || r.First >= n || r.Count > n-r.First {
		return fmt.Errorf("%w: %d groups from %d of %d", ErrRange, r.Count, r.First, n)
	}
	return nil
}

// Offset returns where the run begins in the content, in bytes.
func (r Run) Offset() int64 { return int64(r.First * GroupSize) }

// Len returns the number of content bytes of a run that passes [Run.Check].
func (r Run) Len(size uint64) int64 {
	return int64(min(r.End()*GroupSize, size) - r.First*GroupSize)
}

// Groups returns the number of chunk groups of content of the given size. Empty
// content has one empty group, so that there is always something to verify.
func Groups(size uint64) uint64 {
	return max(1, size/GroupSize+min(1, size%GroupSize))
}

// RunAt returns the run that length bytes at group first make up. The bytes must
// be whole groups, or end with the content: else it returns [ErrSize].
func RunAt(size, first uint64, length int) (Run, error) {
	run := Run{First: first, Count: Groups(uint64(length))}
	if err := run.Check(size); err != nil {
		return Run{}, err
	}
	if run.Len(size) != int64(length) {
		return Run{}, fmt.Errorf("%w: %d bytes at group %d are not whole groups", ErrSize, length, first)
	}
	return run, nil
}

// split returns the number of groups in the left subtree of a tree of n ≥ 2.
func split(n uint64) uint64 { return 1 << (bits.Len64(n-1) - 1) }
