package blob

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"lukechampine.com/blake3/bao"
	"pgregory.net/rapid"
)

func slice(data []byte, run Run) []byte {
	return data[run.Offset():][:run.Len(uint64(len(data)))]
}

func TestProofsVerify(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := pattern(sizes(70).Draw(t, "size"))
		s := Sum(data)
		run := runs(len(data)).Draw(t, "run")
		mem, err := NewTreeBytes(s.Root, s.Size, s.Outboard)
		require.NoError(t, err)
		proof, err := mem.AppendProof([]byte("before"), run)
		require.NoError(t, err)
		require.Equal(t, "before", string(proof[:6]))
		proof = proof[6:]
		require.Len(t, proof, ProofSize(s.Size, run))

		file, err := NewTree(s.Root, s.Size, bytes.NewReader(s.Outboard))
		require.NoError(t, err)
		fromFile, err := file.AppendProof(nil, run)
		require.NoError(t, err)
		require.True(t, bytes.Equal(proof, fromFile))

		part := slice(data, run)
		require.NoError(t, VerifyGroups(s.Root, s.Size, run.First, proof, part))
		require.NoError(t, CheckGroups(s.Outboard, s.Root, s.Size, run.First, part))
		proved, err := mem.Prove(nil, run.First, part)
		require.NoError(t, err)
		require.True(t, bytes.Equal(proof, proved))

		// Any group alone, in any order, of a verified run.
		v, err := NewVerifier(s.Root, s.Size, run, proof)
		require.NoError(t, err)
		one := Run{First: rapid.Uint64Range(run.First, run.End()-1).Draw(t, "one"), Count: 1}
		require.NoError(t, v.Check(one.First, slice(data, one)))

		// The nodes that a receiver files away are the outboard's own.
		seen := 0
		require.NoError(t, v.nodes(func(index uint64, nodes []byte) error {
			seen += len(nodes)
			require.True(t, bytes.Equal(s.Outboard[index*NodeSize:][:len(nodes)], nodes))
			return nil
		}))
		require.Equal(t, len(proof), seen)
	})
}

// TestProofIsBaoSlice holds a proof against the slice that Bao extracts.
func TestProofIsBaoSlice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := pattern(1 + sizes(40).Draw(t, "size"))
		s := Sum(data)
		run := runs(len(data)).Draw(t, "run")
		tree, err := NewTreeBytes(s.Root, s.Size, s.Outboard)
		require.NoError(t, err)
		proof, err := tree.AppendProof(nil, run)
		require.NoError(t, err)
		part := slice(data, run)
		var want bytes.Buffer
		require.NoError(t, bao.ExtractSlice(&want, bytes.NewReader(part), bytes.NewReader(baoOutboard(data)), 4, uint64(run.Offset()), uint64(len(part))))
		require.Equal(t, want.Len(), 8+len(proof)+len(part))
		// Ours with the data woven in is theirs: one proof node less or more, or in
		// another order, and it would not decode.
		var woven []byte
		woven = append(woven, want.Bytes()[:8]...)
		woven, rest := weave(woven, proof, part, 0, Groups(s.Size), run)
		require.Empty(t, rest)
		require.True(t, bytes.Equal(want.Bytes(), woven))
	})
}

func weave(dst, proof, data []byte, lo, n uint64, run Run) ([]byte, []byte) {
	left := func() []byte { return data[min(uint64(len(data)), GroupSize*(max(lo, run.First)-run.First)):] }
	if run.End() <= lo || lo+n <= run.First {
		return dst, proof
	}
	if n == 1 {
		d := left()
		return append(dst, d[:min(GroupSize, len(d))]...), proof
	}
	dst, proof = append(dst, proof[:NodeSize]...), proof[NodeSize:]
	dst, proof = weave(dst, proof, data, lo, split(n), run)
	return weave(dst, proof, data, lo+split(n), n-split(n), run)
}

// TestMutationsAreFound flips one bit anywhere, or lies about length and place.
func TestMutationsAreFound(t *testing.T) {
	for _, kind := range []string{"data", "long data", "root", "proof", "cut proof", "long proof", "first", "size"} {
		t.Run(kind, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) { mutate(t, kind) })
		})
	}
}

