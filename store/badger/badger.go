// Package badger keeps a store in a directory, with badger.
//
// It is opened for durability and a small footprint: every commit is synced
// before it is acknowledged (concurrent commits share a sync), checksums are
// verified, and writes are refused with [store.ErrNoSpace] while the disk has
// less free space than a reserve. The last is not a courtesy: badger writes
// through memory maps, and a full disk would kill the process with SIGBUS.
//
// Keys and values are laid out as go-ds-badger4 does, so that a database written
// by either opens with the other. Queries, transactions and batches are our own
// on top of badger: those of go-ds-badger4 return nothing for a descending query
// with a prefix, hold locks while results are open, commit what was left of a
// transaction after it grew too large, and log to a process-wide logger.
package badger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	badgerdb "github.com/dgraph-io/badger/v4"
	ds "github.com/ipfs/go-datastore"
	badger4 "github.com/ipfs/go-ds-badger4"

	"github.com/cansync/cansync/store"
)

// DefaultReserve is the free disk space below which writes are refused, in bytes.
const DefaultReserve = max(512<<20, 4*(memTableSize+valueLogSize))

// Options of a store. The zero value is good.
type Options struct {
	// Logger receives what the store and badger have to say; nil discards it.
	Logger *slog.Logger
	// Reserve is the free disk space, in bytes, below which writes are refused
	// with [store.ErrNoSpace]. 0 means [DefaultReserve]. With less than four
	// times the memtable (32 MiB) another process that fills the disk can bring
	// down this one.
	Reserve uint64
	// SkipVerify leaves out reading all tables on open to verify their checksums,
	// which takes about a second per gigabyte. Badger takes a damaged block for an
	// absent key.
	SkipVerify bool
	// IdleAfter is how long there must have been no write before the store
	// compacts itself, if enough was rewritten; 0 means 30 seconds.
	IdleAfter time.Duration

	free func(dir string) (uint64, error) // replaced by tests
	tick time.Duration                    // between looks at the disk; 0 means 5 seconds
	fast bool                             // does not sync; for tests of everything else
}

// Store is a store in a directory. It is safe for concurrent use.
type Store struct {
	dir   string
	log   *slog.Logger
	db    *badgerdb.DB
	point *badger4.Datastore // reads and writes of single keys
	gate  gate
	guard *guard
	sync  *syncer
	opts  Options

	mu   sync.Mutex
	live map[*txn]struct{} // transactions that hold a snapshot

	idle   idle
	stop   chan struct{}
	joined sync.WaitGroup
	closer chan struct{} // holds a token while nobody closes
	closed bool          // badger is closed; guarded by the token
}

var (
	_ store.Store            = (*Store)(nil)
	_ store.SpaceReporter    = (*Store)(nil)
	_ ds.PersistentDatastore = (*Store)(nil)
)

func keyOf(k ds.Key) ds.Key {
	if k.String() == "" {
		return ds.RawKey("/")
	}
	return k
}

// enter begins a call: it fails when the store is closed or ctx has ended.
func (s *Store) enter(ctx context.Context) error {
	if !s.gate.enter() {
		return store.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		s.gate.leave()
		return err
	}
	return nil
}

// Get implements go-datastore's Read.
func (s *Store) Get(ctx context.Context, key ds.Key) ([]byte, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.gate.leave()
	v, err := s.point.Get(ctx, keyOf(key))
	if err != nil {
		return nil, mapError(err)
	}
	return notNil(v), nil
}

// notNil makes an empty value one that is not nil.
func notNil(v []byte) []byte {
	if v == nil {
		return []byte{}
	}
	return v
}

// Has implements go-datastore's Read.
func (s *Store) Has(ctx context.Context, key ds.Key) (bool, error) {
	if err := s.enter(ctx); err != nil {
		return false, err
	}
	defer s.gate.leave()
	ok, err := s.point.Has(ctx, keyOf(key))
	return ok, mapError(err)
}

// GetSize implements go-datastore's Read.
func (s *Store) GetSize(ctx context.Context, key ds.Key) (int, error) {
	if err := s.enter(ctx); err != nil {
		return -1, err
	}
	defer s.gate.leave()
	t := s.db.NewTransaction(false)
	defer t.Discard()
	return getSize(t, key)
}

