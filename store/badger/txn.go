package badger

import (
	"bytes"
	"context"
	"errors"
	"sync"

	badgerdb "github.com/dgraph-io/badger/v4"
	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"

	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/store/internal/scan"
)

// NewTransaction implements go-datastore's TxnDatastore. A transaction holds
// about 1.2 MiB or 12,000 writes, whichever is reached first. One that is neither
// committed nor discarded keeps old versions on disk until Close.
func (s *Store) NewTransaction(ctx context.Context, readOnly bool) (ds.Txn, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.gate.leave()
	return s.begin(readOnly), nil
}

// begin starts a transaction. Callers are inside the gate.
func (s *Store) begin(readOnly bool) *txn {
	t := &txn{s: s, readOnly: readOnly, t: s.db.NewTransaction(!readOnly)}
	s.mu.Lock()
	s.live[t] = struct{}{}
	s.mu.Unlock()
	return t
}

// txn is a transaction, or the snapshot behind a query.
type txn struct {
	s        *Store
	readOnly bool

	// mu is there because results of a query that are read from their channel
	// are fetched by another goroutine.
	mu     sync.Mutex
	t      *badgerdb.Txn // nil when ended
	failed error         // why Commit must fail
	bytes  int           // written so far
}

var _ store.EarlyTxn = (*txn)(nil)

// enter begins a call; after a nil error leave must follow.
func (t *txn) enter(ctx context.Context) error {
	if err := t.s.enter(ctx); err != nil {
		return err
	}
	t.mu.Lock()
	if t.t == nil {
		t.leave()
		return store.ErrDone
	}
	return nil
}

func (t *txn) leave() {
	t.mu.Unlock()
	t.s.gate.leave()
}

func (t *txn) Get(ctx context.Context, key ds.Key) ([]byte, error) {
	if err := t.enter(ctx); err != nil {
		return nil, err
	}
	defer t.leave()
	item, err := t.t.Get(keyOf(key).Bytes())
	if err != nil {
		return nil, mapError(err)
	}
	v, err := item.ValueCopy(nil)
	if err != nil {
		return nil, mapError(err)
	}
	return notNil(v), nil
}

func (t *txn) Has(ctx context.Context, key ds.Key) (bool, error) {
	if err := t.enter(ctx); err != nil {
		return false, err
	}
	defer t.leave()
	_, err := t.t.Get(keyOf(key).Bytes())
	if errors.Is(err, badgerdb.ErrKeyNotFound) {
		return false, nil
	}
	return err == nil, mapError(err)
}

func (t *txn) GetSize(ctx context.Context, key ds.Key) (int, error) {
	if err := t.enter(ctx); err != nil {
		return -1, err
	}
	defer t.leave()
	return getSize(t.t, key)
}

// Query sees the writes made before it; of those made while its results are
// read it sees some.
func (t *txn) Query(ctx context.Context, q query.Query) (query.Results, error) {
	if err := t.enter(ctx); err != nil {
		return nil, err
	}
	t.leave()
	return scan.Query(ctx, q, func(r scan.Range) (scan.Cursor, error) {
		return newCursor(t, r, false), nil
	})
}

// Query implements go-datastore's Read. The results show the store as it was
// when Query was called; results that are not read to the end must be closed.
func (s *Store) Query(ctx context.Context, q query.Query) (query.Results, error) {
	return scan.Query(ctx, q, func(r scan.Range) (scan.Cursor, error) {
		if err := s.enter(ctx); err != nil {
			return nil, err
		}
		defer s.gate.leave()
		return newCursor(s.begin(true), r, true), nil
	})
}

func (t *txn) Put(ctx context.Context, key ds.Key, value []byte) error {
	key = keyOf(key)
	return t.write(ctx, key, value, func(b *badgerdb.Txn) error {
		return b.Set(key.Bytes(), bytes.Clone(value))
	})
}

func (t *txn) Delete(ctx context.Context, key ds.Key) error {
	key = keyOf(key)
	return t.write(ctx, key, nil, func(b *badgerdb.Txn) error { return b.Delete(key.Bytes()) })
}

func (t *txn) write(ctx context.Context, key ds.Key, value []byte, do func(*badgerdb.Txn) error) error {
	if err := t.enter(ctx); err != nil {
		return err
	}
	defer t.leave()
	if t.readOnly {
		return store.ErrReadOnly
	}
	if t.failed != nil {
		return t.failed
	}
	err := checkSize(key, value)
	if err == nil {
		err = mapError(do(t.t))
	}
	if err != nil {
		t.failed = err // badger would commit what came before
		return err
	}
	t.bytes += len(key.String()) + len(value)
	return nil
}

// Commit returns when the writes are on disk, or none of them will be; only an
// error of the disk leaves that open. Others may see the writes a little before.
// ctx is looked at before, not while.
func (t *txn) Commit(ctx context.Context) error { return t.commit(ctx, t.s.durable) }

// CommitEarly implements [store.EarlyTxn]: any round that begins later syncs all logs
// that hold the writes.
func (t *txn) CommitEarly(ctx context.Context) error { return t.commit(ctx, mapError) }

func (t *txn) commit(ctx context.Context, settle func(error) error) error {
	if err := t.enter(ctx); err != nil {
		return err
	}
	defer t.leave()
	if t.failed != nil {
		t.end()
		return t.failed
	}
	if t.bytes == 0 {
		t.end()
		return nil
	}
	if err := t.s.allow(t.bytes); err != nil {
		t.end()
		return err
	}
	err := t.t.Commit()
	t.end()
	return settle(err)
}

// Discard may be called at any time, also after Commit and after Close.
func (t *txn) Discard(context.Context) {
	if !t.s.gate.enter() {
		return // Close ends all transactions
	}
	defer t.s.gate.leave()
	t.drop()
}

func (t *txn) drop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.t != nil {
		t.end()
	}
}

// end gives up the snapshot. Callers hold t.mu.
func (t *txn) end() {
	t.t.Discard()
	t.t = nil
	t.s.mu.Lock()
	delete(t.s.live, t)
	t.s.mu.Unlock()
}