func mutate(t *rapid.T, kind string) {
	data := pattern(1 + sizes(24).Draw(t, "size"))
	if kind == "proof" || kind == "cut proof" || kind == "first" {
		data = pattern(GroupSize + len(data)) // a single group has neither
	}
	s := Sum(data)
	run := runs(len(data)).Draw(t, "run")
	switch groups := Groups(s.Size); {
	case kind == "first" && run.Count == groups:
		run.Count--
	case kind == "size": // the last group ties the size; other runs can't know
		run.Count = groups - run.First
	}
	tree, err := NewTreeBytes(s.Root, s.Size, s.Outboard)
	require.NoError(t, err)
	proof, err := tree.AppendProof(nil, run)
	require.NoError(t, err)
	part := bytes.Clone(slice(data, run))
	require.NoError(t, VerifyGroups(s.Root, s.Size, run.First, proof, part))
	root, size, first := s.Root, s.Size, run.First
	flip := func(b []byte) int {
		i := rapid.IntRange(0, 8*len(b)-1).Draw(t, "bit")
		b[i/8] ^= 1 << (i % 8)
		return i / 8
	}
	wrong := uint64(0)
	switch kind {
	case "data":
		wrong = run.First + uint64(flip(part))/GroupSize
	case "long data":
		part = append(part, 0)
	case "root":
		flip(root[:])
	case "proof":
		flip(proof)
	case "cut proof":
		proof = proof[:len(proof)-rapid.IntRange(1, len(proof)).Draw(t, "cut")]
	case "long proof":
		proof = append(proof, 0)
	case "first":
		first = rapid.Uint64Range(0, Groups(size)-1).Filter(func(f uint64) bool { return f != run.First }).Draw(t, "other first")
	case "size":
		size = rapid.Uint64Range(0, 2*size+2).Filter(func(n uint64) bool { return n != s.Size }).Draw(t, "other size")
	}
	err = VerifyGroups(root, size, first, proof, part)
	require.Error(t, err)
	if kind == "data" {
		var g *GroupError
		require.ErrorAs(t, err, &g)
		require.ErrorIs(t, err, ErrGroup)
		require.Equal(t, wrong, g.Group)
		require.ErrorIs(t, CheckGroups(s.Outboard, s.Root, s.Size, run.First, part), ErrGroup)
	}
}

func TestSizeLieWithTheLastGroup(t *testing.T) {
	// A sender that holds other content than the record claims, and builds a proof
	// for the claimed size out of its own tree, fails at the last group.
	data := pattern(5*GroupSize + 100)
	s := Sum(data)
	for _, claim := range []uint64{5*GroupSize + 99, 5*GroupSize + 101, 5 * GroupSize, 6*GroupSize + 1} {
		run := Run{First: 4, Count: Groups(claim) - 4}
		nodes := make([]byte, ProofSize(claim, run))
		copy(nodes, s.Outboard[4*NodeSize:])
		lie := make([]byte, run.Len(claim))
		copy(lie, data[4*GroupSize:])
		require.Error(t, VerifyGroups(s.Root, claim, 4, nodes, lie))
	}
}

func TestDamagedOutboardIsOurs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := pattern(GroupSize + 1 + sizes(20).Draw(t, "size"))
		s := Sum(data)
		out := bytes.Clone(s.Outboard)
		i := rapid.IntRange(0, 8*len(out)-1).Draw(t, "bit")
		out[i/8] ^= 1 << (i % 8)
		whole := Run{Count: Groups(s.Size)}
		for _, tree := range []*Tree{
			{root: s.Root, size: s.Size, mem: out},
			{root: s.Root, size: s.Size, r: bytes.NewReader(out)},
			{root: s.Root, size: s.Size, r: bytes.NewReader(s.Outboard[:len(out)-1])},
			{root: s.Root, size: s.Size},
		} {
			got, err := tree.AppendProof([]byte("x"), whole)
			require.ErrorIs(t, err, ErrOutboard)
			require.Equal(t, "x", string(got))
			_, err = tree.Prove(nil, 0, data)
			require.ErrorIs(t, err, ErrOutboard)
		}
		_, err := NewTreeBytes(s.Root, s.Size, out[1:])
		require.ErrorIs(t, err, ErrOutboard)
	})
}

