package transfer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/cansync/cansync/internal/blob"
)

// Content is a content that was fetched and verified as a whole. Its methods are
// safe for concurrent use. End it with Discard when it has reached its destination,
// or with Close to find it again.
type Content struct {
	sink sink
	size uint64
	once sync.Once
	gone func()
}

// Open opens the content for reading from its start. Each reader is independent and
// closed by the caller.
func (t *Content) Open() (io.ReadCloser, error) { return t.sink.content() }

// Size returns the length of the content in bytes.
func (t *Content) Size() int64 { return int64(t.size) }

// Outboard returns the BLAKE3 tree in the layout of blob.Summary, empty for content
// of at most one group. It may be read until Discard or Close.
func (t *Content) Outboard() (*io.SectionReader, error) { return t.sink.outboard(), nil }

// Discard removes the staged content. It is idempotent; after Close it does
// nothing.
func (t *Content) Discard() error { return t.end(sink.remove) }

// Close keeps the staged content: the next fetch of it finds it whole and needs no
// peer. Contents in memory are kept as long as nothing else needs the space.
func (t *Content) Close() error { return t.end(sink.close) }

func (t *Content) end(how func(sink) error) (err error) {
	t.once.Do(func() {
		err = how(t.sink)
		t.gone()
	})
	return err
}

// sink is where a large content goes: a stage on disk or memory.
type sink interface {
	have() *blob.Bitmap
	// prefix returns how many groups are there from the start on, and readAt reads
	// bytes of them.
	prefix() uint64
	readAt(p []byte, off int64) (int, error)
	begin(proven *blob.Verifier) (intake, error)
	// sync makes what came durable, hash takes the hash of the whole forward; the
	// two may run at once. finish checks the whole and returns [ErrBadContent], or
	// blob.ErrDamaged after which have tells what is missing; close makes durable
	// what is not yet.
	sync() error
	hash() error
	finish() error
	content() (io.ReadCloser, error)
	outboard() *io.SectionReader
	close() error
	remove() error
}

// intake takes the groups of one run that were held against its verifier, as
// blob.Intake does.
type intake interface {
	PutProven(first uint64, data []byte) (uint64, error)
}

// disk is a sink on disk.
type disk struct{ s *blob.Stage }

func (d disk) have() *blob.Bitmap { return d.s.Have() }
func (d disk) begin(proven *blob.Verifier) (intake, error) {
	in, err := d.s.BeginProven(proven)
	return in, err
}
func (d disk) prefix() uint64 { return d.s.Prefix() }
func (d disk) readAt(p []byte, off int64) (int, error) {
	return d.s.ReadAt(p, off)
}
func (d disk) sync() error { return d.s.Sync() }
func (d disk) hash() error { return d.s.Hash() }
func (d disk) finish() error {
	err := d.s.Verify()
	if errors.Is(err, blob.ErrContent) {
		return fmt.Errorf("%w: %w", ErrBadContent, err)
	}
	return err
}
func (d disk) content() (io.ReadCloser, error) { return d.s.Content() }
func (d disk) outboard() *io.SectionReader     { return d.s.Outboard() }
func (d disk) close() error                    { return errors.Join(d.s.Sync(), d.s.Close()) }
func (d disk) remove() error                   { return d.s.Remove() }

// openDisk opens the stage of a want. A stage begun for what another record claimed
// makes way.
func (c *Client) openDisk(key blob.StageKey, w Want) (sink, error) {
	s, err := blob.OpenStage(c.cfg.Stages, key, w.Root, w.Size)
	if errors.Is(err, blob.ErrOtherStage) {
		if err := blob.RemoveStage(c.cfg.Stages, key); err != nil {
			return nil, err
		}
		s, err = blob.OpenStage(c.cfg.Stages, key, w.Root, w.Size)
	}
	if err != nil {
		return nil, noSpace(err)
	}
	return disk{s}, nil
}

// ram holds contents of which there is no stage on disk. Those not in use make
// way for new ones, the oldest first.
type ram struct {
	limit uint64

	mu    sync.Mutex
	used  uint64
	sinks map[blob.StageKey]*memSink
	idle  []*memSink // the oldest first
}

