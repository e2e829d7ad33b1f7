package blob

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"sync"
)

// MaxStage is the largest content, in bytes, that is staged. What a record claims is
// anybody's word, and not every file system refuses a file that no disk could hold: it
// bounds the bitmap, which is in memory, to 32 MiB.
const MaxStage = 4 << 40

// Errors of a [Stage].
var (
	// ErrNoSpace says that the disk or quota is full; the stage as it was before
	// the call stays usable.
	ErrNoSpace = errors.New("blob: no space for a staged blob")
	// ErrOtherStage says that the key's stage was begun for another root or size,
	// as two records about one digest may claim. The caller chooses: keep it, or
	// [RemoveStage] and open again.
	ErrOtherStage = errors.New("blob: staged for another root or size")
	// ErrIncomplete says that groups are missing.
	ErrIncomplete = errors.New("blob: groups are missing")
	// ErrDamaged says that staged bytes are no longer what was written. The groups
	// concerned are missing again and have to be fetched once more; no peer is to
	// blame.
	ErrDamaged = errors.New("blob: staged bytes are damaged")
)

// Stage is a large blob on its way in: one file of its final size, taken from the
// disk before the first byte arrives, and a durable bitmap beside it. After a
// crash the bitmap claims no group that is not on disk.
//
// The file holds the content, padded to whole groups, and behind it the outboard,
// filled from the proofs that came with the groups. So a finished stage yields the
// tree for serving the blob without another pass, and an unfinished one can serve
// the groups that it has.
//
// A Stage is safe for concurrent use, but a key must be open only once. Blocking
// calls last as long as the disk takes.
type Stage struct {
	fs   stageFS
	key  StageKey
	root [32]byte
	size uint64
	f    stageFile

	// turn is held by the one of Sync, Finish and Close that is at work; it guards
	// finished. hashing is held by who takes the hash of the whole forward; it guards
	// sha, hashed and block, and comes after turn. No mutex is held across I/O.
	turn     chan struct{}
	finished bool
	hashing  chan struct{}
	sha      hash.Hash
	hashed   uint64 // groups that sha has taken in
	block    []byte // read back to be hashed

	mu     sync.Mutex
	have   *Bitmap
	prefix uint64 // groups that are there from the start on, at least
	used   uint64 // bytes from the start on that were read by ReadAt, in order
	summed uint64 // bytes from the start on that sha has taken in
	shed   uint64 // bytes from the start on that the system was let to forget
	dirty  bool   // have differs from the durable bitmap
	broken error  // the data could not be made durable
	closed bool
}

// OpenStage opens the stage of a key for content of the given BLAKE3 root and size
// in a directory, taking up a stage left behind by an earlier process or making a
// new one. The caller has accepted the size: it is taken from the disk at once, with
// 0.4 % for the tree. Errors match [ErrNoSpace], also above [MaxStage], and
// [ErrOtherStage], or are the file system's.
//
// Space is reserved with fallocate on Linux. Where a file system or operating
// system can't reserve, a full disk shows in [Intake.Put].
func OpenStage(dir *os.Root, key StageKey, root [32]byte, size uint64) (*Stage, error) {
	return openStage(rootFS{dir}, key, root, size)
}

func openStage(dir stageFS, key StageKey, root [32]byte, size uint64) (*Stage, error) {
	if size > MaxStage {
		return nil, fmt.Errorf("blob: open stage: %w: %d bytes, at most %d are staged", ErrNoSpace, size, uint64(MaxStage))
	}
	total := stageTotal(size)
	s := &Stage{
		fs: dir, key: key, root: root, size: size,
		turn: make(chan struct{}, 1), hashing: make(chan struct{}, 1), sha: sha256.New(),
	}
	err := s.resume(int64(total))
	if err != nil && notThere(err) {
		err = s.create(int64(total))
	}
	if err != nil {
		return nil, fmt.Errorf("blob: open stage: %w", noSpace(err))
	}
	return s, nil
}