func TestRunChecks(t *testing.T) {
	const size = 3*GroupSize + 1
	for _, run := range []Run{{}, {First: 4, Count: 1}, {First: 0, Count: 5}, {First: 3, Count: ^uint64(0)}, {First: ^uint64(0), Count: 1}} {
		require.ErrorIs(t, run.Check(size), ErrRange)
		_, err := NewVerifier([32]byte{}, size, run, nil)
		require.ErrorIs(t, err, ErrRange)
	}
	require.ErrorIs(t, Run{Count: 1}.Check(MaxSize+1), ErrSize)
	_, err := NewVerifier([32]byte{}, MaxSize, Run{Count: Groups(MaxSize)}, make([]byte, 64))
	require.ErrorIs(t, err, ErrProof)
	_, err = RunAt(size, 0, GroupSize-1)
	require.ErrorIs(t, err, ErrSize)
	_, err = RunAt(size, 3, 2)
	require.ErrorIs(t, err, ErrSize)
	run, err := RunAt(0, 0, 0)
	require.NoError(t, err)
	require.Equal(t, Run{Count: 1}, run)
}

func FuzzVerifyGroups(f *testing.F) {
	data := pattern(6*GroupSize + 9)
	s := Sum(data)
	tree, err := NewTreeBytes(s.Root, s.Size, s.Outboard)
	require.NoError(f, err)
	for _, run := range []Run{{Count: 1}, {First: 3, Count: 4}, {Count: 7}} {
		proof, err := tree.AppendProof(nil, run)
		require.NoError(f, err)
		f.Add(s.Size, run.First, run.Count, proof)
	}
	f.Add(uint64(MaxSize), uint64(0), Groups(MaxSize), []byte{})
	f.Fuzz(func(t *testing.T, size, first, count uint64, proof []byte) {
		run := Run{First: first, Count: count}
		v, err := NewVerifier(s.Root, size, run, proof)
		if err != nil {
			return
		}
		// What verifies is made of the true nodes: there are no others under the root.
		require.LessOrEqual(t, run.Count, uint64(len(proof))/NodeSize+1)
		if size == s.Size {
			want, err := tree.AppendProof(nil, run)
			require.NoError(t, err)
			require.Equal(t, want, proof)
			require.NoError(t, v.Check(run.First, slice(data, run)))
		}
	})
}

func BenchmarkProof(b *testing.B) {
	const mib = 64
	data := pattern(64 << 20)
	s := Sum(data)
	tree, err := NewTreeBytes(s.Root, s.Size, s.Outboard)
	require.NoError(b, err)
	file, err := NewTree(s.Root, s.Size, bytes.NewReader(s.Outboard))
	require.NoError(b, err)
	run := Run{First: 17 * mib, Count: mib}
	proof, err := tree.AppendProof(nil, run)
	require.NoError(b, err)
	part := slice(data, run)
	var buf []byte
	b.Run("make", func(b *testing.B) {
		b.SetBytes(1 << 20)
		for b.Loop() {
			buf, _ = tree.AppendProof(buf[:0], run)
		}
	})
	b.Run("make from reader", func(b *testing.B) {
		b.SetBytes(1 << 20)
		for b.Loop() {
			buf, _ = file.AppendProof(buf[:0], run)
		}
	})
	b.Run("verify", func(b *testing.B) {
		b.SetBytes(1 << 20)
		for b.Loop() {
			if err := VerifyGroups(s.Root, s.Size, run.First, proof, part); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("check and prove", func(b *testing.B) {
		b.SetBytes(1 << 20)
		for b.Loop() {
			if buf, err = tree.Prove(buf[:0], run.First, part); err != nil {
				b.Fatal(err)
			}
		}
	})
}
