package badger_test

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"
	badger4 "github.com/ipfs/go-ds-badger4"
	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/store/badger"
)

var ctx = context.Background()

// disk is a disk whose free space the test sets.
type disk struct{ free atomic.Uint64 }

func (d *disk) options(reserve uint64) badger.Options {
	return badger.WithDisk(badger.Options{Reserve: reserve}, func(string) (uint64, error) { return d.free.Load(), nil }, time.Hour)
}

func TestFullDisk(t *testing.T) {
	const reserve = 256 << 20
	var d disk
	d.free.Store(1 << 30)
	dir := t.TempDir()
	s, err := badger.Open(dir, d.options(reserve))
	require.NoError(t, err)
	defer s.Close()
	ballast := filepath.Join(dir, "ballast")
	require.FileExists(t, ballast)
	k := ds.NewKey("/k")
	require.NoError(t, s.Put(ctx, k, []byte("1")))

	d.free.Store(reserve - 1)
	// More than the guard lets pass without a look.
	refused := 0
	for range 16 {
		x, err := s.NewTransaction(ctx, false)
		require.NoError(t, err)
		require.NoError(t, x.Put(ctx, k, make([]byte, 512<<10)))
		if err := x.Commit(ctx); err != nil {
			require.ErrorIs(t, err, store.ErrNoSpace)
			refused++
		}
	}
	require.NotZero(t, refused)
	require.ErrorIs(t, s.Put(ctx, k, nil), store.ErrNoSpace)
	require.ErrorIs(t, s.Delete(ctx, k), store.ErrNoSpace)
	b, err := s.Batch(ctx)
	require.NoError(t, err)
	require.NoError(t, b.Put(ctx, k, nil))
	require.ErrorIs(t, b.Commit(ctx), store.ErrNoSpace)
	_, err = s.Get(ctx, k)
	require.NoError(t, err, "reading goes on")
	require.FileExists(t, ballast)
	free, min, err := s.Space()
	require.NoError(t, err)
	require.Equal(t, []uint64{reserve - 1, reserve}, []uint64{free, min})

	d.free.Store(reserve/2 - 1)
	require.ErrorIs(t, s.Put(ctx, k, nil), store.ErrNoSpace)
	require.NoFileExists(t, ballast, "given up when space is very low")

	d.free.Store(1 << 30)
	require.NoError(t, s.Put(ctx, k, []byte("2")))
	require.FileExists(t, ballast)
	require.NoError(t, b.Commit(ctx), "what failed for lack of space may be tried again")

	d.free.Store(1 << 20)
	require.ErrorIs(t, s.Close(), store.ErrNoSpace)
	_, err = s.Get(ctx, k)
	require.ErrorIs(t, err, store.ErrClosed)
	_, err = badger.Open(t.TempDir(), d.options(reserve))
	require.ErrorIs(t, err, store.ErrNoSpace)
	d.free.Store(1 << 30)
	require.NoError(t, s.Close())
}

func TestLockedAndModes(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	s, err := badger.Open(dir, badger.Options{})
	require.NoError(t, err)
	_, err = badger.Open(dir, badger.Options{})
	require.ErrorIs(t, err, store.ErrLocked)
	require.NoError(t, s.Put(ctx, ds.NewKey("/a"), []byte("1")))
	modes := func() {
		info, err := os.Stat(dir)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
		all, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.NotEmpty(t, all)
		for _, e := range all {
			info, err := e.Info()
			require.NoError(t, err)
			require.Zero(t, info.Mode().Perm()&0o077, e.Name())
		}
	}
	modes()
	require.NoError(t, s.Close())
	modes()
}

// TestBitRot flips a bit in a table; the store must say so.
func TestBitRot(t *testing.T) {
	dir := t.TempDir()
	s, err := badger.Open(dir, badger.Options{})
	require.NoError(t, err)
	b, err := s.Batch(ctx)
	require.NoError(t, err)
	for i := range 2000 {
		require.NoError(t, b.Put(ctx, ds.NewKey("/r").ChildString(time.Duration(i).String()), make([]byte, 200)))
	}
	require.NoError(t, b.Commit(ctx))
	require.NoError(t, s.Close())
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	require.NoError(t, err)
	require.NotEmpty(t, tables)
	data, err := os.ReadFile(tables[0])
	require.NoError(t, err)
	data[len(data)/3] ^= 4
	require.NoError(t, os.WriteFile(tables[0], data, 0o600))
	_, err = badger.Open(dir, badger.Options{})
	require.ErrorIs(t, err, store.ErrCorrupt)
}

// TestLayout checks that go-ds-badger4 reads what we write, and the other way
// round.
func TestLayout(t *testing.T) {
	dir := t.TempDir()
	s, err := badger.Open(dir, badger.Options{})
	require.NoError(t, err)
	require.NoError(t, s.Put(ctx, ds.NewKey("/ours"), []byte("1")))
	require.NoError(t, s.Close())

	o := badger4.DefaultOptions
	o.GcInterval = 0
	theirs, err := badger4.NewDatastore(dir, &o)
	require.NoError(t, err)
	v, err := theirs.Get(ctx, ds.NewKey("/ours"))
	require.NoError(t, err)
	require.Equal(t, "1", string(v))
	require.NoError(t, theirs.Put(ctx, ds.NewKey("/theirs"), []byte("2")))
	require.NoError(t, theirs.Close())

	s, err = badger.Open(dir, badger.Options{})
	require.NoError(t, err)
	defer s.Close()
	v, err = s.Get(ctx, ds.NewKey("/theirs"))
	require.NoError(t, err)
	require.Equal(t, "2", string(v))
}
