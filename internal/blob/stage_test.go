package blob

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

type sample struct {
	data []byte
	sum  Summary
	tree *Tree
	key  StageKey
}

func newSample(t require.TestingT, size int) sample {
	s := sample{data: pattern(size)}
	s.sum = Sum(s.data)
	s.key = StageKey{Library: [32]byte{1, 2, 3}, Digest: s.sum.Digest}
	var err error
	s.tree, err = NewTreeBytes(s.sum.Root, s.sum.Size, s.sum.Outboard)
	require.NoError(t, err)
	return s
}

func (s sample) open(dir stageFS) (*Stage, error) {
	return openStage(dir, s.key, s.sum.Root, s.sum.Size)
}

// put brings one run in.
func (s sample) put(st *Stage, run Run) (uint64, error) {
	proof, err := s.tree.AppendProof(nil, run)
	if err != nil {
		return 0, err
	}
	in, err := st.Begin(run, proof)
	if err != nil {
		return 0, err
	}
	return in.Put(run.First, slice(s.data, run))
}

func openDir(t *testing.T) (*os.Root, string) {
	path := filepath.Join(t.TempDir(), "stage")
	dir, err := OpenStageDir(path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, dir.Close()) })
	return dir, path
}

func TestStageLifecycle(t *testing.T) {
	dir, path := openDir(t)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())

	s := newSample(t, 70*GroupSize+123)
	st, err := OpenStage(dir, s.key, s.sum.Root, s.sum.Size)
	require.NoError(t, err)
	n, err := s.put(st, Run{First: 64, Count: 7}) // the tail first
	require.NoError(t, err)
	require.Equal(t, uint64(7), n)
	n, err = s.put(st, Run{First: 60, Count: 6})
	require.NoError(t, err)
	require.Equal(t, uint64(4), n)
	_, err = st.Content()
	require.ErrorIs(t, err, ErrIncomplete)
	require.ErrorIs(t, st.Finish(), ErrIncomplete)
	require.NoError(t, st.Sync())

	// Wrong bytes and wrong proofs don't get in.
	run := Run{First: 0, Count: 2}
	proof, err := s.tree.AppendProof(nil, run)
	require.NoError(t, err)
	_, err = st.Begin(Run{Count: 3}, proof)
	require.ErrorIs(t, err, ErrProof)
	in, err := st.Begin(run, proof)
	require.NoError(t, err)
	bad := bytes.Clone(slice(s.data, run))
	bad[GroupSize] ^= 1
	_, err = in.Put(0, bad)
	require.ErrorIs(t, err, ErrGroup)
	_, err = in.Put(2, slice(s.data, Run{First: 2, Count: 1}))
	require.ErrorIs(t, err, ErrRange)
	require.Equal(t, uint64(11), st.Count())

	for _, e := range []string{partSuffix, mapSuffix} {
		info, err := os.Stat(filepath.Join(path, s.key.name(e)))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	}
	require.NoError(t, st.Close())
	require.NoError(t, st.Close())
	require.ErrorIs(t, st.Sync(), ErrClosed)
	_, err = s.put(st, run)
	require.ErrorIs(t, err, ErrClosed)
	_, err = in.Put(0, bad)
	require.ErrorIs(t, err, ErrClosed)

	// Another process goes on.
	st, err = OpenStage(dir, s.key, s.sum.Root, s.sum.Size)
	require.NoError(t, err)
	require.Equal(t, uint64(11), st.Count())
	buf := make([]byte, GroupSize)
	require.ErrorIs(t, st.ReadGroups(Run{First: 59, Count: 1}, buf), ErrIncomplete)
	require.NoError(t, st.ReadGroups(Run{First: 60, Count: 1}, buf))
	proof, err = st.Tree().Prove(nil, 60, buf) // it can serve what it has
	require.NoError(t, err)
	require.NoError(t, VerifyGroups(s.sum.Root, s.sum.Size, 60, proof, buf))
	for run := range st.Have().Missing() {
		for at := run.First; at < run.End(); at += 8 {
			_, err := s.put(st, Run{First: at, Count: min(8, run.End()-at)})
			require.NoError(t, err)
			require.NoError(t, st.Sync())
		}
	}
	require.NoError(t, st.Finish())
	require.NoError(t, st.Finish())
	out, err := io.ReadAll(st.Outboard())
	require.NoError(t, err)
	require.True(t, bytes.Equal(s.sum.Outboard, out))
	r, err := st.Content()
	require.NoError(t, err)
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.True(t, bytes.Equal(s.data, got))
	require.NoError(t, st.Remove())
	require.NoError(t, st.Remove())
	left, err := os.ReadDir(path)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestStageOfAnySize(t *testing.T) {
	dir, _ := openDir(t)
	for _, size := range []int{0, 1, GroupSize, GroupSize + 1, 2 * GroupSize} {
		s := newSample(t, size)
		st, err := OpenStage(dir, s.key, s.sum.Root, s.sum.Size)
		require.NoError(t, err)
		_, err = s.put(st, Run{Count: Groups(s.sum.Size)})
		require.NoError(t, err)
		require.NoError(t, st.Finish())
		r, err := st.Content()
		require.NoError(t, err)
		got, err := io.ReadAll(r)
		require.NoError(t, err)
		require.NoError(t, r.Close())
		require.Equal(t, len(s.data), len(got))
		require.NoError(t, st.Remove())
	}
	_, err := OpenStage(dir, StageKey{}, [32]byte{}, MaxSize+1)
	require.ErrorIs(t, err, ErrNoSpace)
}

