package badger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
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
	// logs are the memtables' logs, oldest first, and next is the name of the one that
	// badger makes next; empty to look.
	logs []string
	next string

	mu     sync.Mutex
	coming *round
	err    error // of the round that failed; for good
}

// round is one sync and those who wait for it.
type round struct {
	done chan struct{}
	err  error
}

func newSyncer(dir string, flush func() error, off bool) *syncer {
	return &syncer{dir: dir, flush: flush, off: off, kick: make(chan struct{}, 1)}
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
	if s.coming == nil {
		s.coming = &round{done: make(chan struct{})}
	}
	r := s.coming
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
		r := s.coming
		s.coming = nil
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
	fresh, err := s.find()
	if err != nil {
		return err
	}
	gone, err := s.syncLogs(fresh)
	if err == nil && gone && !fresh {
		// Memtables become tables in their order: what came after this one may have come
		// and gone unseen.
		if fresh, err = s.find(); err == nil {
			_, err = s.syncLogs(fresh)
		}
	}
	return err
}

// syncLogs syncs the logs, and the directory if there are fresh ones. It reports
// whether one is gone, which was written to a table.
func (s *syncer) syncLogs(fresh bool) (gone bool, err error) {
	defer func() {
		if gone || err != nil {
			s.next = "" // look anew
		}
	}()
	for _, name := range s.logs {
		switch err := syncFile(filepath.Join(s.dir, name), os.O_RDWR); {
		case errors.Is(err, fs.ErrNotExist):
			gone = true
		case err != nil:
			return gone, err
		}
	}
	if fresh && runtime.GOOS != "windows" {
		return gone, syncFile(s.dir, os.O_RDONLY)
	}
	return gone, nil
}

// find brings logs up to date and reports whether there may be new ones. Badger numbers
// them without a gap, so that there is none as long as the next one is not there and
// no log is gone. Reading the directory each time would take longer than all the rest
// of a round where a sync costs little.
func (s *syncer) find() (fresh bool, err error) {
	if s.next != "" {
		switch _, err := os.Lstat(filepath.Join(s.dir, s.next)); {
		case errors.Is(err, fs.ErrNotExist):
			return false, nil
		case err != nil:
			return false, err
		}
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return false, err
	}
	var logs []string
	last := -1
	for _, e := range entries {
		digits, ok := strings.CutSuffix(e.Name(), logSuffix)
		if !ok {
			continue
		}
		logs = append(logs, e.Name())
		if n, err := strconv.Atoi(digits); err == nil {
			last = max(last, n)
		}
	}
	s.logs, s.next = logs, ""
	if last >= 0 {
		s.next = logName(last + 1)
	}
	return true, nil
}

const logSuffix = ".mem"

// logName is how badger names the log of its n-th memtable.
func logName(n int) string { return fmt.Sprintf("%05d%s", n, logSuffix) }

func syncFile(path string, mode int) error {
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
