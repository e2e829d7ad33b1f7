package badger

import (
	"bytes"
	"context"
	"errors"

	ds "github.com/ipfs/go-datastore"

	"github.com/cansync/cansync/store"
)

// Batch implements go-datastore's Batching. A batch is held in memory until
// Commit, which splits it into as many transactions as it needs.
func (s *Store) Batch(ctx context.Context) (ds.Batch, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	s.gate.leave()
	return &batch{s: s}, nil
}

type batch struct {
	s  *Store
	ws []write
}

// write is a change of one key.
type write struct {
	key   ds.Key
	value []byte
	gone  bool
}

func (b *batch) Put(ctx context.Context, key ds.Key, value []byte) error {
	return b.add(ctx, write{key: keyOf(key), value: bytes.Clone(value)})
}

func (b *batch) Delete(ctx context.Context, key ds.Key) error {
	return b.add(ctx, write{key: keyOf(key), gone: true})
}

func (b *batch) add(ctx context.Context, w write) error {
	if err := b.s.enter(ctx); err != nil {
		return err
	}
	defer b.s.gate.leave()
	if err := checkSize(w.key, w.value); err != nil {
		return err
	}
	b.ws = append(b.ws, w)
	return nil
}

// Commit writes the batch. After an error the rest may be committed again.
func (b *batch) Commit(ctx context.Context) error {
	if err := b.s.enter(ctx); err != nil {
		return err
	}
	b.s.gate.leave()
	for len(b.ws) > 0 {
		n, err := b.some(ctx)
		if err != nil {
			return err
		}
		b.ws = b.ws[n:]
	}
	b.ws = nil
	return nil
}

// some commits as much from the front as fits into a transaction.
func (b *batch) some(ctx context.Context) (n int, err error) {
	tx, err := b.s.NewTransaction(ctx, false)
	if err != nil {
		return 0, err
	}
	t := tx.(*txn)
	defer t.Discard(ctx)
	for _, w := range b.ws {
		if w.gone {
			err = t.Delete(ctx, w.key)
		} else {
			err = t.Put(ctx, w.key, w.value)
		}
		if errors.Is(err, store.ErrTooLarge) && n > 0 {
			t.failed = nil // what came before is complete in itself
			break
		}
		if err != nil {
			return 0, err
		}
		n++
	}
	return n, t.Commit(ctx)
}