func TestStageBlame(t *testing.T) {
	// The author signed a SHA-256 that the tree does not lead to.
	s := newSample(t, 9*GroupSize)
	s.key.Digest[0] ^= 1
	disk := newCrashFS()
	st, err := s.open(disk)
	require.NoError(t, err)
	_, err = s.put(st, Run{Count: 9})
	require.NoError(t, err)
	require.ErrorIs(t, st.Finish(), ErrContent)
	require.Equal(t, uint64(9), st.Count())

	// The disk lost a bit, of the content or of the tree: those groups come again.
	for _, at := range []int{3*GroupSize + 7, 9*GroupSize + 2*NodeSize} {
		s := newSample(t, 9*GroupSize)
		disk := newCrashFS()
		st, err := s.open(disk)
		require.NoError(t, err)
		_, err = s.put(st, Run{Count: 9})
		require.NoError(t, err)
		disk.now[s.key.name(partSuffix)].now[at] ^= 1
		if at >= 9*GroupSize { // the tree is looked at only when the content is wrong
			disk.now[s.key.name(partSuffix)].now[0] ^= 1
		}
		require.ErrorIs(t, st.Finish(), ErrDamaged)
		require.Less(t, st.Count(), uint64(9))
		_, err = st.Content()
		require.ErrorIs(t, err, ErrIncomplete)
		for run := range st.Have().Missing() {
			_, err := s.put(st, run)
			require.NoError(t, err)
		}
		require.NoError(t, st.Finish())
	}
}

