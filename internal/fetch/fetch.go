// Package fetch brings the assets of a node's libraries into its CAN Service: it
// works off the durable queue of each library, fetches contents from other members,
// has them ingested, applies metadata, and follows removals.
//
// A row of the queue only says that an asset has to be looked at. What is done
// follows from the live record, from what the node made of the asset before, and
// from what the service holds at that moment. So nothing depends on when a row was
// written, and after a restart the rows are all that is needed.
//
// A [Fetcher] is one per node and shares its workers among the libraries.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/ingest"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/transfer"
)

// Errors of a fetcher, to be matched with errors.Is.
var (
	// ErrUnknown says that a library was not added to the fetcher.
	ErrUnknown = errors.New("fetch: no such library")
	// ErrTooMany says that too many assets are asked for by name at once.
	ErrTooMany = errors.New("fetch: too many assets asked for")
)

// MaxAsked bounds the assets of one library that are asked for by name.
const MaxAsked = 1 << 16

const (
	// window is how many rows of one library are in memory at most; new rows are
	// loaded when fewer than lowWater wait for a worker. Large assets take up half
	// of it, so that small ones behind them are seen.
	window   = 4096
	lowWater = window / 2
	// maxSmall keeps the small contents in memory below 64 MiB.
	maxSmall = 1024
	maxLarge = 64
)

// Config says what a fetcher works with. Ingester, Inventory and Source are
// required.
type Config struct {
	Ingester  *ingest.Ingester
	Inventory *inventory.Inventory
	Source    Source
	// Stages is the directory in which large contents are staged, so that what is
	// left behind there can be removed; nil if there is none.
	Stages *os.Root
	// Space returns the free bytes where contents are staged, and Reserve is what
	// has to stay free of it. A nil Space is not asked.
	Space   func() (free uint64, err error)
	Reserve uint64
	// HeldElsewhere, if not nil, reports whether a library besides the ones added
	// to the fetcher holds the asset live, so that it is not trashed.
	HeldElsewhere func(lib [32]byte, d can.Digest) bool
	// Small and Large are the numbers of assets that are worked on at once: 128, for
	// small ones mostly wait for each other's commits, and 4. At most 1,024 small and 64 large ones are.
	Small, Large int
	// Now is the wall clock and Rand yields numbers in [0, 1) to spread retries;
	// nil means time.Now and a random generator.
	Now  func() time.Time
	Rand func() float64
	// Ready, if not nil, is closed when the inventory holds everything that the
	// service held at the start. Before, nothing is done: a content that is wanted
	// may be there. Unread, if not nil, reports whether an asset of the size is
	// being read just now, which may be the content in question.
	Ready  <-chan struct{}
	Unread func(size int64) bool
	// OnEvent, if not nil, is told of each asset that came or failed. It is called
	// from many goroutines and must return soon.
	OnEvent func(Event)
	Logger  *slog.Logger
}

// Kind says what happened to an asset.
type Kind uint8

// The kinds of events.
const (
	// Fetched: the content came and the CAN Service holds it.
	Fetched Kind = iota + 1
	// Updated: the CAN Service was given new metadata.
	Updated
	// Trashed: the CAN Service was made to trash it, for the library removed it.
	Trashed
	// Failed: an attempt failed; it is tried again.
	Failed
)

// Event is something that happened to an asset of a library.
type Event struct {
	Library [32]byte
	Asset   can.Digest
	Kind    Kind
	// Bytes is the size of the content that came.
	Bytes int64
	// Err is why an attempt failed.
	Err error
	// Duration is how long the work took, from taking it up to its end.
	Duration time.Duration
}

// Stats counts what a fetcher did.
type Stats struct {
	Fetched, FetchedBytes, Updated, Trashed, Failed int64
}

// Fetcher is safe for concurrent use.
type Fetcher struct {
	cfg    Config
	log    *slog.Logger
	ctx    context.Context // of await; nil with nothing to wait for
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex // never held across I/O
	closed  bool
	up      bool
	ready   bool
	libs    map[[32]byte]*desk
	quotas  map[[32]byte]int64
	order   []*desk // takes turns
	turn    int
	small   int // workers at work
	large   int
	asking  [2]int // assets asked for by name that are worked on, small and large
	planned uint64 // bytes of large contents that are begun and not yet on disk
	stats   Stats
}

