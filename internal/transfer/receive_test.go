package transfer

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/wire"
)

// FuzzReceive feeds arbitrary bytes as the answers of a peer. Whatever they are, only
// the right content comes through, in order and behind its proof.
func FuzzReceive(f *testing.F) {
	const size = 3*blob.GroupSize + 5
	data := random(f, 1, size)
	sum := blob.Sum(data)
	tree, err := blob.NewTreeBytes(sum.Root, size, sum.Outboard)
	require.NoError(f, err)
	run := blob.Run{First: 1, Count: 3}
	proof, err := tree.AppendProof(nil, run)
	require.NoError(f, err)
	proven := append(wire.AppendU32(appendHead(nil, frameProof, 4+len(proof)), 1), proof...)
	f.Add(append(append(bytes.Clone(proven), dataFrame(1, data[blob.GroupSize:3*blob.GroupSize])...), dataFrame(1, data[3*blob.GroupSize:])...))
	f.Add(append(bytes.Clone(proven), dataFrame(1, data[:2*blob.GroupSize])...))
	f.Add(append(append(bytes.Clone(proven), seqFrame(frameWorking, 1)...), endFrame(1, statusUnavailable)...))
	f.Add(append(append([]byte(nil), seqFrame(frameWorking, 2)...), proven...))
	f.Add(dataFrame(1, data[blob.GroupSize:2*blob.GroupSize]))
	f.Add([]byte{0, 0, 0, 1, frameData})
	f.Add([]byte{0, 0, 0, 4, frameProof, 1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		d := &download{c: &Client{}, want: Want{Root: sum.Root, Size: size}, ctx: context.Background()}
		s := &source{
			d: d, f: newFramer(&literal{b: b}, maxAnswer), st: &literal{}, ctx: context.Background(),
			parts: make(chan part, len(b)/frameHead+1), runs: map[uint32]*coming{1: {run: run, next: run.First, patience: 2}},
		}
		require.Error(t, s.read(), "the stream ends")
		close(s.parts)
		proven, next, signs := false, run.First, 0
		for p := range s.parts {
			require.Equal(t, run, p.r.run)
			switch {
			case p.end != nil:
			case p.v != nil:
				require.False(t, proven)
				proven = true
			case p.data != nil:
				require.True(t, proven)
				require.Equal(t, next, p.first)
				require.True(t, bytes.HasPrefix(data[next*blob.GroupSize:], p.data))
				next += blob.Groups(uint64(len(p.data)))
				signs = 0
			default:
				signs++
				require.LessOrEqual(t, signs, maxPatience)
			}
			p.free()
		}
	})
}
