// Package replica keeps the records of one library in a store, decides which of
// them are live, and queues the assets that the node has to look at.
//
// The table of records is the truth. Everything else (the index of ids, the
// queue, the counters, the coded symbols for reconciliation) follows from it and
// is kept in the same transactions or rebuilt when the library is opened.
//
// Per asset the table keeps the newest record of each author; the live one is the
// greatest in the order of [record.Compare]. See docs/protocol.md.
package replica

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	ds "github.com/ipfs/go-datastore"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/kv"
	"github.com/cansync/cansync/internal/reconcile"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/transport"
)

// ErrClosed says that the replica was closed.
var ErrClosed = errors.New("replica: closed")

// Options are what a replica is opened with; all are required but Logger.
type Options struct {
	Library  [32]byte
	Store    store.Store
	Verifier *record.Verifier
	// ReconcileKey keys the coded symbols; members of the library share it.
	ReconcileKey [16]byte
	// View is a filter by which the node's own view is narrower than the library;
	// the zero filter is none.
	View   filter.Filter
	Now    func() time.Time
	Rand   io.Reader
	Logger *slog.Logger
}

// Replica is the local copy of one library's records. It is safe for concurrent
// use. Writes are applied one after another.
type Replica struct {
	opts   Options
	log    *slog.Logger
	prefix string // of all keys of the library, with a slash behind

	// writer admits one writer at a time. It is a channel and not a mutex because
	// the store is written while it is held.
	writer chan struct{}
	closed chan struct{}
	once   sync.Once
	wg     sync.WaitGroup

	mu        sync.Mutex // guards what follows; never held across I/O
	control   *control.State
	controlID *reconcile.Set
	own       filter.Filter // by which the node's view is narrower
	filter    filter.View   // the library's filter and own
	debts     uint64        // grows when records begin to be owed (see Owed)
	retrying  bool          // a filter that failed is to be tried again
	views     map[string]*viewSet
	uses      uint64
	observers []func(Applied)
	counts    Counts
	clock     record.Clock
	assets    *reconcile.Set
	deferred  map[record.ID]record.Clock
	refused   map[record.ID]error // why, as long as the control set stays as it is

	ready    chan struct{} // closed when assets is complete
	readyErr error         // set before ready is closed
}

// Counts are the totals of a library.
type Counts struct {
	Records    int64 // asset records of all authors that are stored whole
	Live       int64 // assets in the library: live, no tombstone, matching the filter
	LiveBytes  int64 // their sizes added up, each as Entry.Bytes counts it
	Tombstones int64 // assets whose live record is a tombstone
	Queued     int64 // assets waiting for the node's attention
	// Trashed are the assets that are trashed here and do not wait, with their sizes
	// added up.
	Trashed, TrashedBytes int64
}

// Applied reports what one call of Apply or Publish changed, once it can be read. What
// the node publishes itself is durable then; see [Replica.Durable] for what others sent.
type Applied struct {
	// Records that were new to the replica, as they are stored.
	Records []record.Record
	// Control says that the records belong to the control set.
	Control bool
	// From is the peer that sent them, zero for the node itself.
	From transport.PeerID
	// Changes among the live records, one for each asset.
	Changes []Change
	// Touched are all assets of which something new was stored.
	Touched []Change
}

// Change is an asset whose live record changed.
type Change struct {
	Asset can.Digest
	// Before and Entry are what the library said of the asset before and says now.
	Before, Entry Entry

	rows []record.Record
}

// Whole returns all records of the asset that are stored with their bodies, and its
// tombstones.
func (c Change) Whole() []record.Record { return whole(c.rows) }

// Entry is what the library says of one asset.
type Entry struct {
	Asset can.Digest
	// Live is the live record; its Header.Kind tells a tombstone. It is the zero
	// Record when the library knows nothing valid of the asset.
	Live record.Record
	// Ahead is a record greater than Live of which only the header is known, or nil.
	// A node that sees the whole library goes by the records it has
	// whole, and lets Ahead be until its body comes; to a node with a narrower view
	// such a record says that the asset left the view, and is Live.
	Ahead *record.Record
	// Body is the live record's metadata, the zero value for a tombstone.
	Body record.AssetBody
	// Member says that the asset is in the library as the node sees it: the live
	// record is no tombstone and matches the library's filter and the node's own.
	Member bool
}

// Known says that the library holds a valid record of the asset.
func (e Entry) Known() bool { return e.Live.Header.Kind != 0 }

// Tombstone says that the live record is a tombstone.
func (e Entry) Tombstone() bool { return e.Live.Header.Kind == record.Tombstone }

// ID is the id of the live record, or zero.
func (e Entry) ID() record.ID {
	if !e.Known() {
		return record.ID{}
	}
	return e.Live.ID()
}

