package badger

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	badgerdb "github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	badger4 "github.com/ipfs/go-ds-badger4"

	"github.com/cansync/cansync/store"
)

// Sizes that decide memory and disk use. A memtable takes 1.3 times its size in
// memory; there is one in use and at most two on their way to disk, 32 MiB
// together. While 100,000 records are loaded at full speed the process takes about 100 MiB of anonymous memory with the collector's default
// settings, less with GOMEMLIMIT, and a few when idle. A larger memtable would
// allow larger transactions, at that price.
const (
	memTableSize  = 8 << 20
	valueLogSize  = 32 << 20
	numMemtables  = 1
	largeValue    = 1 << 20 // from here on badger uses the value log; see store.MaxValue
	numCompactors = 2
)

// Open opens the store in dir, and makes it where there is none. The directory
// gets mode 0700. Errors match [store.ErrLocked] when a store is open there,
// [store.ErrNoSpace] when the disk is too full to open safely, and
// [store.ErrCorrupt] when the files are damaged.
func Open(dir string, opts Options) (*Store, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Reserve == 0 {
		opts.Reserve = DefaultReserve
	}
	if opts.IdleAfter <= 0 {
		opts.IdleAfter = 30 * time.Second
	}
	if opts.tick <= 0 {
		opts.tick = 5 * time.Second
	}
	if opts.free == nil {
		opts.free = freeSpace
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, mapError(err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	g := newGuard(dir, opts)
	if err := g.open(); err != nil {
		return nil, err
	}
	bridge := &logBridge{log: opts.Logger}
	db, err := badgerdb.Open(settings(dir).WithLogger(bridge))
	if err != nil {
		return nil, mapError(err)
	}
	if err := verify(db, bridge, opts); err != nil {
		_ = db.Close()
		return nil, err
	}
	s := &Store{
		dir: dir, log: opts.Logger, db: db, guard: g, opts: opts,
		sync:   newSyncer(dir, db.Sync, opts.fast),
		point:  &badger4.Datastore{DB: db},
		live:   make(map[*txn]struct{}),
		stop:   make(chan struct{}),
		closer: make(chan struct{}, 1),
	}
	s.closer <- struct{}{}
	s.idle.rewritten.Store(startRewritten(db))
	s.tighten()
	g.probe(time.Now())
	s.joined.Go(s.maintain)
	s.joined.Go(func() { s.sync.run(s.stop) })
	return s, nil
}

// settings are badger's own options.
func settings(dir string) badgerdb.Options {
	o := badgerdb.DefaultOptions(dir)
	o.SyncWrites = false // see syncer
	o.VerifyValueChecksum = true
	o.ChecksumVerificationMode = options.OnBlockRead
	o.DetectConflicts = true
	o.MetricsEnabled = false // they are process-wide
	o.MemTableSize = memTableSize
	o.NumMemtables = numMemtables
	o.ValueLogFileSize = valueLogSize
	o.ValueThreshold = largeValue
	// Records are hashes and signatures for the most part, of which compression
	// makes little. Plain blocks are read where they are mapped: a cache would hold
	// them twice, and reading everything once, as verify does, is of no use to one.
	o.Compression = options.None
	o.BlockCacheSize = 0
	o.IndexCacheSize = 0 // indexes are about 1 % of the data, and mapped
	o.NumCompactors = numCompactors
	return o
}

// verify looks for damage that badger would pass over in silence.
func verify(db *badgerdb.DB, bridge *logBridge, opts Options) (err error) {
	if bridge.ignored.Load() {
		return fmt.Errorf("%w: a table could not be read", store.ErrCorrupt)
	}
	if opts.SkipVerify {
		return nil
	}
	defer func() {
		// Badger v4.9.6 follows a nil pointer after a checksum that is wrong.
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: a table has a wrong checksum", store.ErrCorrupt)
		}
	}()
	if err := db.VerifyChecksum(); err != nil {
		return fmt.Errorf("%w: %w", store.ErrCorrupt, err)
	}
	return nil
}

// tighten takes the rights of others from badger's files. The directory, 0700
// from the start, is what protects new ones until then.
func (s *Store) tighten() {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
			_ = os.Chmod(filepath.Join(s.dir, e.Name()), 0o600)
		}
	}
}
