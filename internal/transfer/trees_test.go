package transfer

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/inventory"
	smemory "github.com/cansync/cansync/store/memory"
)

// Of a tree no more is held than a few pieces, when it is made, kept, and read.
func TestTreesHoldNoMoreThanTheyMay(t *testing.T) {
	const size, limit = 112 << 20, inventory.OutboardChunk // a tree of nearly two pieces
	data := random(t, 1, size)
	inv := inventory.New(smemory.New())
	service := cantest.New(cantest.Options{})
	defer func() { require.NoError(t, service.Close()) }()
	w := inv.NewOutboardWriter(t.Context(), nil)
	w.Reset("a")
	h := blob.NewHasherTo(-1, w)
	_, err := h.Write(data)
	require.NoError(t, err)
	sum, err := h.Finish()
	require.NoError(t, err)
	require.Nil(t, sum.Outboard, "the tree is not held")
	require.NoError(t, w.Commit(sum.Digest))

	tr := newTrees(inv, service, limit)
	it := inventory.Item{Digest: sum.Digest, Root: sum.Root, Size: size}
	n := blob.Groups(size)
	for i := range uint64(200) {
		run := blob.Run{First: i * 37 * 97 % n, Count: 1 + i%maxRunGroups}
		run.Count = min(run.Count, n-run.First)
		tree, err := tr.get(context.Background(), it)
		require.NoError(t, err)
		proof, err := tree.AppendProof(nil, run)
		require.NoError(t, err)
		require.NoError(t, blob.VerifyGroups(sum.Root, size, run.First, proof, data[run.Offset():][:run.Len(size)]))
	}
	require.Positive(t, tr.most)
	require.LessOrEqual(t, tr.most, limit)
	tr.forget(sum.Digest)
	require.Zero(t, tr.size)
	require.Empty(t, tr.kept)
}
