// Package memory keeps a store in memory, ordered and with transactions. It is
// for tests, also in virtual time, and for nodes that need not survive a restart.
package memory

import (
	"bytes"
	"context"
	"sync"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	"github.com/tidwall/btree"

	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/store/internal/scan"
)

// Limits of one transaction; beyond, it fails with [store.ErrTooLarge]. They are
// near those of the persistent default, so that a caller which forgets to split
// is found by its tests.
const (
	// MaxTxnEntries is the largest number of writes in one transaction.
	MaxTxnEntries = 10_000
	// MaxTxnBytes is the largest sum of the sizes of keys and values written by
	// one transaction.
	MaxTxnBytes = 1200 << 10
)

type item struct {
	key   string
	value []byte
}

// tree is an ordered map that is copied on write: a copy costs nothing until
// one of the two changes.
type tree = btree.BTreeG[item]

func newTree() *tree {
	less := func(a, b item) bool { return a.key < b.key }
	return btree.NewBTreeGOptions(less, btree.Options{NoLocks: true})
}

// Store is a store in memory. It is safe for concurrent use, starts no goroutine,
// and never blocks for long.
type Store struct {
	mu      sync.RWMutex
	tree    *tree
	closed  bool
	version uint64
	// open holds the writing transactions, and written the version of each key
	// written while one of them was open: what is needed to detect conflicts.
	open    map[*txn]struct{}
	written map[string]uint64
	prune   int // size of written at which old versions are looked for
}

var (
	_ store.Store            = (*Store)(nil)
	_ ds.PersistentDatastore = (*Store)(nil)
)

// New returns an empty store.
func New() *Store {
	return &Store{tree: newTree(), open: make(map[*txn]struct{}), written: make(map[string]uint64), prune: minPrune}
}

const minPrune = 1024

func keyOf(k ds.Key) string {
	if s := k.String(); s != "" {
		return s
	}
	return "/"
}

// check returns the error of ctx, or ErrClosed. Callers hold mu.
func (s *Store) check(ctx context.Context) error {
	if s.closed {
		return store.ErrClosed
	}
	return ctx.Err()
}

// Get implements go-datastore's Read.
func (s *Store) Get(ctx context.Context, key ds.Key) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	return get(s.tree, key)
}

func get(t *tree, key ds.Key) ([]byte, error) {
	it, ok := t.Get(item{key: keyOf(key)})
	if !ok {
		return nil, ds.ErrNotFound
	}
	return clone(it.value), nil
}

// clone copies a value; an empty one becomes a slice that is not nil.
func clone(b []byte) []byte { return append(make([]byte, 0, len(b)), b...) }

// Has implements go-datastore's Read.
func (s *Store) Has(ctx context.Context, key ds.Key) (bool, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.check(ctx); err != nil {
		return false, err
	}
	_, ok := s.tree.Get(item{key: keyOf(key)})
	return ok, nil
}

// GetSize implements go-datastore's Read.
func (s *Store) GetSize(ctx context.Context, key ds.Key) (int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.check(ctx); err != nil {
		return -1, err
	}
	return size(s.tree, key)
}

func size(t *tree, key ds.Key) (int, error) {
	it, ok := t.Get(item{key: keyOf(key)})
	if !ok {
		return -1, ds.ErrNotFound
	}
	return len(it.value), nil
}

// Query implements go-datastore's Read. The results show the store as it was
// when Query was called.
func (s *Store) Query(ctx context.Context, q query.Query) (query.Results, error) {
	s.mu.Lock()
	if err := s.check(ctx); err != nil {
		s.mu.Unlock()
		return nil, err
	}
	snap := s.tree.Copy()
	s.mu.Unlock()
	return scan.Query(ctx, q, func(r scan.Range) (scan.Cursor, error) {
		return newCursor(s, nil, snap, r), nil
	})
}

// Put implements go-datastore's Write.
func (s *Store) Put(ctx context.Context, key ds.Key, value []byte) error {
	k := keyOf(key)
	if len(k) > store.MaxKey || len(value) > store.MaxValue {
		return store.ErrTooLarge
	}
	return s.apply(ctx, []write{{key: k, value: clone(value)}})
}

// Delete implements go-datastore's Write.
func (s *Store) Delete(ctx context.Context, key ds.Key) error {
	return s.apply(ctx, []write{{key: keyOf(key), gone: true}})
}

// write is a change of one key.
type write struct {
	key   string
	value []byte
	gone  bool
}

func (w write) to(t *tree) {
	if w.gone {
		t.Delete(item{key: w.key})
	} else {
		t.Set(item{key: w.key, value: w.value})
	}
}

func (s *Store) apply(ctx context.Context, ws []write) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(ctx); err != nil {
		return err
	}
	s.write(ws)
	return nil
}

// write changes the tree. Callers hold mu.
func (s *Store) write(ws []write) {
	s.version++
	for _, w := range ws {
		w.to(s.tree)
		if len(s.open) > 0 {
			s.written[w.key] = s.version
		}
	}
	s.forget()
}

// forget drops what no open transaction can conflict with. Callers hold mu.
func (s *Store) forget() {
	if len(s.open) == 0 {
		if len(s.written) > 0 {
			s.written, s.prune = make(map[string]uint64), minPrune
		}
		return
	}
	if len(s.written) < s.prune {
		return
	}
	oldest := s.version
	for t := range s.open {
		oldest = min(oldest, t.start)
	}
	for k, v := range s.written {
		if v <= oldest {
			delete(s.written, k)
		}
	}
	s.prune = max(minPrune, 2*len(s.written))
}

// Sync implements go-datastore's Datastore; nothing is buffered.
func (s *Store) Sync(ctx context.Context, _ ds.Key) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.check(ctx)
}

// DiskUsage returns the bytes held by keys and values.
func (s *Store) DiskUsage(ctx context.Context) (uint64, error) {
	s.mu.Lock()
	if err := s.check(ctx); err != nil {
		s.mu.Unlock()
		return 0, err
	}
	snap := s.tree.Copy()
	s.mu.Unlock()
	var n uint64
	snap.Scan(func(it item) bool {
		n += uint64(len(it.key) + len(it.value))
		return true
	})
	return n, nil
}

// Batch implements go-datastore's Batching. The batch is applied as a whole.
func (s *Store) Batch(ctx context.Context) (ds.Batch, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	return &batch{s: s}, nil
}

// Close drops the contents. It may be called more than once.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.tree = newTree()
	clear(s.open)
	clear(s.written)
	return nil
}

// batch collects writes. Like a transaction, it is used by one goroutine, but
// has no limit.
type batch struct {
	s  *Store
	ws []write
}

func (b *batch) Put(ctx context.Context, key ds.Key, value []byte) error {
	k := keyOf(key)
	if len(k) > store.MaxKey || len(value) > store.MaxValue {
		return store.ErrTooLarge
	}
	return b.add(ctx, write{key: k, value: bytes.Clone(value)})
}

func (b *batch) Delete(ctx context.Context, key ds.Key) error {
	return b.add(ctx, write{key: keyOf(key), gone: true})
}

func (b *batch) add(ctx context.Context, w write) error {
	b.s.mu.RLock()
	err := b.s.check(ctx)
	b.s.mu.RUnlock()
	if err == nil {
		b.ws = append(b.ws, w)
	}
	return err
}

func (b *batch) Commit(ctx context.Context) error {
	err := b.s.apply(ctx, b.ws)
	if err == nil {
		b.ws = nil
	}
	return err
}
