package blob

import (
	"errors"
	"fmt"
	"io"
)

// Prefix returns how many groups are in the file before the first missing one.
func (s *Stage) Prefix() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prefix = s.have.nextClear(s.prefix, s.have.Len())
	return s.prefix
}

// ReadAt reads verified content before the stage is complete. All of p must lie
// within the content and within [Stage.Prefix]; else it fails with [ErrIncomplete].
// Bytes read are what was put, unless the disk damaged them since: [Stage.Verify]
// and [Stage.Finish] find that out.
func (s *Stage) ReadAt(p []byte, off int64) (int, error) {
	end := uint64(off) + uint64(len(p))
	if err := s.usable(); err != nil {
		return 0, err
	}
	if off < 0 || end > s.size || end > s.Prefix()*GroupSize {
		return 0, fmt.Errorf("%w: %d bytes at %d", ErrIncomplete, len(p), off)
	}
	n, err := s.f.ReadAt(p, off)
	if n == len(p) || err == nil {
		s.mu.Lock()
		if at := uint64(off); at <= s.used {
			s.used = max(s.used, at+uint64(n))
		}
		s.mu.Unlock()
		return n, nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, s.ioError("read content", err)
}

// shedUnit is the multiple of bytes in which the system is let to forget.
const shedUnit = 1 << 20

// shedRead lets the system forget what is durable, hashed, and read by somebody who
// passes it on while it comes: it is on its way to another file, and the memory that
// holds it a second time is better used for that one.
func (s *Stage) shedRead(durable uint64) {
	s.mu.Lock()
	from := s.shed
	end := min(s.used, s.summed, durable*GroupSize) / shedUnit * shedUnit
	s.shed = max(from, end)
	s.mu.Unlock()
	if end > from {
		s.f.forget(int64(from), int64(end-from))
	}
}