// New returns a fetcher without libraries.
func New(cfg Config) *Fetcher {
	if cfg.Small <= 0 {
		cfg.Small = 128
	}
	if cfg.Large <= 0 {
		cfg.Large = 4
	}
	cfg.Small, cfg.Large = min(cfg.Small, maxSmall), min(cfg.Large, maxLarge)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Float64
	}
	f := &Fetcher{cfg: cfg, log: cfg.Logger, libs: make(map[[32]byte]*desk), quotas: make(map[[32]byte]int64), up: true}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	cfg.Ingester.OnHealth(func(h ingest.Health) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.up = h.Up
		f.dispatch()
	})
	f.up = cfg.Ingester.Health().Up
	if f.ready = cfg.Ready == nil; !f.ready {
		f.ctx, f.cancel = context.WithCancel(context.Background())
		f.wg.Go(f.await)
	}
	return f
}

// await lets the work begin when the inventory is complete.
func (f *Fetcher) await() {
	select {
	case <-f.cfg.Ready:
	case <-f.ctx.Done():
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ready = true
	f.dispatch()
}

// Add begins to work on a library. Adding it again does nothing.
func (f *Fetcher) Add(lib *library.Library) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.libs[lib.ID()] != nil {
		return
	}
	d := newDesk(f, lib)
	f.libs[d.id] = d
	f.order = append(f.order, d)
	d.start()
}

// Remove ends the work on a library and waits for it. What was under way is taken
// up when the library is added again.
func (f *Fetcher) Remove(id [32]byte) {
	f.mu.Lock()
	d := f.libs[id]
	delete(f.libs, id)
	delete(f.quotas, id)
	for i, o := range f.order {
		if o == d {
			f.order = append(f.order[:i:i], f.order[i+1:]...)
			break
		}
	}
	f.mu.Unlock()
	if d != nil {
		d.stop()
	}
}

// Kick has the fetcher look at a library again at once: assets that wait for peers
// are tried again, what was paused stops or goes on, and rows that were queued
// without a change of the records are seen.
func (f *Fetcher) Kick(id [32]byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := f.libs[id]; d != nil {
		d.kickLocked()
		f.dispatch()
	}
}

// Fetch asks for assets by name: they are taken up before all others, and also
// where the library's mode fetches nothing by itself. Assets that are here already,
// that the user trashed, or that are not in the library are passed over. It returns
// when they are queued; events tell how they fare.
func (f *Fetcher) Fetch(ctx context.Context, id [32]byte, assets ...can.Digest) error {
	f.mu.Lock()
	d := f.libs[id]
	f.mu.Unlock()
	if d == nil {
		return ErrUnknown
	}
	if len(assets) > MaxAsked {
		return fmt.Errorf("%w: %d at once, at most %d", ErrTooMany, len(assets), MaxAsked)
	}
	wanted := make(map[can.Digest]bool, len(assets))
	var rows []can.Digest
	for _, a := range assets {
		e, err := d.lib.Entry(ctx, a)
		if err != nil {
			return err
		}
		if e.Member {
			wanted[a] = e.Body.Size > transfer.SmallLimit
			rows = append(rows, a)
		}
	}
	f.mu.Lock()
	full := len(d.asked)+len(rows) > MaxAsked
	f.mu.Unlock()
	if full {
		return ErrTooMany
	}
	for len(rows) > 0 {
		n := min(len(rows), batch)
		if err := d.lib.Enqueue(ctx, rows[:n]...); err != nil {
			return err
		}
		rows = rows[n:]
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	d.ask(wanted)
	f.dispatch()
	return nil
}

// Asked reports whether an asset was asked for by name and has not come yet.
func (f *Fetcher) Asked(id [32]byte, asset can.Digest) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.libs[id]
	if d == nil {
		return false
	}
	_, ok := d.asked[asset]
	return ok
}