func TestStageOfOtherRoot(t *testing.T) {
	dir, path := openDir(t)
	s := newSample(t, 3*GroupSize)
	st, err := OpenStage(dir, s.key, s.sum.Root, s.sum.Size)
	require.NoError(t, err)
	require.NoError(t, st.Close())
	_, err = OpenStage(dir, s.key, [32]byte{9}, s.sum.Size)
	require.ErrorIs(t, err, ErrOtherStage)
	_, err = OpenStage(dir, s.key, s.sum.Root, 1)
	require.ErrorIs(t, err, ErrOtherStage)

	// A spoilt bitmap, or a data file of another length, claims nothing.
	st, err = OpenStage(dir, s.key, s.sum.Root, s.sum.Size)
	require.NoError(t, err)
	_, err = s.put(st, Run{Count: 2})
	require.NoError(t, err)
	require.NoError(t, st.Sync())
	require.NoError(t, st.Close())
	name := filepath.Join(path, s.key.name(mapSuffix))
	enc, err := os.ReadFile(name)
	require.NoError(t, err)
	enc[len(enc)-20] ^= 1
	require.NoError(t, os.WriteFile(name, enc, 0o600))
	st, err = OpenStage(dir, s.key, s.sum.Root, s.sum.Size)
	require.NoError(t, err)
	require.Zero(t, st.Count())
	_, err = s.put(st, Run{Count: 2})
	require.NoError(t, err)
	require.NoError(t, st.Sync())
	require.NoError(t, st.Close())
	require.NoError(t, os.Truncate(filepath.Join(path, s.key.name(partSuffix)), 100))
	st, err = OpenStage(dir, s.key, s.sum.Root, s.sum.Size)
	require.NoError(t, err)
	require.Zero(t, st.Count())
	require.NoError(t, st.Close())
}

func TestLeftovers(t *testing.T) {
	dir, path := openDir(t)
	want := map[StageKey]bool{}
	for i := range 3 {
		s := newSample(t, 2*GroupSize+i)
		st, err := OpenStage(dir, s.key, s.sum.Root, s.sum.Size)
		require.NoError(t, err)
		require.NoError(t, st.Close())
		want[s.key] = true
	}
	for _, foreign := range []string{"notes.part", "x-y.map", strings.Repeat("0", 64) + "-" + strings.Repeat("G", 64) + ".part"} {
		require.NoError(t, os.WriteFile(filepath.Join(path, foreign), nil, 0o600))
	}
	got := map[StageKey]bool{}
	for left, err := range Leftovers(dir) {
		require.NoError(t, err)
		require.Greater(t, left.Bytes, int64(2*GroupSize))
		require.False(t, got[left.Key])
		got[left.Key] = true
	}
	require.Equal(t, want, got)
	for key := range got {
		require.NoError(t, RemoveStage(dir, key))
	}
	for range Leftovers(dir) {
		require.Fail(t, "a stage was left")
	}
	entries, err := os.ReadDir(path)
	require.NoError(t, err)
	require.Len(t, entries, 3, "foreign files stay")
}

func TestStageFullDisk(t *testing.T) {
	s := newSample(t, 5*GroupSize)
	disk := newCrashFS()
	disk.failErr = syscall.ENOSPC
	faults := 0
	for step := 1; ; step++ {
		disk.step, disk.failAt = 0, step
		st, err := s.open(disk)
		if err == nil {
			require.Positive(t, faults)
			require.NoError(t, st.Close())
			break
		}
		faults++
		require.ErrorIs(t, err, ErrNoSpace)
		disk.failAt = 0
		require.Empty(t, disk.now, "a failed open leaves nothing")
	}
}

// TestStageConcurrent lets several sources put while another goroutine syncs.
func TestStageConcurrent(t *testing.T) {
	dir, _ := openDir(t)
	s := newSample(t, 64*GroupSize)
	st, err := OpenStage(dir, s.key, s.sum.Root, s.sum.Size)
	require.NoError(t, err)
	errs := make(chan error, 9)
	for i := range uint64(8) {
		go func() {
			var err error
			for at := uint64(0); at < 8 && err == nil; at++ {
				_, err = s.put(st, Run{First: 8*at + i, Count: 1})
			}
			errs <- err
		}()
	}
	go func() {
		var err error
		for range 4 {
			err = errors.Join(err, st.Sync())
			st.Have()
		}
		errs <- err
	}()
	for range 9 {
		require.NoError(t, <-errs)
	}
	require.NoError(t, st.Finish())
	require.NoError(t, st.Remove())
}

