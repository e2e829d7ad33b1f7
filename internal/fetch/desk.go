package fetch

import (
	"context"
	"errors"
	"sync"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/meter"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/transfer"
	"github.com/cansync/cansync/transport"
)

// Causes with which a running asset is cancelled to be looked at again.
var (
	errChanged = errors.New("fetch: the live record changed")
	errPaused  = errors.New("fetch: the library was paused")
)

// task is an asset that is in memory: waiting for a worker, being worked on, or
// done and about to be written down.
type task struct {
	d     *desk
	asset can.Digest
	large bool

	// Guarded by the fetcher's mutex.
	lined   bool // in line for a worker, maybe twice
	running bool
	turn    *turn // at a worker, while running
	again   bool  // something changed while it was running
	done    int64
	total   int64
	moved   bool // done was told of once
	rate    meter.Rate

	ctx    context.Context
	cancel context.CancelCauseFunc
}

// turn is one go of a task at a worker, guarded by the fetcher's mutex. The task may
// be in its next one before the last is over.
type turn struct {
	large, asked bool // asked: the asset was asked for by name
	over         bool
}

// fifo is a queue of tasks.
type fifo struct{ in, out []*task }

func (q *fifo) len() int { return len(q.in) + len(q.out) }

func (q *fifo) push(t *task) { q.in = append(q.in, t) }

// pop returns the first task that is still in line, or nil.
func (q *fifo) pop() *task {
	for q.len() > 0 {
		if len(q.out) == 0 {
			q.out, q.in = q.in, nil
		}
		t := q.out[0]
		q.out = q.out[1:]
		if t.lined {
			t.lined = false
			return t
		}
	}
	return nil
}

// desk is the fetcher's view of one library.
type desk struct {
	f   *Fetcher
	lib *library.Library
	id  [32]byte

	ctx   context.Context
	end   context.CancelFunc
	wg    sync.WaitGroup // the desk's goroutines
	tasks sync.WaitGroup // running tasks

	signal chan struct{} // to the loader
	ready  chan struct{} // to the settler

	// Guarded by the fetcher's mutex.
	pending      map[can.Digest]*task
	small, large fifo
	// asked are the assets that were asked for by name, and what of them is in line;
	// they come first, and also in modes in which nothing else is fetched.
	asked                  map[can.Digest]struct{}
	askedSmall, askedLarge fifo

	more     bool // rows are due that are not in memory
	kick     bool // those that wait for peers are due, from the asset kickFrom on
	kickFrom can.Digest
	due      int64
	outs     []outcome
	census   census
	budget   budget
}

func newDesk(f *Fetcher, lib *library.Library) *desk {
	d := &desk{
		f: f, lib: lib, id: lib.ID(), pending: make(map[can.Digest]*task), asked: make(map[can.Digest]struct{}),
		signal: make(chan struct{}, 1), ready: make(chan struct{}, 1), more: true,
		budget: budget{token: make(chan struct{}, 1)},
	}
	d.ctx, d.end = context.WithCancel(context.Background())
	return d
}

// start begins the work. It is called with the fetcher's mutex held.
func (d *desk) start() {
	d.lib.Observe(d.changed)
	d.wg.Go(d.load)
	d.wg.Go(d.settle)
	d.wake()
}

// stop ends the work, once the tasks have returned and what they did is written
// down.
func (d *desk) stop() {
	d.end()
	d.tasks.Wait()
	d.wg.Wait()
}

func (d *desk) wake() {
	select {
	case d.signal <- struct{}{}:
	default:
	}
}

// changed takes note of new live records. It neither blocks nor reads.
func (d *desk) changed(ap replica.Applied) {
	f := d.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if d.ctx.Err() != nil {
		return
	}
	d.budget.note(ap)
	if ap.Control { // the filter may have changed, and rows with it
		d.more = true
		d.wake()
	}
	if ap.From == (transport.PeerID{}) {
		return // what the node says itself it has settled
	}
	for _, c := range ap.Changes {
		t := d.pending[c.Asset]
		switch {
		case t != nil && t.running:
			t.again = true
			if t.large && !c.Entry.Member {
				t.cancel(errChanged)
			}
		case t != nil:
		case len(d.pending) < window:
			d.enqueue(c.Asset, c.Entry.Member && c.Entry.Body.Size > transfer.SmallLimit)
		default:
			d.more = true
		}
	}
	f.dispatch()
}

// enqueue takes an asset into memory. It is called with the fetcher's mutex held.
func (d *desk) enqueue(asset can.Digest, large bool) {
	t := &task{d: d, asset: asset, large: large}
	d.pending[asset] = t
	d.line(t)
}

// line has a task wait for a worker.
func (d *desk) line(t *task) {
	t.running, t.again, t.lined = false, false, true
	t.done, t.total, t.moved, t.rate = 0, 0, false, meter.Rate{}
	_, asked := d.asked[t.asset]
	d.lineFor(t.large, asked).push(t)
}

func (d *desk) lineFor(large, asked bool) *fifo {
	switch {
	case asked && large:
		return &d.askedLarge
	case asked:
		return &d.askedSmall
	case large:
		return &d.large
	}
	return &d.small
}

// next returns the next task of a class that may run in the library's mode.
func (d *desk) next(large, asked bool) *task {
	if d.lib.Paused() || !asked && !d.lib.Fetches() {
		return nil
	}
	return d.lineFor(large, asked).pop()
}

// smallWaits reports whether a small asset could run.
func (d *desk) smallWaits() bool {
	return !d.lib.Paused() && (d.askedSmall.len() > 0 || d.small.len() > 0 && d.lib.Fetches())
}

// ask puts assets first. One that is being worked on counts from now on as asked for
// by name, so that others do not begin beside it.
func (d *desk) ask(assets map[can.Digest]bool) {
	for a, large := range assets {
		d.asked[a] = struct{}{}
		switch t := d.pending[a]; {
		case t == nil:
			d.enqueue(a, large)
		case t.lined:
			d.lineFor(t.large, true).push(t)
		case t.running:
			d.f.favour(t.turn)
		}
	}
}

// kickLocked is Kick, with the fetcher's mutex held.
func (d *desk) kickLocked() {
	paused, fetches := d.lib.Paused(), d.lib.Fetches()
	if !fetches {
		for _, t := range d.pending {
			if _, asked := d.asked[t.asset]; t.running && (paused || !asked) {
				t.again = true
				t.cancel(errPaused)
			}
		}
	}
	d.kick, d.kickFrom, d.more = true, can.Digest{}, true
	d.wake()
}