// resume opens both files of an earlier stage. It fails as notThere when they do
// not make up a stage.
func (s *Stage) resume(total int64) error {
	bits, err := loadStageMap(s.fs, s.key, s.root, s.size)
	if err != nil {
		return err
	}
	f, err := s.fs.open(s.key.name(partSuffix), os.O_RDWR)
	if err != nil {
		return err
	}
	n, err := f.size()
	if err == nil && n != total {
		err = fmt.Errorf("%w: staged file of %d bytes, not %d", errStageMap, n, total)
	}
	if err == nil {
		err = s.fs.syncDir() // the names may be newer than the last time it worked
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	s.f, s.have = f, bits
	return nil
}

// create makes both files anew. An old bitmap is gone for good before there is a
// data file that it could be taken to speak of.
func (s *Stage) create(total int64) error {
	if err := removeStage(s.fs, s.key); err != nil {
		return err
	}
	if err := s.fs.syncDir(); err != nil {
		return err
	}
	name := s.key.name(partSuffix)
	f, err := s.fs.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	// The bitmap comes after the space: a size that no disk has takes no memory either.
	err = f.reserve(total)
	if err == nil {
		s.have = NewBitmap(Groups(s.size))
		err = f.sync()
	}
	if err == nil {
		err = saveStageMap(s.fs, s.key, appendStageMap(nil, s.key, s.root, s.size, s.have))
	}
	if err == nil {
		err = s.fs.syncDir()
	}
	if err != nil {
		return errors.Join(err, f.Close(), removeStage(s.fs, s.key))
	}
	s.f = f
	return nil
}

// Key returns the key that the stage was opened for.
func (s *Stage) Key() StageKey { return s.key }

// Size returns the length of the content in bytes.
func (s *Stage) Size() uint64 { return s.size }

// Have returns a copy of the set of groups that are in the file.
func (s *Stage) Have() *Bitmap {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.have.Clone()
}

// Count returns the number of groups that are in the file.
func (s *Stage) Count() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.have.Count()
}

// usable returns the error that keeps the stage from being written.
func (s *Stage) usable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	return s.broken
}

// Intake takes in the groups of one run. It is safe for concurrent use.
type Intake struct {
	s *Stage
	v *Verifier
}

// Begin checks the proof of a run, as [NewVerifier] does, files its nodes away and
// returns the intake for the run's groups.
func (s *Stage) Begin(run Run, proof []byte) (*Intake, error) {
	v, err := NewVerifier(s.root, s.size, run, proof)
	if err != nil {
		return nil, err
	}
	return s.BeginProven(v)
}

// BeginProven is [Stage.Begin] for a caller who has checked the proof already. A
// verifier of other content is [ErrProof].
func (s *Stage) BeginProven(v *Verifier) (*Intake, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	if v.root != s.root || v.size != s.size {
		return nil, fmt.Errorf("%w: of other content", ErrProof)
	}
	base := s.treeOffset()
	err := v.nodes(func(index uint64, nodes []byte) error {
		_, err := s.f.WriteAt(nodes, base+int64(index*NodeSize))
		return err
	})
	if err != nil {
		return nil, s.ioError("write tree", err)
	}
	return &Intake{s: s, v: v}, nil
}

// Run returns the run that the intake is for.
func (in *Intake) Run() Run { return in.v.run }

// Put checks data, whole groups from group first on, and writes them. It returns
// how many groups were not there before. A wrong group is a [GroupError]; nothing
// of data is taken then. What Put took is durable after the next [Stage.Sync].
func (in *Intake) Put(first uint64, data []byte) (uint64, error) {
	if err := in.s.usable(); err != nil {
		return 0, err
	}
	if err := in.v.Check(first, data); err != nil {
		return 0, err
	}
	return in.PutProven(first, data)
}

