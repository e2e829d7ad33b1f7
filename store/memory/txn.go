package memory

import (
	"context"
	"sync"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"

	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/store/internal/scan"
)

// NewTransaction implements go-datastore's TxnDatastore.
func (s *Store) NewTransaction(ctx context.Context, readOnly bool) (ds.Txn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	t := &txn{s: s, view: s.tree.Copy(), start: s.version, readOnly: readOnly}
	if !readOnly {
		t.reads, t.writes = make(map[string]struct{}), make(map[string]write)
		s.open[t] = struct{}{}
	}
	return t, nil
}

// txn is a transaction: a copy of the tree that its own writes change, and the
// keys read and written.
type txn struct {
	s        *Store
	start    uint64
	readOnly bool

	// mu is there because results of a query that are read from their channel
	// are fetched by another goroutine. It is taken before the store's.
	mu     sync.Mutex
	view   *tree
	reads  map[string]struct{}
	writes map[string]write
	bytes  int
	done   bool
	failed error // why Commit must fail
}

var _ ds.Txn = (*txn)(nil)

// check returns why the transaction cannot be used. Callers hold t.mu.
func (t *txn) check(ctx context.Context) error {
	t.s.mu.RLock()
	err := t.s.check(ctx)
	t.s.mu.RUnlock()
	if err == nil && t.done {
		return store.ErrDone
	}
	return err
}

// read notes that the transaction depends on the key as it was at the start.
// Callers hold t.mu.
func (t *txn) read(key string) {
	if t.readOnly {
		return
	}
	if _, own := t.writes[key]; !own {
		t.reads[key] = struct{}{}
	}
}

func (t *txn) Get(ctx context.Context, key ds.Key) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.check(ctx); err != nil {
		return nil, err
	}
	t.read(keyOf(key))
	return get(t.view, key)
}

func (t *txn) Has(ctx context.Context, key ds.Key) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.check(ctx); err != nil {
		return false, err
	}
	t.read(keyOf(key))
	_, ok := t.view.Get(item{key: keyOf(key)})
	return ok, nil
}

func (t *txn) GetSize(ctx context.Context, key ds.Key) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.check(ctx); err != nil {
		return -1, err
	}
	t.read(keyOf(key))
	return size(t.view, key)
}

// Query shows the transaction's view as of the call.
func (t *txn) Query(ctx context.Context, q query.Query) (query.Results, error) {
	t.mu.Lock()
	if err := t.check(ctx); err != nil {
		t.mu.Unlock()
		return nil, err
	}
	snap := t.view.Copy()
	t.mu.Unlock()
	return scan.Query(ctx, q, func(r scan.Range) (scan.Cursor, error) {
		return newCursor(t.s, t, snap, r), nil
	})
}

func (t *txn) Put(ctx context.Context, key ds.Key, value []byte) error {
	return t.put(ctx, write{key: keyOf(key), value: value})
}

func (t *txn) Delete(ctx context.Context, key ds.Key) error {
	return t.put(ctx, write{key: keyOf(key), gone: true})
}

func (t *txn) put(ctx context.Context, w write) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.check(ctx); err != nil {
		return err
	}
	if t.readOnly {
		return store.ErrReadOnly
	}
	if t.failed != nil {
		return t.failed
	}
	n := len(w.key) + len(w.value)
	if len(w.key) > store.MaxKey || len(w.value) > store.MaxValue || len(t.writes) >= MaxTxnEntries || t.bytes+n > MaxTxnBytes {
		t.failed = store.ErrTooLarge
		return t.failed
	}
	if !w.gone {
		w.value = clone(w.value)
	}
	t.bytes += n
	t.writes[w.key] = w
	w.to(t.view)
	return nil
}

func (t *txn) Commit(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.check(ctx); err != nil {
		return err
	}
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(ctx); err != nil {
		return err
	}
	t.end()
	if t.failed != nil {
		return t.failed
	}
	if len(t.writes) == 0 {
		return nil
	}
	for k := range t.reads {
		if s.written[k] > t.start {
			return store.ErrConflict
		}
	}
	ws := make([]write, 0, len(t.writes))
	for _, w := range t.writes {
		ws = append(ws, w)
	}
	s.write(ws)
	return nil
}

// end takes the transaction off the store's list. Callers hold s.mu.
func (t *txn) end() {
	t.done = true
	t.view = nil
	delete(t.s.open, t)
}

func (t *txn) Discard(context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done {
		return
	}
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.end()
	t.s.forget()
}
