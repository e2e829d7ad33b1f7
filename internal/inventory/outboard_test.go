package inventory

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	ds "github.com/ipfs/go-datastore"
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

// A content that has a tree is read again and turns out rotten: its tree stays what it
// is, while the other one is written and after that was given up, as after a crash.
func TestRottenContentLeavesTheTreeAlone(t *testing.T) {
	s := memory.New()
	v := New(s)
	d, other, tree := can.Digest{1}, can.Digest{2}, treeOf(2*OutboardChunk+10)
	rotten := bytes.Repeat([]byte{0xee}, len(tree)+OutboardChunk)
	w := v.NewOutboardWriter(t.Context(), nil)
	before := 0
	for round := range 5 {
		w.Reset("a")
		_, err := w.Write(tree)
		require.NoError(t, err)
		require.NoError(t, w.Commit(d))
		if round == 0 {
			before = rows(t, s)
		}
		require.Equal(t, before, rows(t, s), "what it replaced is gone")
		w.Reset("a")
		_, err = w.Write(rotten)
		require.NoError(t, err)
		require.True(t, bytes.Equal(tree, stored(t, v, d)), "while the other one is written")
		require.NoError(t, w.Abort())
		require.True(t, bytes.Equal(tree, stored(t, v, d)))
		require.Equal(t, before, rows(t, s))
	}
	// The handle's content has become another, with a tree of its own.
	w.Reset("a")
	_, err := w.Write(rotten)
	require.NoError(t, err)
	require.NoError(t, w.Commit(other))
	require.True(t, bytes.Equal(tree, stored(t, v, d)))
	require.True(t, bytes.Equal(rotten, stored(t, v, other)))
	// A crash on the way.
	before = rows(t, s)
	w.Reset("a")
	_, err = w.Write(rotten)
	require.NoError(t, err)
	require.Greater(t, rows(t, s), before)
	require.NoError(t, New(s).SweepOutboards(t.Context()))
	require.Equal(t, before, rows(t, s))
	require.True(t, bytes.Equal(tree, stored(t, v, d)))
}

// Two who read the same handle at once, and get different bytes, do not mix them.
func TestOneNameTwice(t *testing.T) {
	s := memory.New()
	v := New(s)
	trees := [][]byte{treeOf(2*OutboardChunk + 10), bytes.Repeat([]byte{0xee}, 2*OutboardChunk+10)}
	var ws []*OutboardWriter
	for range trees {
		ws = append(ws, v.NewOutboardWriter(t.Context(), nil))
		ws[len(ws)-1].Reset("a")
	}
	for from := 0; from < len(trees[0]); from += OutboardChunk / 2 {
		for i, w := range ws {
			_, err := w.Write(trees[i][from:min(from+OutboardChunk/2, len(trees[i]))])
			require.NoError(t, err)
		}
	}
	for i, w := range ws {
		require.NoError(t, w.Commit(can.Digest{byte(i)}))
	}
	for i := range ws {
		require.True(t, bytes.Equal(trees[i], stored(t, v, can.Digest{byte(i)})))
		require.NoError(t, v.DropOutboard(t.Context(), can.Digest{byte(i)}))
	}
	require.Zero(t, rows(t, s))
}

// failingStore dies at one of the calls that change it.
type failingStore struct {
	store.Store
	left int // calls until it dies
}

var errDead = errors.New("dead")

func (f *failingStore) spend() error {
	if f.left--; f.left < 0 {
		return errDead
	}
	return nil
}

func (f *failingStore) Put(ctx context.Context, k ds.Key, b []byte) error {
	if err := f.spend(); err != nil {
		return err
	}
	return f.Store.Put(ctx, k, b)
}

func (f *failingStore) Delete(ctx context.Context, k ds.Key) error {
	if err := f.spend(); err != nil {
		return err
	}
	return f.Store.Delete(ctx, k)
}

func (f *failingStore) NewTransaction(ctx context.Context, ro bool) (ds.Txn, error) {
	if err := f.spend(); err != nil {
		return nil, err
	}
	return f.Store.NewTransaction(ctx, ro)
}

