package blob

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cansync/cansync/can"
)

// hashBlock is how much is read back at once for hashing.
const hashBlock = 256 << 10

// Sync makes every group put so far durable: first the data, then the bitmap that
// claims it. Callers do it every few MiB; what was put since is fetched again after a
// crash.
//
// When the data can't be made durable the stage takes nothing more: what the system
// still holds of it is unknown. Opened again it goes on from the last good Sync.
func (s *Stage) Sync() error {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	if err := s.usable(); err != nil {
		return err
	}
	_, err := s.flush()
	return err
}

// Hash takes the SHA-256 of the whole forward over the groups that are there from
// the start on, so that little is left to do at the end. It waits for no disk but to
// read what was just written; callers do it as groups come, beside Put and Sync.
func (s *Stage) Hash() error {
	s.hashing <- struct{}{}
	defer func() { <-s.hashing }()
	s.mu.Lock()
	end := s.have.Prefix()
	s.mu.Unlock()
	return s.advance(end)
}

// flush returns the set that is durable afterwards.
func (s *Stage) flush() (*Bitmap, error) {
	s.mu.Lock()
	bits, dirty := s.have.Clone(), s.dirty
	s.dirty = false
	s.mu.Unlock()
	if !dirty {
		return bits, nil
	}
	if err := s.f.sync(); err != nil {
		// A later sync may succeed without the pages that this one lost.
		err = s.ioError("sync data", err)
		s.mu.Lock()
		s.broken = err
		s.mu.Unlock()
		return nil, err
	}
	err := saveStageMap(s.fs, s.key, appendStageMap(nil, s.key, s.root, s.size, bits))
	if err == nil {
		err = s.fs.syncDir() // else a power cut may bring the old bitmap back
	}
	if err != nil {
		s.mu.Lock()
		s.dirty = true
		s.mu.Unlock()
		return nil, s.ioError("save bitmap", err)
	}
	s.shedRead(bits.Prefix())
	return bits, nil
}

// advance hashes the groups before end, unless the stage is closed meanwhile.
func (s *Stage) advance(end uint64) error {
	for s.hashed < end {
		if err := s.usable(); err != nil {
			return err
		}
		run := Run{First: s.hashed, Count: min(end-s.hashed, hashBlock/GroupSize)}
		if s.block == nil {
			s.block = make([]byte, hashBlock)
		}
		p := s.block[:run.Len(s.size)]
		if err := s.readBack(p, run); err != nil {
			return err
		}
		s.sha.Write(p)
		s.hashed = run.End()
		s.mu.Lock()
		s.summed = uint64(run.Offset()) + uint64(len(p))
		s.mu.Unlock()
	}
	return nil
}

func (s *Stage) readBack(p []byte, run Run) error {
	if n, err := s.f.ReadAt(p, run.Offset()); n < len(p) {
		return s.ioError("read back", err)
	}
	return nil
}

// Finish makes a complete stage durable and holds the SHA-256 of the bytes in the
// file against the key's digest. Errors:
//
//   - [ErrIncomplete]: groups are missing.
//   - [ErrContent]: the bytes fit the BLAKE3 root and not the digest. The record's
//     author is to blame; fetching again won't help.
//   - [ErrDamaged]: the file no longer holds what was put. The groups concerned are
//     missing again.
func (s *Stage) Finish() error {
	return s.finish(s.flush)
}

// Verify is Finish for content that leaves the stage at once: it does not make
// durable what was put since the last [Stage.Sync]. The stage yields its content
// afterwards; who keeps it calls Sync.
func (s *Stage) Verify() error {
	return s.finish(func() (*Bitmap, error) { return s.Have(), nil })
}

func (s *Stage) finish(groups func() (*Bitmap, error)) error {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	if err := s.usable(); err != nil {
		return err
	}
	// The processor hashes while the disk writes.
	hashed := make(chan error, 1)
	go func() { hashed <- s.Hash() }()
	bits, err := groups()
	if err = errors.Join(err, <-hashed); err != nil {
		return err
	}
	if !bits.Full() {
		return fmt.Errorf("%w: %d of %d", ErrIncomplete, bits.Len()-bits.Count(), bits.Len())
	}
	s.hashing <- struct{}{}
	defer func() { <-s.hashing }()
	if err := s.advance(bits.Len()); err != nil {
		return err
	}
	if can.Digest(s.sha.Sum(nil)) != s.key.Digest {
		if err := s.examine(); err != nil {
			return err
		}
	}
	s.finished = true
	return nil
}

// examine finds out why the digest is not the recorded one, by reading everything
// once more against the tree.
func (s *Stage) examine() error {
	tree := s.Tree()
	s.sha, s.hashed = sha256.New(), 0
	buf := make([]byte, hashBlock)
	var bad []Run
	for at, n := uint64(0), Groups(s.size); at < n; {
		run := Run{First: at, Count: min(n-at, hashBlock/GroupSize)}
		at = run.End()
		p := buf[:run.Len(s.size)]
		if err := s.readBack(p, run); err != nil {
			return err
		}
		s.sha.Write(p)
		v, err := tree.Verifier(run)
		if errors.Is(err, ErrOutboard) {
			bad = append(bad, run) // unproven; its nodes come again with its groups
			continue
		}
		if err != nil {
			return err
		}
		for i := run.First; i < run.End(); i++ {
			one := Run{First: i, Count: 1}
			off := one.Offset() - run.Offset()
			if v.Check(i, p[off:off+one.Len(s.size)]) != nil {
				bad = append(bad, one)
			}
		}
	}
	digest := can.Digest(s.sha.Sum(nil))
	s.sha, s.hashed = sha256.New(), 0
	if len(bad) > 0 {
		s.mu.Lock()
		lost := uint64(0)
		for _, run := range bad {
			lost += s.have.Clear(run)
		}
		s.dirty, s.prefix = true, 0
		s.mu.Unlock()
		_, err := s.flush()
		return errors.Join(fmt.Errorf("%w: %d groups", ErrDamaged, lost), err)
	}
	if digest != s.key.Digest {
		return ErrContent
	}
	return nil // the first reading was wrong, not the file
}

// Content opens the content of a finished stage for reading, from its start; before
// that it returns [ErrIncomplete]. Each reader is independent, outlives Close, and
// is closed by the caller.
func (s *Stage) Content() (io.ReadCloser, error) {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	if err := s.usable(); err != nil {
		return nil, err
	}
	if !s.finished {
		return nil, ErrIncomplete
	}
	f, err := s.fs.open(s.key.name(partSuffix), os.O_RDONLY)
	if err != nil {
		return nil, s.ioError("open content", err)
	}
	return content{io.NewSectionReader(f, 0, int64(s.size)), f}, nil
}

// content is a section of a file of its own.
type content struct {
	*io.SectionReader
	io.Closer
}