// Open reads the control set, and starts to build the coded symbols in the
// background. The caller closes the replica before the store.
func Open(ctx context.Context, opts Options) (*Replica, error) {
	r := &Replica{
		opts: opts, log: opts.Logger, prefix: roomKey(opts.Library).String() + "/",
		writer: make(chan struct{}, 1), closed: make(chan struct{}), ready: make(chan struct{}),
		control: control.New(opts.Library), controlID: reconcile.NewSet(opts.ReconcileKey, controlPrefix),
		assets:   reconcile.NewSet(opts.ReconcileKey, assetPrefix),
		deferred: make(map[record.ID]record.Clock), refused: make(map[record.ID]error),
		views: make(map[string]*viewSet), debts: 1,
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if err := r.loadControl(ctx); err != nil {
		return nil, err
	}
	if err := r.loadCounts(ctx); err != nil {
		return nil, err
	}
	// A crash may have come between a change of the filter and the new count.
	if next := r.wanted(opts.View); !next.Equal(r.filter) || !r.own.Equal(opts.View) {
		if err := r.refilter(ctx, opts.View, next); err != nil {
			return nil, err
		}
	}
	if due, err := opts.Store.Has(ctx, r.key("w")); err != nil {
		return nil, err
	} else if due {
		r.again()
	}
	build, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.wg.Go(func() {
		defer cancel()
		done := make(chan struct{})
		defer close(done)
		r.wg.Go(func() {
			select {
			case <-r.closed:
				cancel()
			case <-done:
			}
		})
		r.build(build)
	})
	return r, nil
}

// The control set is small; the prefix of the asset set decodes differences of a
// few thousand records without a scan (4,096 symbols are 192 KiB).
const (
	controlPrefix = 128
	assetPrefix   = 4096
)

// Close waits for what is running. It leaves the store open.
func (r *Replica) Close() error {
	r.once.Do(func() { close(r.closed) })
	r.writer <- struct{}{} // wait for the writer, and for another Close
	<-r.writer
	r.wg.Wait()
	return nil
}

// Library returns the library's id.
func (r *Replica) Library() [32]byte { return r.opts.Library }

// Observe registers fn to be called after each change, one call at a time, in the
// order of the changes. fn must not call Apply or Publish and must return soon.
// All observers are registered before records are applied.
func (r *Replica) Observe(fn func(Applied)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.observers = append(r.observers, fn)
}

// Counts returns the totals.
func (r *Replica) Counts() Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts
}

// Filter returns what an asset has to match to be in the library as the node sees
// it.
func (r *Replica) Filter() filter.View {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.filter
}

// Refiltering reports whether another filter than [Replica.Filter] is about to be in
// force: what the control state and the own view say already counts only then.
func (r *Replica) Refiltering() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.wanted(r.own).Equal(r.filter)
}

// OwnView returns the filter by which the node's view is narrower than the library.
func (r *Replica) OwnView() filter.Filter {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.own
}

// SetOwnView changes that filter. Assets that enter or leave the view are queued,
// and the records of those that leave it are owed. On an error, such as that of a
// store without space, the old one stays in force.
func (r *Replica) SetOwnView(ctx context.Context, f filter.Filter) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer r.unlock()
	r.mu.Lock()
	next := r.wanted(f)
	r.mu.Unlock()
	return r.refilter(ctx, f, next)
}

// look returns how the node looks at the records now.
func (r *Replica) look() lens {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lensLocked()
}

func (r *Replica) lensLocked() lens {
	l := lens{filter: r.filter}
	if !r.own.IsZero() {
		l.own = filter.View{r.own}
	}
	return l
}

// Control calls fn with the control state. fn must neither keep nor change it,
// and must not block.
func (r *Replica) Control(fn func(*control.State)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fn(r.control)
}

// Ready is closed when the coded symbols are complete and snapshots can be taken.
func (r *Replica) Ready() <-chan struct{} { return r.ready }

func (r *Replica) lock(ctx context.Context) error {
	select {
	case <-r.closed:
		return ErrClosed
	default:
	}
	select {
	case r.writer <- struct{}{}:
		return nil
	case <-r.closed:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Replica) unlock() { <-r.writer }

// key returns a key of this library. The rooms are
//
//	k/<id>      control record
//	a/<digest>  all stored records of an asset
//	i/<id>      digest of the asset that the record is about
//	p/<digest>  what the node made of the asset (see Local)
//	q/<digest>  the asset waits for the node's attention (see Work)
//	g/<digest>  what the host decided about announcing it (see Approval)
//	o/<id>      the record is owed (see Owed); digest of its asset
//	c           counters and clock
//	f, v        the filter by which they count, and the node's own view
func (r *Replica) key(parts ...string) ds.Key {
	return ds.RawKey(r.prefix + strings.Join(parts, "/"))
}

func roomKey(library [32]byte, parts ...string) ds.Key {
	return kv.Key(append([]string{"l", kv.Bin(library[:libraryPart])}, parts...)...)
}

// libraryPart is how much of a library's id is in its keys: enough that nobody makes
// two libraries that share it, and less to write and compare with each record.
const libraryPart = 20

func (r *Replica) assetKey(room string, d can.Digest) ds.Key {
	var b [96]byte
	k := append(append(append(b[:0], r.prefix...), room...), '/')
	return ds.RawKey(string(kv.AppendBin(k, d[:])))
}