func TestStageMapVector(t *testing.T) {
	bits := NewBitmap(6)
	bits.Set(Run{First: 2, Count: 3})
	enc := appendStageMap(nil, StageKey{Library: [32]byte{1}, Digest: [32]byte{2}}, [32]byte{3}, 6*GroupSize, bits)
	sum := sha256.Sum256(enc)
	require.Equal(t, "19a3fd1c3232c659", hex.EncodeToString(sum[:8]))
}

func FuzzStageMap(f *testing.F) {
	key, root := StageKey{Library: [32]byte{1}}, [32]byte{2}
	bits := NewBitmap(6)
	f.Add(appendStageMap(nil, key, root, 6*GroupSize, bits))
	bits.Set(Run{First: 2, Count: 3})
	f.Add(appendStageMap(nil, key, root, 6*GroupSize, bits))
	f.Fuzz(func(t *testing.T, p []byte) {
		b, err := decodeStageMap(p, key, root, 6*GroupSize)
		if err == nil {
			require.Equal(t, p, appendStageMap(nil, key, root, 6*GroupSize, b))
		}
	})
}

func BenchmarkStage(b *testing.B) {
	path := b.TempDir()
	dir, err := OpenStageDir(path)
	require.NoError(b, err)
	defer dir.Close()
	s := newSample(b, 64<<20)
	b.SetBytes(64 << 20)
	for b.Loop() {
		st, err := OpenStage(dir, s.key, s.sum.Root, s.sum.Size)
		require.NoError(b, err)
		for at := uint64(0); at < 4096; at += 64 {
			_, err := s.put(st, Run{First: at, Count: 64})
			require.NoError(b, err)
			if at%1024 == 960 {
				require.NoError(b, st.Sync())
			}
		}
		require.NoError(b, st.Finish())
		require.NoError(b, st.Remove())
	}
}

// readCounter counts the bytes read back from files.
type readCounter struct {
	stageFS
	read *atomic.Int64
}

func (c readCounter) open(name string, flag int) (stageFile, error) {
	f, err := c.stageFS.open(name, flag)
	return countedFile{f, c.read}, err
}

type countedFile struct {
	stageFile
	read *atomic.Int64
}

func (f countedFile) ReadAt(p []byte, off int64) (int, error) {
	f.read.Add(int64(len(p)))
	return f.stageFile.ReadAt(p, off)
}

// What was hashed as it came is not read again at the end; what came out of order is
// hashed once it is connected to the start.
func TestStageHashesAsItGrows(t *testing.T) {
	s := newSample(t, 64*GroupSize)
	disk := readCounter{newCrashFS(), new(atomic.Int64)}
	st, err := s.open(disk)
	require.NoError(t, err)
	for _, step := range []struct {
		run  Run
		read int64 // groups that hashing reads
	}{{Run{Count: 16}, 16}, {Run{First: 32, Count: 16}, 0}, {Run{First: 16, Count: 16}, 32}} {
		_, err := s.put(st, step.run)
		require.NoError(t, err)
		before := disk.read.Load()
		require.NoError(t, st.Hash())
		require.Equal(t, step.read*GroupSize, disk.read.Load()-before)
	}
	before := disk.read.Load()
	require.NoError(t, st.Sync())
	require.Equal(t, before, disk.read.Load(), "making durable does not wait for hashing")
	_, err = s.put(st, Run{First: 48, Count: 16})
	require.NoError(t, err)
	require.NoError(t, st.Finish())
	require.EqualValues(t, 16*GroupSize, disk.read.Load()-before)
	require.NoError(t, st.Close())
	require.NoError(t, st.Hash(), "nothing is left to be hashed")

	st, err = s.open(disk) // another process begins from the file
	require.NoError(t, err)
	before = disk.read.Load()
	require.NoError(t, st.Finish())
	require.EqualValues(t, 64*GroupSize, disk.read.Load()-before)
	require.NoError(t, st.Close())
	st, err = s.open(disk)
	require.NoError(t, err)
	require.NoError(t, st.Close())
	require.ErrorIs(t, st.Hash(), ErrClosed)
}
