package service

import (
	"strconv"
	"sync"
	"time"
)

const (
	flushInterval = 2 * time.Second
	// stateFlushed is the change number up to which all files are durable, and
	// stateClean says that the service was closed in order.
	stateFlushed = "flushed"
	stateClean   = "clean"
	// stateFlushedAt is the time of that flush in Unix milliseconds.
	stateFlushedAt = "flushed_at"
	stateSeq       = "seq"
)

// flusher makes files durable in the background and records how far it got, so
// that after a power cut only what came later needs to be read again.
type flusher struct {
	s *Service

	mu    sync.Mutex
	dirty bool
	names []string
}

// wrote notes files that the next flush is to make durable.
func (f *flusher) wrote(names ...string) {
	f.mu.Lock()
	f.dirty = true
	if flushNeedsNames {
		f.names = append(f.names, names...)
	}
	f.mu.Unlock()
}

func (f *flusher) loop() {
	t := time.NewTicker(flushInterval)
	defer t.Stop()
	for {
		select {
		case <-f.s.background.Done():
			return
		case <-t.C:
			if err := f.flush(false); err != nil {
				f.s.log.Error("flushing files to the disk", "err", err)
			}
		}
	}
}

// flush makes everything written so far durable and records it. The last flush
// also records that the service ended in order.
func (f *flusher) flush(last bool) error {
	var seq int64
	// The writer knows which change was the last to write its files.
	if err := f.s.writer.do(func(tx *txn) error { seq = tx.w.seq; return nil }, nil); err != nil {
		return err
	}
	at := f.s.cfg.Now().UnixMilli()
	f.mu.Lock()
	dirty, names := f.dirty, f.names
	f.dirty, f.names = false, nil
	f.mu.Unlock()
	if dirty {
		if err := flushTree(f.s.files.dir, names); err != nil {
			f.mu.Lock()
			f.dirty, f.names = true, append(names, f.names...)
			f.mu.Unlock()
			return err
		}
	}
	if !dirty && !last {
		return nil
	}
	return f.s.writer.do(func(tx *txn) error {
		for _, kv := range [][2]string{
			{stateFlushed, strconv.FormatInt(seq, 10)},
			{stateFlushedAt, strconv.FormatInt(at, 10)},
			{stateSeq, strconv.FormatInt(tx.w.seq, 10)},
			{stateClean, strconv.FormatBool(last)},
		} {
			if err := tx.setState(kv[0], kv[1]); err != nil {
				return err
			}
		}
		return nil
	}, nil)
}