func newRAM(limit int64) *ram {
	return &ram{limit: uint64(limit), sinks: make(map[blob.StageKey]*memSink)}
}

// memSink is a content in memory.
type memSink struct {
	m    *ram
	key  blob.StageKey
	root [32]byte
	size uint64
	data []byte

	hasher *blob.Hasher
	sum    *blob.Summary // when finished

	mu   sync.Mutex
	bits *blob.Bitmap
}

func (m *ram) open(key blob.StageKey, root [32]byte, size uint64) (*memSink, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.sinks[key]; s != nil {
		if s.root == root && s.size == size {
			m.idle = slices.DeleteFunc(m.idle, func(o *memSink) bool { return o == s })
			return s, nil
		}
		m.forget(s)
	}
	for len(m.idle) > 0 && (size > m.limit || m.used > m.limit-size) {
		m.forget(m.idle[0])
	}
	if size > m.limit || m.used > m.limit-size {
		return nil, fmt.Errorf("%w: %d bytes do not fit into memory", ErrNoSpace, size)
	}
	m.used += size
	s := &memSink{
		m: m, key: key, root: root, size: size, data: make([]byte, size),
		bits: blob.NewBitmap(blob.Groups(size)), hasher: blob.NewHasher(int64(size)),
	}
	m.sinks[key] = s
	return s, nil
}

func (m *ram) forget(s *memSink) {
	if m.sinks[s.key] != s {
		return
	}
	m.used -= s.size
	delete(m.sinks, s.key)
	m.idle = slices.DeleteFunc(m.idle, func(o *memSink) bool { return o == s })
}

func (s *memSink) have() *blob.Bitmap {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bits.Clone()
}

func (s *memSink) prefix() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bits.Prefix()
}

// readAt locks out those who write groups again that are there already.
func (s *memSink) readAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return copy(p, s.data[off:]), nil
}

func (s *memSink) begin(*blob.Verifier) (intake, error) { return memIntake{s}, nil }

type memIntake struct{ s *memSink }

// PutProven implements intake. Groups that are there already are not written again;
// two sources that bring the same new group at once write the same verified bytes.
func (in memIntake) PutProven(first uint64, data []byte) (uint64, error) {
	run := blob.Run{First: first, Count: blob.Groups(uint64(len(data)))}
	in.s.mu.Lock()
	defer in.s.mu.Unlock()
	// What is there already may be being hashed, and stays untouched.
	for i := run.First; i < run.End(); i++ {
		group := data[:min(blob.GroupSize, len(data))]
		if data = data[len(group):]; !in.s.bits.Test(i) {
			copy(in.s.data[i*blob.GroupSize:], group)
		}
	}
	return in.s.bits.Set(run), nil
}

// sync does nothing: there is no disk.
func (s *memSink) sync() error { return nil }

// hash is never called together with finish.
func (s *memSink) hash() error {
	s.mu.Lock()
	end := min(s.bits.Prefix()*blob.GroupSize, s.size)
	s.mu.Unlock()
	if s.sum != nil || end <= s.hasher.Size() {
		return nil
	}
	_, err := s.hasher.Write(s.data[s.hasher.Size():end])
	return err
}

func (s *memSink) finish() error {
	if err := s.hash(); err != nil {
		return err
	}
	if s.sum == nil {
		sum, err := s.hasher.Finish()
		if err != nil {
			return err
		}
		s.sum, s.hasher = &sum, nil
	}
	if s.sum.Digest != s.key.Digest {
		return fmt.Errorf("%w: its SHA-256 is another", ErrBadContent)
	}
	return nil
}

func (s *memSink) content() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(s.data)), nil
}

func (s *memSink) outboard() *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(s.sum.Outboard), 0, int64(len(s.sum.Outboard)))
}

func (s *memSink) close() error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.m.sinks[s.key] == s {
		s.m.idle = append(s.m.idle, s)
	}
	return nil
}

func (s *memSink) remove() error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.forget(s)
	return nil
}

// fill takes a whole content that was verified elsewhere.
func (s *memSink) fill(data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	copy(s.data, data)
	s.bits.Set(blob.Run{Count: s.bits.Len()})
}

var (
	_ sink = disk{}
	_ sink = (*memSink)(nil)
)
