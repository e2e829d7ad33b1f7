package blob

import (
	"fmt"
	"io"
	"math"
	"slices"
)

// Tree makes proofs out of a kept outboard in the layout of [Summary]. It is as
// safe for concurrent use as the reader beneath it. Make one with [NewTree] or
// [NewTreeBytes].
type Tree struct {
	root [32]byte
	size uint64
	mem  []byte
	r    io.ReaderAt
}

// NewTree returns the tree of a blob whose outboard is read from r as needed; r
// is not used, and may be nil, for content of at most one group.
func NewTree(root [32]byte, size uint64, r io.ReaderAt) (*Tree, error) {
	if size > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrSize, size)
	}
	return &Tree{root: root, size: size, r: r}, nil
}

// NewTreeBytes is [NewTree] for an outboard in memory, which must not be changed
// while the tree is in use. An outboard of the wrong length is [ErrOutboard].
func NewTreeBytes(root [32]byte, size uint64, outboard []byte) (*Tree, error) {
	t, err := NewTree(root, size, nil)
	if err != nil {
		return nil, err
	}
	if uint64(len(outboard)) != OutboardSize(size) {
		return nil, fmt.Errorf("%w: %d bytes for content of %d", ErrOutboard, len(outboard), size)
	}
	t.mem = outboard
	return t, nil
}

// OutboardSize returns the length in bytes of the outboard of content of a size.
func OutboardSize(size uint64) uint64 { return (Groups(size) - 1) * NodeSize }

// Root returns the BLAKE3 root.
func (t *Tree) Root() [32]byte { return t.root }

// Size returns the length of the content in bytes.
func (t *Tree) Size() uint64 { return t.size }

// AppendProof appends the proof of a run of groups to dst: every node above a
// group of the run, in pre-order. These are the tree nodes of a Bao slice for the
// same bytes; the proof of all groups, behind an eight-byte little-endian length,
// is the Bao outboard. The nodes are checked against the root on the way, so a damaged
// outboard is [ErrOutboard] here and never a wrong proof.
func (t *Tree) AppendProof(dst []byte, run Run) ([]byte, error) {
	if err := run.Check(t.size); err != nil {
		return dst, err
	}
	p := prover{t: t, run: run, dst: slices.Grow(dst, ProofSize(t.size, run))}
	if err := p.descend(cvFrom(t.root[:]), 0, 0, Groups(t.size), nil, true); err != nil {
		return dst, err
	}
	return p.dst, nil
}

// Verifier returns the verifier of a run without a proof from elsewhere.
func (t *Tree) Verifier(run Run) (*Verifier, error) {
	proof, err := t.AppendProof(nil, run)
	if err != nil {
		return nil, err
	}
	return NewVerifier(t.root, t.size, run, proof)
}

// Prove appends the proof for data, whole groups from group first on, after
// holding data against the tree: what a server does with bytes from its own store
// before they leave. [ErrGroup] says that the store gave other bytes than those
// announced, [ErrOutboard] that the kept tree is damaged; neither may be sent.
func (t *Tree) Prove(dst []byte, first uint64, data []byte) ([]byte, error) {
	run, err := RunAt(t.size, first, len(data))
	if err != nil {
		return dst, err
	}
	out, err := t.AppendProof(dst, run)
	if err != nil {
		return dst, err
	}
	v, err := NewVerifier(t.root, t.size, run, out[len(dst):])
	if err != nil {
		return dst, err
	}
	if err := v.Check(first, data); err != nil {
		return dst, err
	}
	return out, nil
}

// CheckGroups holds data, whole groups from group first on, against the outboard
// of a blob: [Tree.Prove] for a caller that wants no proof.
func CheckGroups(outboard []byte, root [32]byte, size, first uint64, data []byte) error {
	t, err := NewTreeBytes(root, size, outboard)
	if err != nil {
		return err
	}
	_, err = t.Prove(nil, first, data)
	return err
}

// prover collects the nodes of one proof.
type prover struct {
	t   *Tree
	run Run
	dst []byte
}

// maxBlock bounds one read of the outboard, in nodes.
const maxBlock = 4096

// descend appends the nodes over groups [lo, lo+n) whose first node has index
// base. block holds all nodes of this subtree when it was read in one go.
func (p *prover) descend(want cv, base, lo, n uint64, block []byte, root bool) error {
	if n == 1 || p.run.End() <= lo || lo+n <= p.run.First {
		return nil
	}
	if block == nil && p.t.mem == nil && n-1 <= maxBlock && p.run.First <= lo && lo+n <= p.run.End() {
		block = make([]byte, (n-1)*NodeSize)
		if err := p.t.read(block, base); err != nil {
			return err
		}
	}
	var buf [NodeSize]byte
	node := buf[:]
	switch {
	case block != nil:
		node = block[(n-2)*NodeSize:]
	case p.t.mem != nil:
		node = p.t.mem[(base+n-2)*NodeSize:][:NodeSize]
	default:
		if err := p.t.read(node, base+n-2); err != nil {
			return err
		}
	}
	l, r := cvFrom(node), cvFrom(node[32:])
	if parent(l, r, root) != want {
		return ErrOutboard
	}
	p.dst = append(p.dst, node[:NodeSize]...)
	half := split(n)
	var lb, rb []byte
	if block != nil {
		lb, rb = block[:(half-1)*NodeSize:(half-1)*NodeSize], block[(half-1)*NodeSize:(n-2)*NodeSize]
	}
	if err := p.descend(l, base, lo, half, lb, false); err != nil {
		return err
	}
	return p.descend(r, base+half-1, lo+half, n-half, rb, false)
}

// read fills b with outboard nodes from index on.
func (t *Tree) read(b []byte, index uint64) error {
	if t.r == nil || index > math.MaxInt64/NodeSize {
		return fmt.Errorf("%w: no outboard given", ErrOutboard)
	}
	if n, err := t.r.ReadAt(b, int64(index*NodeSize)); n < len(b) {
		if err == io.EOF {
			return fmt.Errorf("%w: too short", ErrOutboard)
		}
		return fmt.Errorf("blob: read outboard: %w", err)
	}
	return nil
}
