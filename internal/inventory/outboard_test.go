package inventory

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/ipfs/go-datastore/query"
	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/store/memory"
)

func treeOf(size int) []byte {
	tree := make([]byte, size)
	for i := range tree {
		tree[i] = byte(i>>8 + i)
	}
	return tree
}

func stored(t *testing.T, v *Inventory, d can.Digest) (tree []byte) {
	for n := 0; ; n++ {
		b, err := v.OutboardChunkAt(t.Context(), d, n)
		require.NoError(t, err)
		if tree = append(tree, b...); len(b) < OutboardChunk {
			return tree
		}
	}
}

func rows(t *testing.T, s store.Store) (n int) {
	res, err := s.Query(t.Context(), query.Query{KeysOnly: true})
	require.NoError(t, err)
	all, err := res.Rest()
	require.NoError(t, err)
	return len(all)
}

var outboardSizes = []int{0, 1, OutboardChunk - 1, OutboardChunk, OutboardChunk + 1, 3*OutboardChunk + 5}

// A tree comes back as it was stored, whether its content was known from the start or
// only at the end, whatever was stored before; and nothing stays when it is dropped.
func TestOutboards(t *testing.T) {
	s := memory.New()
	v := New(s)
	d := can.Digest{1}
	w := v.NewOutboardWriter(t.Context(), nil)
	put := map[string]func(tree []byte){
		"known": func(tree []byte) { require.NoError(t, v.PutOutboard(t.Context(), d, bytes.NewReader(tree))) },
		"learnt": func(tree []byte) {
			w.Reset("a")
			for rest := tree; len(rest) > 0; { // as a hasher writes
				k := min(len(rest), 64<<10)
				_, err := w.Write(rest[:k])
				require.NoError(t, err)
				require.LessOrEqual(t, len(w.buf), OutboardChunk+64<<10)
				rest = rest[k:]
			}
			require.NoError(t, w.Commit(d))
			require.NoError(t, w.Abort(), "of what is committed does nothing")
		},
	}
	for first, before := range put {
		for second, after := range put {
			for _, was := range outboardSizes {
				for _, size := range outboardSizes {
					if was > size {
						continue // of one content all trees have one length, unless a crash cut one short
					}
					before(treeOf(was))
					require.Equal(t, treeOf(was), append([]byte{}, stored(t, v, d)...), first)
					after(treeOf(size))
					require.Equal(t, treeOf(size), append([]byte{}, stored(t, v, d)...), "%s %d, then %s %d", first, was, second, size)
					require.NoError(t, v.DropOutboard(t.Context(), d))
					require.Empty(t, stored(t, v, d))
					require.Zero(t, rows(t, s), "%s %d, then %s %d", first, was, second, size)
				}
			}
		}
	}
}

// Two handles of one content are hashed at the same time, and one of another is given
// up; a crash leaves a third behind.
func TestOutboardWritersSideBySide(t *testing.T) {
	s := memory.New()
	v := New(s)
	d, tree := can.Digest{1}, treeOf(2*OutboardChunk+10)
	var ws []*OutboardWriter
	for _, name := range []string{"a", "b", "given up", "lost"} {
		w := v.NewOutboardWriter(t.Context(), nil)
		w.Reset(name)
		_, err := w.Write(tree)
		require.NoError(t, err)
		ws = append(ws, w)
	}
	require.NoError(t, ws[0].Commit(d))
	require.NoError(t, ws[1].Commit(d))
	require.NoError(t, ws[2].Abort())
	require.Equal(t, tree, stored(t, v, d))
	// The same handle is read again, and that is given up: the tree stays.
	ws[1].Reset("b")
	_, err := ws[1].Write(tree[:OutboardChunk])
	require.NoError(t, err)
	require.NoError(t, ws[1].Abort())
	require.Equal(t, tree, stored(t, v, d))
	before := rows(t, s)
	require.NoError(t, v.SweepOutboards(t.Context()))
	require.Equal(t, 2+1, before-rows(t, s), "the chunks of the lost one and their mark")
	require.Equal(t, tree, stored(t, v, d))
	require.NoError(t, v.SweepOutboards(t.Context()))
	require.NoError(t, v.DropOutboard(t.Context(), d))
	require.Zero(t, rows(t, s))
}

func TestOutboardErrorsAreReported(t *testing.T) {
	v := New(memory.New())
	broken := errors.New("broken")
	w := v.NewOutboardWriter(t.Context(), func(func() error) error { return broken })
	w.Reset("a")
	_, err := w.Write(treeOf(OutboardChunk))
	require.ErrorIs(t, err, broken)
	w.Reset("a")
	_, err = w.Write(treeOf(10))
	require.NoError(t, err)
	require.ErrorIs(t, w.Commit(can.Digest{1}), broken)
	require.ErrorIs(t, v.PutOutboard(t.Context(), can.Digest{1}, io.MultiReader(bytes.NewReader(treeOf(10)), failing{broken})), broken)
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
