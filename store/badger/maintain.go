package badger

import (
	"sync/atomic"
	"time"

	badgerdb "github.com/dgraph-io/badger/v4"
)

// idle knows when the store was last written, and how much since it was last
// compacted.
type idle struct {
	last      atomic.Int64 // Unix nanoseconds
	rewritten atomic.Int64 // bytes
}

func (i *idle) wrote(n int) {
	i.last.Store(time.Now().UnixNano())
	i.rewritten.Add(int64(n))
}

// minRewritten is the least number of bytes written that is worth a compaction.
const minRewritten = 16 << 20

// startRewritten is what a store that was just opened counts as written: its
// upper levels may hold what an earlier run left there.
func startRewritten(db *badgerdb.DB) int64 {
	var n int64
	for i, l := range db.Levels() {
		if i < len(db.Levels())-1 {
			n += l.Size
		}
	}
	return n
}

// maintain looks after the store until Close. Badger leaves old versions of
// rewritten keys on disk (ten rounds over 78 MiB took 600 MiB) until all levels
// are compacted, and its value-log collection does nothing for small values.
func (s *Store) maintain() {
	t := time.NewTicker(s.opts.tick)
	defer t.Stop()
	for {
		select {
		case <-s.stop:
			return
		case now := <-t.C:
			s.guard.probe(now)
			s.tighten()
			if s.shouldFlatten(now) {
				s.flatten()
			}
		}
	}
}

// shouldFlatten says that nothing was written for a while, that it is worth it,
// and that there is room for a second copy.
func (s *Store) shouldFlatten(now time.Time) bool {
	if now.Sub(time.Unix(0, s.idle.last.Load())) < s.opts.IdleAfter {
		return false
	}
	lsm, _ := s.db.Size()
	if s.idle.rewritten.Load() < max(minRewritten, lsm/4) {
		return false
	}
	free, err := s.opts.free(s.dir)
	return err == nil && free > s.opts.Reserve+uint64(lsm)
}

func (s *Store) flatten() {
	s.idle.rewritten.Store(0)
	if err := s.db.Flatten(1); err != nil {
		s.log.Warn("store: compaction failed", "err", err)
		return
	}
	for s.db.RunValueLogGC(0.5) == nil { // an error says that there is nothing to do
		select {
		case <-s.stop:
			return
		default:
		}
	}
	s.tighten()
}