func getSize(t *badgerdb.Txn, key ds.Key) (int, error) {
	item, err := t.Get(keyOf(key).Bytes())
	if err != nil {
		return -1, mapError(err)
	}
	n, err := sizeOf(item)
	if err != nil {
		return -1, mapError(err)
	}
	return n, nil
}

// sizeOf returns the size of a value. Of those in the value log badger knows it
// only roughly, and of those that the transaction wrote itself not at all.
func sizeOf(item *badgerdb.Item) (int, error) {
	n := int(item.ValueSize())
	if n > 0 && n < largeValue-64 {
		return n, nil
	}
	err := item.Value(func(v []byte) error {
		n = len(v)
		return nil
	})
	return n, err
}

// Put implements go-datastore's Write. It returns when the value is on disk.
func (s *Store) Put(ctx context.Context, key ds.Key, value []byte) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.gate.leave()
	key = keyOf(key)
	if err := checkSize(key, value); err != nil {
		return err
	}
	n := len(key.String()) + len(value)
	if err := s.allow(n); err != nil {
		return err
	}
	return s.durable(s.point.Put(ctx, key, value))
}

// allow says whether n bytes may be written now.
func (s *Store) allow(n int) error {
	if err := s.sync.broken(); err != nil {
		return err
	}
	if err := s.guard.allow(n); err != nil {
		return err
	}
	s.idle.wrote(n)
	return nil
}

// durable waits until what was written with the given outcome is on disk.
func (s *Store) durable(err error) error {
	if err != nil {
		return mapError(err)
	}
	return s.sync.wait()
}

func checkSize(key ds.Key, value []byte) error {
	if n := len(key.String()); n > store.MaxKey {
		return fmt.Errorf("%w: a key of %d bytes, at most %d", store.ErrTooLarge, n, store.MaxKey)
	}
	if len(value) > store.MaxValue {
		return fmt.Errorf("%w: a value of %d bytes, at most %d", store.ErrTooLarge, len(value), store.MaxValue)
	}
	return nil
}

// Delete implements go-datastore's Write.
func (s *Store) Delete(ctx context.Context, key ds.Key) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.gate.leave()
	key = keyOf(key)
	if err := checkSize(key, nil); err != nil {
		return err
	}
	n := len(key.String())
	if err := s.allow(n); err != nil {
		return err
	}
	return s.durable(s.point.Delete(ctx, key))
}

// Sync implements go-datastore's Datastore. It returns when all that could be seen
// before is on disk, also what an early commit wrote and a commit under way.
func (s *Store) Sync(ctx context.Context, _ ds.Key) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.gate.leave()
	return s.sync.wait()
}

// DiskUsage returns the size of badger's tables and value log, in bytes, as of
// the last minute.
func (s *Store) DiskUsage(ctx context.Context) (uint64, error) {
	if err := s.enter(ctx); err != nil {
		return 0, err
	}
	defer s.gate.leave()
	n, err := s.point.DiskUsage(ctx)
	return n, mapError(err)
}

// Space implements [store.SpaceReporter].
func (s *Store) Space() (free, reserve uint64, err error) {
	free, err = s.opts.free(s.dir)
	return free, s.opts.Reserve, err
}

// Close waits for the calls under way, ends all transactions and closes the
// files. When the disk is too full to do that safely, it fails with
// [store.ErrNoSpace]: the store is out of use, nothing is lost, and Close may be
// tried again when there is space.
func (s *Store) Close() error {
	s.gate.close()
	<-s.closer
	defer func() { s.closer <- struct{}{} }()
	if s.closed {
		return nil
	}
	select {
	case <-s.stop:
	default:
		close(s.stop)
	}
	s.joined.Wait()
	s.mu.Lock()
	live := s.live
	s.live = make(map[*txn]struct{})
	s.mu.Unlock()
	for t := range live {
		t.drop()
	}
	if err := s.guard.close(); err != nil {
		return err
	}
	s.closed = true
	err := s.db.Close()
	s.tighten()
	if err != nil && !errors.Is(err, badgerdb.ErrDBClosed) {
		return mapError(err)
	}
	return nil
}
