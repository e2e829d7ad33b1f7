package blob

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"

	"lukechampine.com/blake3/guts"

	"github.com/cansync/cansync/can"
)

// Summary is what one pass over the content yields.
type Summary struct {
	// Digest is the SHA-256 of the content.
	Digest can.Digest
	// Root is the BLAKE3 hash of the content.
	Root [32]byte
	// Size is the length of the content in bytes.
	Size uint64
	// Outboard is the BLAKE3 tree above the chunk groups: its [Groups]-1 parent
	// nodes of [NodeSize] bytes in post-order (left subtree, right subtree, the
	// node itself). It is nil for content of at most one group, and when the
	// nodes went to a writer.
	//
	// Post-order lets the tree be appended to while content of unknown length
	// streams by; the place of every node follows from the number of groups, so
	// reaching any of them takes O(log n) steps. Read in pre-order and put behind
	// an eight-byte little-endian length, the same nodes are the outboard of Bao.
	Outboard []byte
}

// Hasher computes the SHA-256, the BLAKE3 root and the tree of content streamed
// through Write in a single pass. Its memory is one group and the outboard (0.4 %
// of the content), or one group alone when the nodes go to a writer. It is not
// safe for concurrent use; make one with [NewHasher].
type Hasher struct {
	sha  hash.Hash
	want int64
	size uint64
	err  error

	buf [GroupSize]byte
	n   int // bytes in buf

	// last is the newest complete group: it may turn out to be the root, so its
	// chaining value waits until more content arrives.
	last    guts.Node
	hasLast bool
	groups  uint64 // groups merged into the stack

	stack [64]cv // roots of complete subtrees, largest first
	depth int

	out   []byte
	w     io.Writer
	spill uint64 // nodes written to w and still in out are flushed at this size
}

// maxPrealloc bounds what a claimed length alone makes a Hasher allocate: the
// outboard of 1 GiB.
const maxPrealloc = 4 << 20

// NewHasher returns a hasher for content of the given size in bytes, or of
// unknown size when size is negative. A known size is held against the content;
// it is a claim until then and does not by itself make the hasher allocate more
// than 4 MiB.
func NewHasher(size int64) *Hasher {
	h := &Hasher{sha: sha256.New()}
	h.Reset(size)
	return h
}

// NewHasherTo is [NewHasher] with the outboard's nodes written to w, in the
// layout of [Summary], instead of kept in memory. An error of w ends the pass.
func NewHasherTo(size int64, w io.Writer) *Hasher {
	h := &Hasher{sha: sha256.New(), w: w, spill: 64 << 10}
	h.Reset(size)
	return h
}

// Reset makes the hasher ready for new content, as [NewHasher] does. Nodes of a
// hasher made by [NewHasherTo] go to the same writer.
func (h *Hasher) Reset(size int64) {
	h.sha.Reset()
	h.want, h.size, h.err = size, 0, nil
	h.n, h.hasLast, h.groups, h.depth = 0, false, 0, 0
	h.out = nil
	switch {
	case h.w != nil:
		h.out = make([]byte, 0, h.spill+NodeSize)
	case size > GroupSize && size <= MaxSize:
		h.out = make([]byte, 0, min((Groups(uint64(size))-1)*NodeSize, maxPrealloc))
	}
}

// Write takes content in. It returns [ErrSize] once there is more than the known
// size, [ErrClosed] after [Hasher.Finish], or the error of the outboard's writer.
func (h *Hasher) Write(p []byte) (int, error) {
	if h.err != nil {
		return 0, h.err
	}
	limit := uint64(MaxSize)
	if h.want >= 0 {
		limit = min(limit, uint64(h.want))
	}
	if uint64(len(p)) > limit-h.size {
		h.err = fmt.Errorf("%w: more than %d bytes", ErrSize, limit)
		return 0, h.err
	}
	written := 0
	for len(p) > 0 {
		var group []byte
		if h.n == 0 && len(p) >= GroupSize {
			group = p[:GroupSize]
		} else {
			k := copy(h.buf[h.n:], p)
			if h.n += k; h.n < GroupSize {
				written += k
				h.size += uint64(k)
				break
			}
			group = h.buf[:]
			p, written, h.size = p[k:], written+k, h.size+uint64(k)
			h.n = 0
			if err := h.group(group); err != nil {
				return written, err
			}
			continue
		}
		p, written, h.size = p[GroupSize:], written+GroupSize, h.size+GroupSize
		if err := h.group(group); err != nil {
			return written, err
		}
	}
	return written, nil
}

// group takes one complete group.
func (h *Hasher) group(data []byte) error {
	h.sha.Write(data)
	if h.err = h.settle(); h.err != nil {
		return h.err
	}
	h.last, h.hasLast = groupNode(data, h.groups), true
	return nil
}

// settle merges the waiting group: more content follows it, so neither the group
// nor any subtree that it completes is the root.
func (h *Hasher) settle() error {
	if !h.hasLast {
		return nil
	}
	h.hasLast = false
	v := guts.ChainingValue(h.last)
	h.groups++
	for c := h.groups; c&1 == 0; c >>= 1 {
		h.depth--
		l := h.stack[h.depth]
		if err := h.emit(&l, &v); err != nil {
			return err
		}
		v = parent(l, v, false)
	}
	h.stack[h.depth] = v
	h.depth++
	return nil
}

func (h *Hasher) emit(l, r *cv) error {
	h.out = appendCV(appendCV(h.out, l), r)
	if h.w != nil && uint64(len(h.out)) >= h.spill {
		return h.flush()
	}
	return nil
}

func (h *Hasher) flush() error {
	_, err := h.w.Write(h.out)
	h.out = h.out[:0]
	if err != nil {
		return fmt.Errorf("blob: write outboard: %w", err)
	}
	return nil
}

// Size returns the number of bytes taken in so far.
func (h *Hasher) Size() uint64 { return h.size }

// Finish returns the summary of the content, or the error that ended the pass:
// [ErrSize] when the content is shorter than the known size. The hasher takes no
// more content until it is reset.
func (h *Hasher) Finish() (Summary, error) {
	if h.err != nil {
		return Summary{}, h.err
	}
	if h.want >= 0 && h.size != uint64(h.want) {
		h.err = fmt.Errorf("%w: %d of %d bytes", ErrSize, h.size, h.want)
		return Summary{}, h.err
	}
	h.err = ErrClosed
	if h.n > 0 || !h.hasLast {
		h.sha.Write(h.buf[:h.n])
		if err := h.settle(); err != nil {
			return Summary{}, err
		}
		h.last = groupNode(h.buf[:h.n], h.groups)
	}
	if h.depth == 0 {
		h.last.Flags |= guts.FlagRoot
	}
	v := guts.ChainingValue(h.last)
	for h.depth > 0 {
		h.depth--
		l := h.stack[h.depth]
		if err := h.emit(&l, &v); err != nil {
			return Summary{}, err
		}
		v = parent(l, v, h.depth == 0)
	}
	s := Summary{Root: rootOf(v), Size: h.size}
	h.sha.Sum(s.Digest[:0])
	switch {
	case h.w != nil:
		if err := h.flush(); err != nil {
			return Summary{}, err
		}
	case len(h.out) > 0:
		s.Outboard = h.out
	}
	h.out = nil
	return s, nil
}

// Sum returns the summary of content in memory.
func Sum(data []byte) Summary {
	h := NewHasher(int64(len(data)))
	// Neither call can fail: the size is right and nothing is written elsewhere.
	_, _ = h.Write(data)
	s, _ := h.Finish()
	return s
}
