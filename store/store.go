// Package store says what cansync needs of the database that holds its records
// and its queue: a go-datastore with batches and transactions.
//
// The default is package store/badger; store/memory is for tests and for nodes
// that need not survive a restart. Package storetest holds the suite that every
// implementation must pass.
package store

import (
	"context"
	"errors"

	ds "github.com/ipfs/go-datastore"
)

// Store is a datastore with batches and transactions. What cansync relies on,
// beyond what go-datastore says, is checked by package storetest:
//
//   - a committed transaction is durable, visible as a whole or not at all, also
//     after the process was killed at any moment;
//   - two transactions that read and write the same key do not both commit: the
//     later Commit fails with an error that is [ErrConflict];
//   - a transaction too large for the store fails with [ErrTooLarge] from Put,
//     Delete or Commit, and leaves nothing behind; after a failed Put or Delete
//     Commit fails with the same error;
//   - a transaction reads its own writes, and otherwise the state as of its start;
//   - Query with a prefix yields exactly the keys below it, without the key
//     itself, in ascending byte order when ordered by key;
//   - after Close every call fails with [ErrClosed]; Close may be called again;
//   - the store neither keeps nor changes the slices it is given, and what it
//     returns belongs to the caller;
//   - a read-only transaction refuses writes with [ErrReadOnly]; one that was
//     committed or discarded fails with [ErrDone]; Discard may follow Commit.
//
// A read counts for conflicts by key: of a Query at least those keys that it
// yielded, but a key that appears where a Query found none is no conflict. A
// transaction that only writes conflicts with none. A conflict may be reported
// where there was none, so commits that conflict are to be tried again.
//
// A Batch need not be atomic. All methods are safe for concurrent use; a single
// transaction is used by one goroutine.
type Store interface {
	ds.Batching
	ds.TxnDatastore
}

// Sizes that every store takes, in bytes, alone in a transaction; larger ones
// fail with [ErrTooLarge].
const (
	MaxKey   = 65_000
	MaxValue = 1<<20 - 1<<10
)

// Errors of a store, to be matched with errors.Is. An absent key is
// go-datastore's ErrNotFound.
var (
	ErrClosed   = errors.New("store: closed")
	ErrConflict = errors.New("store: transaction conflict")
	ErrTooLarge = errors.New("store: transaction too large")
	// ErrNoSpace says that the disk has too little free space to write safely.
	// Nothing was written; the store accepts writes again when space is back.
	ErrNoSpace = errors.New("store: too little free disk space")
	// ErrLocked says that another process uses the store.
	ErrLocked = errors.New("store: in use by another process")
	// ErrCorrupt says that the files of the store are damaged. What they held must
	// be fetched again from peers, into a new store.
	ErrCorrupt = errors.New("store: damaged")
	// ErrReadOnly says that a read-only transaction was asked to write.
	ErrReadOnly = errors.New("store: read-only transaction")
	// ErrDone says that a transaction was used after its Commit or Discard.
	ErrDone = errors.New("store: transaction has ended")
)

// EarlyTxn is implemented by transactions of stores that know when a commit can be
// seen and when it is durable. A store whose transactions do not is used through
// Commit alone, which is slower.
type EarlyTxn interface {
	ds.Txn
	// CommitEarly is Commit, but returns once others see the writes. They are durable
	// no later than any write that begins afterwards, of whatever keys, and when a
	// Sync of the store that begins afterwards has returned without an error. Of
	// several early commits a power cut keeps the first ones.
	CommitEarly(ctx context.Context) error
}

// SpaceReporter is implemented by stores that know how much room they have.
type SpaceReporter interface {
	// Space returns the free bytes of the store's file system and the reserve
	// below which the store refuses writes.
	Space() (free, reserve uint64, err error)
}