// A crash at each step of replacing and dropping trees leaves a tree that is right, or
// none where it was being dropped, and nothing that nobody finds again.
func TestACrashAtEachStepLeavesNoTreeBehind(t *testing.T) {
	d, tree := can.Digest{1}, treeOf(2*OutboardChunk+10)
	write := func(v *Inventory, name string) error {
		w := v.NewOutboardWriter(t.Context(), nil)
		w.Reset(name)
		if _, err := w.Write(tree); err != nil {
			return err
		}
		return w.Commit(d)
	}
	known := func(v *Inventory) error { return v.PutOutboard(t.Context(), d, bytes.NewReader(tree)) }
	learnt := func(v *Inventory) error { return write(v, "a") }
	for name, steps := range map[string][2]func(v *Inventory) error{
		"learnt, learnt":            {learnt, learnt},
		"learnt, learnt by another": {learnt, func(v *Inventory) error { return write(v, "b") }},
		"known, learnt":             {known, learnt},
		"learnt, known":             {learnt, known},
	} {
		crashes := 0
		for n := 0; ; n++ {
			s := memory.New()
			require.NoError(t, steps[0](New(s)))
			err := steps[1](New(&failingStore{s, n}))
			if err == nil {
				break
			}
			require.ErrorIs(t, err, errDead)
			crashes++
			v := New(s)
			require.NoError(t, v.SweepOutboards(t.Context()))
			require.True(t, bytes.Equal(tree, stored(t, v, d)), "%s, after %d calls", name, n)
			if n%2 == 0 { // which is put right by doing it again
				require.NoError(t, steps[1](v))
				require.NoError(t, v.SweepOutboards(t.Context()))
				require.True(t, bytes.Equal(tree, stored(t, v, d)), "%s, after %d calls and again", name, n)
			}
			require.NoError(t, v.DropOutboard(t.Context(), d))
			require.Zero(t, rows(t, s), "%s, after %d calls", name, n)
		}
		require.Greater(t, crashes, 2)
		for n := 0; ; n++ { // dropping
			s := memory.New()
			require.NoError(t, steps[0](New(s)))
			if New(&failingStore{s, n}).DropOutboard(t.Context(), d) == nil {
				break
			}
			v := New(s)
			require.NoError(t, v.SweepOutboards(t.Context()))
			require.NoError(t, v.DropOutboard(t.Context(), d))
			require.Zero(t, rows(t, s), "%s, dropped %d calls far", name, n)
		}
	}
}

// unsure is a store whose transactions that delete take effect, and every second of
// them is said to have failed.
type unsure struct {
	store.Store
	calls, lied int
}

type unsureTxn struct {
	ds.Txn
	s       *unsure
	deletes bool
}

func (u *unsure) NewTransaction(ctx context.Context, ro bool) (ds.Txn, error) {
	txn, err := u.Store.NewTransaction(ctx, ro)
	return &unsureTxn{Txn: txn, s: u}, err
}

func (u *unsureTxn) Delete(ctx context.Context, k ds.Key) error {
	u.deletes = true
	return u.Txn.Delete(ctx, k)
}

func (u *unsureTxn) Commit(ctx context.Context) error {
	err := u.Txn.Commit(ctx)
	if err != nil || !u.deletes {
		return err
	}
	if u.s.calls++; u.s.calls%2 == 1 {
		u.s.lied++
		return errDead
	}
	return nil
}

// A commit that is repeated after it took effect keeps the tree.
func TestACommitIsRepeated(t *testing.T) {
	s := &unsure{Store: memory.New()}
	v := New(s)
	d, tree := can.Digest{1}, treeOf(2*OutboardChunk+10)
	w := v.NewOutboardWriter(t.Context(), func(fn func() error) error {
		err := fn()
		if err != nil {
			err = fn()
		}
		return err
	})
	for range 4 {
		w.Reset("a")
		_, err := w.Write(tree)
		require.NoError(t, err)
		require.NoError(t, w.Commit(d))
		require.True(t, bytes.Equal(tree, stored(t, v, d)))
		require.NoError(t, v.SweepOutboards(t.Context()))
		require.True(t, bytes.Equal(tree, stored(t, v, d)))
		require.Equal(t, 3+1, rows(t, s), "the chunks and what leads to them")
	}
	require.Positive(t, s.lied)
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
