// Package kv holds the few things that everything kept in a store.Store needs:
// keys of binary parts, transactions that are tried again after a conflict, and
// ordered iteration.
package kv

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"strings"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"

	"github.com/cansync/cansync/store"
)

// enc keeps the byte order of what it encodes, so that cursors work: its digits
// ascend, and all of them are above the slash.
var enc = base64.NewEncoding("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~").
	WithPadding(base64.NoPadding).Strict()

// Key joins text parts with slashes. The parts must not be empty or hold a slash.
func Key(parts ...string) ds.Key { return ds.RawKey("/" + strings.Join(parts, "/")) }

// Bin returns b as a key part that sorts as the bytes do.
func Bin(b []byte) string { return enc.EncodeToString(b) }

// AppendBin appends [Bin] of b to dst.
func AppendBin(dst, b []byte) []byte { return enc.AppendEncode(dst, b) }

// ParseBin is the inverse of [Bin].
func ParseBin(s string) ([]byte, error) { return enc.DecodeString(s) }

// Last32 returns the 32 bytes that the last part of the key stands for.
func Last32(key string) (v [32]byte, err error) {
	last := key[strings.LastIndexByte(key, '/')+1:]
	if len(last) == enc.EncodedLen(len(v)) {
		var text [43]byte
		copy(text[:], last)
		if _, err := enc.Decode(v[:], text[:]); err == nil {
			return v, nil
		}
	}
	return [32]byte{}, fmt.Errorf("kv: key %q does not end in 32 bytes", key)
}

const conflictTries = 8

// Update runs fn in a transaction and commits it. After a conflict it runs fn
// again from the start, a few times; fn must not keep what it read before.
func Update(ctx context.Context, s store.Store, fn func(ds.Txn) error) error {
	return again(func() error { return once(ctx, s, fn, func(t ds.Txn) error { return t.Commit(ctx) }) })
}

// UpdateEarly is Update, but where the store can it returns as soon as the writes are
// seen: see [store.EarlyTxn]. It then reports true, and they are durable after [Sync]
// or any other write; a power cut before that loses them.
func UpdateEarly(ctx context.Context, s store.Store, fn func(ds.Txn) error) (early bool, err error) {
	err = again(func() error {
		return once(ctx, s, fn, func(t ds.Txn) error {
			if e, ok := t.(store.EarlyTxn); ok {
				early = true
				return e.CommitEarly(ctx)
			}
			return t.Commit(ctx)
		})
	})
	return early, err
}

// Sync returns when all that can be seen in the store now is durable.
func Sync(ctx context.Context, s store.Store) error { return s.Sync(ctx, ds.RawKey("/")) }

func again(do func() error) error {
	for try := 0; ; try++ {
		err := do()
		if !errors.Is(err, store.ErrConflict) || try == conflictTries {
			return err
		}
	}
}

func once(ctx context.Context, s store.Store, fn, commit func(ds.Txn) error) error {
	txn, err := s.NewTransaction(ctx, false)
	if err != nil {
		return err
	}
	defer txn.Discard(ctx)
	if err := fn(txn); err != nil {
		return err
	}
	return commit(txn)
}

// Get returns the value of the key, or nil when it is absent.
func Get(ctx context.Context, r ds.Read, key ds.Key) ([]byte, error) {
	v, err := r.Get(ctx, key)
	if errors.Is(err, ds.ErrNotFound) {
		return nil, nil
	}
	return v, err
}

// Scan yields the keys below prefix and their values in ascending order, as of
// one moment. With keysOnly the values are nil.
func Scan(ctx context.Context, r ds.Read, prefix ds.Key, keysOnly bool) iter.Seq2[query.Entry, error] {
	return scan(ctx, r, query.Query{Prefix: prefix.String(), KeysOnly: keysOnly})
}

// ScanFrom is [Scan] from a key on. Stores of this module go there at once; another
// may read what comes before as well.
func ScanFrom(ctx context.Context, r ds.Read, prefix, from ds.Key) iter.Seq2[query.Entry, error] {
	return scan(ctx, r, query.Query{
		Prefix:  prefix.String(),
		Filters: []query.Filter{query.FilterKeyCompare{Op: query.GreaterThanOrEqual, Key: from.String()}},
	})
}

func scan(ctx context.Context, r ds.Read, q query.Query) iter.Seq2[query.Entry, error] {
	q.Orders = []query.Order{query.OrderByKey{}}
	return func(yield func(query.Entry, error) bool) {
		res, err := r.Query(ctx, q)
		if err != nil {
			yield(query.Entry{}, err)
			return
		}
		defer func() { _ = res.Close() }()
		for {
			if err := ctx.Err(); err != nil {
				yield(query.Entry{}, err)
				return
			}
			e, ok := res.NextSync()
			if !ok {
				return
			}
			if !yield(e.Entry, e.Error) || e.Error != nil {
				return
			}
		}
	}
}
