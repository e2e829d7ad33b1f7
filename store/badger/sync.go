package badger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
)

// syncer makes commits durable, many at a time. Badger's own SyncWrites syncs
// once per transaction, however many wait; with 16 writers a store would do no
// more commits per second than with one.
//
// A commit is first written by badger and then waits for a round that began
// afterwards. A round syncs the logs of all memtables, the one in use and those
// on their way into tables; one that is gone was written to a table, which
// badger syncs before it removes the log. As a log is replayed in order up to the
// first damage, and counts whole transactions only, a power cut loses no commit
// that was acknowledged and keeps no half of one that was not. That holds because
// no value goes to badger's value log, whose order with the memtable's log would
// not be certain: hence [store.MaxValue]. Logs are synced oldest first, so that
// commits under way at a power cut survive in their order, unless the system
// itself wrote back the newer of two logs within the milliseconds of a round.
type syncer struct {
	dir   string
	flush func() error // writes back memory maps, where syncing the file does not
	off   bool
	kick  chan struct{}
	known map[string]bool // files whose directory entries are durable

	mu   sync.Mutex
	next *round
	err  error // of the round that failed; for good
}

// round is one sync and those who wait for it.
type round struct {
	done chan struct{}
	err  error
}

func newSyncer(dir string, flush func() error, off bool) *syncer {
	return &syncer{dir: dir, flush: flush, off: off, kick: make(chan struct{}, 1), known: make(map[string]bool)}
}

// wait returns when all that was written before is durable. After a failure no
// write succeeds any more: what the system did with the pages is unknown, and
// only opening the store again tells what is on disk.
func (s *syncer) wait() error {
	if s.off {
		return nil
	}
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return s.err
	}
	if s.next == nil {
		s.next = &round{done: make(chan struct{})}
	}
	r := s.next
	s.mu.Unlock()
	select {
	case s.kick <- struct{}{}:
	default:
	}
	<-r.done
	return r.err
}

// broken returns why nothing can be written any more, or nil.
func (s *syncer) broken() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// run does the rounds until stop, when nobody waits any more.
func (s *syncer) run(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-s.kick:
		}
		s.mu.Lock()
		r := s.next
		s.next = nil
		err := s.err
		s.mu.Unlock()
		if r == nil {
			continue
		}
		if err == nil {
			err = s.sync()
		}
		if err != nil {
			err = fmt.Errorf("store: cannot sync, open it again: %w", mapError(err))
			s.mu.Lock()
			s.err = err
			s.mu.Unlock()
		}
		r.err = err
		close(r.done)
	}
}

func (s *syncer) sync() error {
	if runtime.GOOS == "windows" {
		if err := s.flush(); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	seen := make(map[string]bool, len(s.known))
	fresh := false
	for _, e := range entries {
		name := e.Name()
		if !strings.HasSuffix(name, ".mem") {
			continue
		}
		switch err := syncFile(filepath.Join(s.dir, name)); {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return err
		}
		seen[name] = true
		fresh = fresh || !s.known[name]
	}
	s.known = seen
	if fresh && runtime.GOOS != "windows" {
		return syncFile(s.dir)
	}
	return nil
}

func syncFile(path string) error {
	mode := os.O_RDWR
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		mode = os.O_RDONLY
	}
	f, err := os.OpenFile(path, mode, 0)
	if err != nil {
		return err
	}
	err = f.Sync()
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}
