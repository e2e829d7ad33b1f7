package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"
)

// closeGrace is how long Close lets requests finish before it cuts them off.
const closeGrace = 5 * time.Second

// Service is a CAN Service on one storage root. It is safe for concurrent use.
type Service struct {
	cfg     Config
	log     *slog.Logger
	files   *files
	lock    *os.File
	index   *index
	writer  *writer
	flusher *flusher
	events  *hub
	pages   pageMarks
	thumbs  thumbnails
	handler http.Handler

	live atomic.Int64 // assets outside the trash

	verifying sync.Mutex // held by TryLock only, while a verification or rebuild runs
	uploads   *semaphore.Weighted

	ctx    context.Context // ends when Close has lost its patience
	cancel context.CancelFunc
	// background ends as soon as Close begins.
	background     context.Context
	stopBackground context.CancelFunc

	loops   sync.WaitGroup
	mu      sync.Mutex
	closing bool
	active  sync.WaitGroup // requests
	closed  chan struct{}
	err     error // of Close; read after closed
}

// Open opens the storage root, repairs what an interrupted run left, and starts
// the background work. The error matches [ErrConfig] or [ErrLocked] where it
// applies. The caller closes the service.
func Open(cfg Config) (_ *Service, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(cfg.StorageRoot)
	if err != nil {
		return nil, fmt.Errorf("%w: storage root: %w", ErrConfig, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("%w: storage root: %w", ErrConfig, err)
	}
	s := &Service{cfg: cfg, log: cfg.Logger, files: &files{}, events: newHub(), closed: make(chan struct{}),
		uploads: semaphore.NewWeighted(maxUploads)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.background, s.stopBackground = context.WithCancel(s.ctx)
	defer func() {
		if err != nil {
			s.cancel()
			err = errors.Join(err, s.release())
		}
	}()
	if s.files.root, err = os.OpenRoot(dir); err != nil {
		return nil, fmt.Errorf("%w: storage root: %w", ErrConfig, err)
	}
	if s.files.dir, err = os.Open(dir); err != nil {
		return nil, err
	}
	if s.lock, err = s.files.root.OpenFile(lockName, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, fmt.Errorf("%w: storage root can't be written: %w", ErrConfig, err)
	}
	if err := lockFile(s.lock); err != nil {
		if errors.Is(err, ErrLocked) {
			return nil, fmt.Errorf("%w: %s; stop that one or choose another storage root", ErrLocked, dir)
		}
		return nil, fmt.Errorf("canservice: locking %s: %w", dir, err)
	}
	for _, d := range []string{trashDir, thumbDir} {
		if err := s.files.root.Mkdir(d, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	if err := s.openIndex(dir); err != nil {
		return nil, err
	}
	s.flusher = &flusher{s: s}
	var flush func() error
	if cfg.Durable {
		flush = s.files.flushDir
	}
	if s.writer, err = startWriter(s.ctx, s.index, flush); err != nil {
		return nil, err
	}
	if err := s.recover(); err != nil {
		return nil, err
	}
	s.thumbs = thumbnails{s: s, slots: semaphore.NewWeighted(thumbWorkers), calls: &singleflight.Group{}}
	s.thumbs.measure()
	s.handler = s.routes()
	s.loops.Go(s.flusher.loop)
	if cfg.VerifyInterval > 0 {
		s.loops.Go(s.verifyLoop)
	}
	s.log.Info("storage root opened", "root", dir, "assets", s.live.Load(), "hash_rule", string(cfg.HashRule))
	return s, nil
}

// openIndex opens the index; one that can't be read is moved aside, because
// everything in it can be built anew from the files.
func (s *Service) openIndex(dir string) error {
	if err := s.ownIndex(); err != nil {
		return err
	}
	x, err := openIndex(s.ctx, dir, s.cfg.Durable)
	if errors.Is(err, errBrokenIndex) {
		aside := fmt.Sprintf("%s.broken-%d", indexName, s.cfg.Now().UnixMilli())
		s.log.Error("the index can't be read; it is moved aside and built anew from the files", "moved_to", aside, "err", err)
		for _, suffix := range []string{"", "-wal", "-shm"} {
			if err := s.files.move(indexName+suffix, aside+suffix); err != nil {
				return err
			}
		}
		if err := s.ownIndex(); err != nil {
			return err
		}
		x, err = openIndex(s.ctx, dir, s.cfg.Durable)
	}
	s.index = x
	return err
}

// ownIndex makes the index file, if there is none, before SQLite makes one that
// everybody can read; the files beside it take over its mode.
func (s *Service) ownIndex() error {
	f, err := s.files.root.OpenFile(indexName, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("%w: index: %w", ErrConfig, err)
	}
	return f.Close()
}

// Handler serves the API. It keeps answering after Close, with 503.
func (s *Service) Handler() http.Handler { return s.handler }

// Close ends the event streams, lets other requests finish for up to five
// seconds, cuts off those that are left, and releases the storage root. It may
// be called more than once; every call waits.
func (s *Service) Close() error {
	s.mu.Lock()
	first := !s.closing
	s.closing = true
	s.mu.Unlock()
	if !first {
		<-s.closed
		return s.err
	}
	s.stopBackground()
	s.events.close()
	grace := time.AfterFunc(closeGrace, s.cancel)
	s.active.Wait()
	grace.Stop()
	s.cancel()
	s.loops.Wait()
	s.err = s.release()
	close(s.closed)
	return s.err
}

// enter counts a request in, unless the service is closing.
func (s *Service) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.active.Add(1)
	return true
}

// release gives back what Open took, in the opposite order. Nothing else runs.
func (s *Service) release() error {
	var errs []error
	if s.writer != nil {
		if err := s.flusher.flush(true); err != nil {
			errs = append(errs, err)
		}
		errs = append(errs, s.writer.stop())
	}
	if s.index != nil {
		errs = append(errs, s.index.close())
	}
	for _, f := range []*os.File{s.lock, s.files.dir} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	if s.files.root != nil {
		errs = append(errs, s.files.root.Close())
	}
	return errors.Join(errs...)
}

// changed is called by the writer after the commit that turned old into a; old
// is nil for a new asset.
func (s *Service) changed(old, a *asset) {
	was := old != nil && old.listable()
	is := a.listable()
	switch {
	case is && !was:
		s.live.Add(1)
	case was && !is:
		s.live.Add(-1)
	}
	switch {
	case old != nil && (was != is || was && old.Timestamp != a.Timestamp):
		s.pages.changed(old.Timestamp, a.Timestamp)
	case was != is:
		s.pages.changed(a.Timestamp)
	}
	kind := eventChanged
	switch {
	case is && !was:
		kind = eventNew
	case was && !is:
		kind = eventTrashed
	}
	s.events.publish(kind, cursor{epoch: s.index.epoch, seq: a.seq}, a)
}