// PutProven is [Intake.Put] for a caller who has held the very bytes against the
// intake's [Verifier] already. Whoever has not must not call it: the bytes are
// written, and counted as verified, as they are.
func (in *Intake) PutProven(first uint64, data []byte) (uint64, error) {
	s := in.s
	if err := s.usable(); err != nil {
		return 0, err
	}
	run, err := RunAt(s.size, first, len(data))
	if err != nil {
		return 0, err
	}
	if run.First < in.v.run.First || run.End() > in.v.run.End() {
		return 0, fmt.Errorf("%w: %v is not in the proven %v", ErrRange, run, in.v.run)
	}
	// Bytes that are there stay untouched: they may be durable and hashed already.
	s.mu.Lock()
	there := s.have.Has(run)
	s.mu.Unlock()
	if there {
		return 0, nil
	}
	if _, err := s.f.WriteAt(data, run.Offset()); err != nil {
		return 0, s.ioError("write groups", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, ErrClosed
	}
	fresh := s.have.Set(run)
	s.dirty = s.dirty || fresh > 0
	return fresh, nil
}

// ReadGroups reads the groups of a run, all of which must be there, into p, whose
// length must be that of the run ([Run.Len]). Bytes read back are to be held
// against the [Stage.Tree] before they leave the node.
func (s *Stage) ReadGroups(run Run, p []byte) error {
	if err := run.Check(s.size); err != nil {
		return err
	}
	if int64(len(p)) != run.Len(s.size) {
		return fmt.Errorf("%w: buffer of %d bytes for %v", ErrSize, len(p), run)
	}
	s.mu.Lock()
	closed, there := s.closed, s.have.Has(run)
	s.mu.Unlock()
	switch {
	case closed:
		return ErrClosed
	case !there:
		return ErrIncomplete
	}
	if _, err := s.f.ReadAt(p, run.Offset()); err != nil && err != io.EOF {
		return s.ioError("read groups", err)
	}
	return nil
}

// Outboard returns the tree as it is in the stage, in the layout of [Summary], for
// as long as the stage is open. It is complete when the stage is finished.
func (s *Stage) Outboard() *io.SectionReader {
	return io.NewSectionReader(s.f, s.treeOffset(), int64(OutboardSize(s.size)))
}

// Tree returns the tree for proofs of groups that are there.
func (s *Stage) Tree() *Tree {
	return &Tree{root: s.root, size: s.size, r: s.Outboard()}
}

// stageTotal is the length of a stage's file for content of a size.
func stageTotal(size uint64) uint64 { return Groups(size)*GroupSize + OutboardSize(size) }

// StageNeeds returns how many bytes opening a stage for content of a size would take
// from the disk beside those that the key's stage occupies already, whatever it was
// begun for: one for another size makes way.
func StageNeeds(dir *os.Root, key StageKey, size uint64) uint64 {
	total := stageTotal(min(size, MaxSize))
	info, err := dir.Lstat(key.name(partSuffix))
	if err != nil || !info.Mode().IsRegular() {
		return total
	}
	return total - min(total, uint64(info.Size()))
}

func (s *Stage) treeOffset() int64 { return int64(Groups(s.size) * GroupSize) }

// ioError names the step and keeps a full disk and a closed stage apart.
func (s *Stage) ioError(step string, err error) error {
	if errors.Is(err, fs.ErrClosed) {
		return ErrClosed
	}
	return fmt.Errorf("blob: stage: %s: %w", step, noSpace(err))
}

// Close closes the files and keeps them for a later [OpenStage]. Groups put since
// the last Sync may have to be fetched again. Close is idempotent.
func (s *Stage) Close() error {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	s.mu.Lock()
	was := s.closed
	s.closed = true
	s.mu.Unlock()
	if was {
		return nil
	}
	s.hashing <- struct{}{} // ends at the next block
	s.block = nil
	<-s.hashing
	return s.f.Close()
}

// Remove closes the stage and removes its files.
func (s *Stage) Remove() error {
	err := s.Close()
	return errors.Join(err, removeStage(s.fs, s.key))
}