// Stats returns the counters.
func (f *Fetcher) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stats
}

// Close ends all work and waits for it.
func (f *Fetcher) Close() error {
	f.mu.Lock()
	f.closed = true
	var ids [][32]byte
	for id := range f.libs {
		ids = append(ids, id)
	}
	f.mu.Unlock()
	if f.cancel != nil {
		f.cancel()
	}
	f.wg.Wait()
	for _, id := range ids {
		f.Remove(id)
	}
	return nil
}

// dispatch gives waiting assets to workers. It is called with mu held.
func (f *Fetcher) dispatch() {
	for f.small < f.cfg.Small {
		t := f.next(false)
		if t == nil {
			break
		}
		go f.work(t)
	}
	for f.large < f.cfg.Large {
		t := f.next(true)
		if t == nil {
			break
		}
		go f.work(t)
	}
}

// begin and end count the workers at work. They are called with mu held.
func (f *Fetcher) begin(large, asked bool) *turn {
	f.count(large, asked, 1)
	return &turn{large: large, asked: asked}
}

func (f *Fetcher) end(r *turn) {
	r.over = true
	f.count(r.large, r.asked, -1)
}

// favour has a turn count as one of what was asked for by name. It is called with mu
// held.
func (f *Fetcher) favour(r *turn) {
	if !r.over && !r.asked {
		f.count(r.large, false, -1)
		f.count(r.large, true, 1)
		r.asked = true
	}
}

func (f *Fetcher) count(large, asked bool, n int) {
	class := 0
	if large {
		class = 1
		f.large += n
	} else {
		f.small += n
	}
	if asked {
		f.asking[class] += n
	}
}

// next takes the next waiting asset, one library after the other, and marks it as
// running. It is called with mu held. Nothing is handed out while the service is
// down: it would only be fetched to be dropped. Those asked for by name come first,
// and while one is worked on, one small and one large asset of the others at a time
// are. While small assets wait, one large one of the others at a time is.
func (f *Fetcher) next(large bool) *task {
	if f.closed || !f.up || !f.ready {
		return nil
	}
	if t := f.take(large, true); t != nil {
		return t
	}
	if f.asking != [2]int{} && (large && f.large > f.asking[1] || !large && f.small > f.asking[0]) {
		return nil
	}
	if large && f.large > f.asking[1] {
		for _, d := range f.order {
			if d.smallWaits() {
				return nil
			}
		}
	}
	return f.take(large, false)
}

func (f *Fetcher) take(large, asked bool) *task {
	for range f.order {
		f.turn = (f.turn + 1) % len(f.order)
		d := f.order[f.turn]
		t := d.next(large, asked)
		if t == nil {
			continue
		}
		t.running, t.again, t.turn = true, false, f.begin(t.large, asked)
		t.ctx, t.cancel = context.WithCancelCause(d.ctx)
		d.tasks.Add(1)
		if d.more && d.small.len()+d.large.len() < lowWater {
			d.wake()
		}
		return t
	}
	return nil
}

// work runs assets of one class until none waits.
func (f *Fetcher) work(t *task) {
	large := t.large
	for t != nil {
		d, r := t.d, t.turn
		out := d.act(t)
		t.cancel(nil)
		d.hand(out)
		d.tasks.Done()
		f.mu.Lock()
		f.end(r)
		t = f.next(large)
		if t == nil && !large || r.asked {
			f.dispatch() // others may have waited for it
		}
		f.mu.Unlock()
	}
}

func (f *Fetcher) emit(ev Event) {
	f.mu.Lock()
	switch ev.Kind {
	case Fetched:
		f.stats.Fetched++
		f.stats.FetchedBytes += ev.Bytes
	case Updated:
		f.stats.Updated++
	case Trashed:
		f.stats.Trashed++
	case Failed:
		f.stats.Failed++
	}
	f.mu.Unlock()
	if f.cfg.OnEvent != nil {
		f.cfg.OnEvent(ev)
	}
}
