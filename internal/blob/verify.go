package blob

import (
	"fmt"
	"slices"
)

// ProofSize returns the exact length in bytes of the proof of a run that passes
// [Run.Check] for the size: about 0.4 % of the run and 64 bytes per level above.
func ProofSize(size uint64, run Run) int {
	return int(proofNodes(0, Groups(size), run) * NodeSize)
}

// proofNodes counts the nodes over groups [lo, lo+n) that have a group of the run
// below them.
func proofNodes(lo, n uint64, run Run) uint64 {
	switch {
	case n <= 1 || run.End() <= lo || lo+n <= run.First:
		return 0
	case run.First <= lo && lo+n <= run.End():
		return n - 1
	}
	l := split(n)
	return 1 + proofNodes(lo, l, run) + proofNodes(lo+l, n-l, run)
}

// Verifier checks the groups of one run against a root. It holds the chaining
// value of each group of the run, which a proof has tied to the root before, so
// groups may be checked in any order, as they arrive. It is immutable and safe for
// concurrent use; make one with [NewVerifier].
type Verifier struct {
	root  [32]byte
	size  uint64
	run   Run
	alone bool
	cvs   []cv
	proof []byte
}

// NewVerifier checks the proof of a run of groups of a blob, of which the caller
// knows root and size from a signed record, and returns a verifier for the run.
// The proof is kept and must not be changed. Errors match [ErrRange], [ErrSize]
// or, for a proof of the wrong length or content, [ErrProof]; nothing is
// allocated for a proof of the wrong length.
//
// The size is tied to the root by the last group alone: a run that leaves it out
// may verify against a size that is wrong.
func NewVerifier(root [32]byte, size uint64, run Run, proof []byte) (*Verifier, error) {
	if err := run.Check(size); err != nil {
		return nil, err
	}
	// A run can't have more groups than its proof has nodes plus one; looking at
	// that first keeps the multiplication in ProofSize far from overflow.
	if run.Count-1 > uint64(len(proof)) || len(proof) != ProofSize(size, run) {
		return nil, fmt.Errorf("%w: wrong length", ErrProof)
	}
	n := Groups(size)
	v := &Verifier{root: root, size: size, run: run, alone: n == 1, cvs: make([]cv, 0, run.Count), proof: proof}
	if _, ok := v.descend(cvFrom(root[:]), 0, n, proof, true); !ok {
		return nil, ErrProof
	}
	return v, nil
}

// descend checks the nodes over groups [lo, lo+n), whose root must hash to want,
// and returns the rest of the proof.
func (v *Verifier) descend(want cv, lo, n uint64, proof []byte, root bool) ([]byte, bool) {
	if v.run.End() <= lo || lo+n <= v.run.First {
		return proof, true
	}
	if n == 1 {
		v.cvs = append(v.cvs, want)
		return proof, true
	}
	l, r := cvFrom(proof), cvFrom(proof[32:])
	if parent(l, r, root) != want {
		return nil, false
	}
	half := split(n)
	rest, ok := v.descend(l, lo, half, proof[NodeSize:], false)
	if !ok {
		return nil, false
	}
	return v.descend(r, lo+half, n-half, rest, false)
}

// Run returns the run that the verifier knows.
func (v *Verifier) Run() Run { return v.run }

// Check returns nil when data is exactly what the root promises from group first
// on. Data must be whole groups of the verifier's run ([ErrSize], [ErrRange]); the
// first wrong one is named by a [GroupError].
func (v *Verifier) Check(first uint64, data []byte) error {
	run, err := RunAt(v.size, first, len(data))
	if err != nil {
		return err
	}
	if run.First < v.run.First || run.End() > v.run.End() {
		return fmt.Errorf("%w: %v is not in the proven %v", ErrRange, run, v.run)
	}
	for i := run.First; i < run.End(); i++ {
		group := data[:min(GroupSize, len(data))]
		data = data[len(group):]
		if groupCV(group, i, v.alone) != v.cvs[i-v.run.First] {
			return &GroupError{Group: i}
		}
	}
	return nil
}

// VerifyGroups checks data, whole groups from group first on, and their proof
// against root and size: [NewVerifier] and [Verifier.Check] in one call.
func VerifyGroups(root [32]byte, size, first uint64, proof, data []byte) error {
	run, err := RunAt(size, first, len(data))
	if err != nil {
		return err
	}
	v, err := NewVerifier(root, size, run, proof)
	if err != nil {
		return err
	}
	return v.Check(first, data)
}

// nodes calls visit for each node of the proof with its index in the outboard.
// Subtrees wholly inside the run come as one block in outboard order.
func (v *Verifier) nodes(visit func(index uint64, nodes []byte) error) error {
	_, err := v.walk(0, 0, Groups(v.size), v.proof, visit)
	return err
}

func (v *Verifier) walk(base, lo, n uint64, proof []byte, visit func(uint64, []byte) error) ([]byte, error) {
	if n == 1 || v.run.End() <= lo || lo+n <= v.run.First {
		return proof, nil
	}
	if v.run.First <= lo && lo+n <= v.run.End() {
		size := (n - 1) * NodeSize
		return proof[size:], visit(base, appendPostOrder(make([]byte, 0, size), proof[:size], n))
	}
	if err := visit(base+n-2, proof[:NodeSize]); err != nil {
		return nil, err
	}
	half := split(n)
	rest, err := v.walk(base, lo, half, proof[NodeSize:], visit)
	if err != nil {
		return nil, err
	}
	return v.walk(base+half-1, lo+half, n-half, rest, visit)
}

// appendPostOrder appends the pre-order nodes over n groups in post-order.
func appendPostOrder(dst, pre []byte, n uint64) []byte {
	if n == 1 {
		return dst
	}
	half := split(n)
	mid := half * NodeSize // the node itself and the half-1 of the left subtree
	dst = appendPostOrder(dst, pre[NodeSize:mid], half)
	dst = appendPostOrder(dst, pre[mid:], n-half)
	return append(slices.Grow(dst, NodeSize), pre[:NodeSize]...)
}
