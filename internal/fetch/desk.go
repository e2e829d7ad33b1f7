package fetch

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/library"
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
	again   bool // something changed while it was running
	done    int64
	total   int64

	ctx    context.Context
	cancel context.CancelCauseFunc
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
}

func newDesk(f *Fetcher, lib *library.Library) *desk {
	d := &desk{
		f: f, lib: lib, id: lib.ID(), pending: make(map[can.Digest]*task), asked: make(map[can.Digest]struct{}),
		signal: make(chan struct{}, 1), ready: make(chan struct{}, 1), more: true,
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
	t.done, t.total = 0, 0
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
func (d *desk) next(large bool) *task {
	mode := d.lib.Mode()
	if mode == library.ModePaused {
		return nil
	}
	if t := d.lineFor(large, true).pop(); t != nil {
		return t
	}
	if !d.lib.Fetches() {
		return nil
	}
	return d.lineFor(large, false).pop()
}

// smallWaits reports whether a small asset could run.
func (d *desk) smallWaits() bool {
	return !d.lib.Paused() && (d.askedSmall.len() > 0 || d.small.len() > 0 && d.lib.Fetches())
}

// ask puts assets first.
func (d *desk) ask(assets map[can.Digest]bool) {
	for a, large := range assets {
		d.asked[a] = struct{}{}
		if t := d.pending[a]; t == nil {
			d.enqueue(a, large)
		} else if t.lined {
			d.lineFor(t.large, true).push(t)
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

const (
	// timedScan is the least time between two looks at the queue for rows whose
	// time has come, and poll the time after which rows that came by other ways
	// than new records are noticed.
	timedScan = time.Second
	poll      = 5 * time.Second
	// A look at the queue that takes long is not repeated before scanShare times
	// as long has passed.
	scanShare = 4
	// soon is beyond every wait: a row further in the future was written by a
	// clock that has been set back.
	soon = 48 * time.Hour
)

// load fills the window from the queue.
func (d *desk) load() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last, took = time.Time{}, time.Duration(0)
	for {
		urgent := false
		select {
		case <-d.ctx.Done():
			return
		case <-d.signal:
			urgent = true
		case <-timer.C:
		}
		gap := scanShare * took
		if !urgent {
			gap = max(gap, timedScan)
		}
		if left := gap - time.Since(last); !last.IsZero() && left > 0 {
			select {
			case <-d.ctx.Done():
				return
			case <-time.After(left):
			}
		}
		if d.worthwhile(urgent) {
			last = time.Now()
			n, err := d.scan()
			if err != nil && d.ctx.Err() == nil {
				d.f.log.Warn("the queue could not be read", "library", short(d.id), "err", err)
			}
			if took = time.Since(last); n >= lowWater/2 {
				took = 0 // time well spent
			}
		}
		timer.Reset(d.sleep())
	}
}

// worthwhile reports whether a look at the queue may find something to do. Rows
// that nobody told of are looked for now and then only.
func (d *desk) worthwhile(urgent bool) bool {
	queued := d.lib.Counts().Queued
	now := d.f.cfg.Now().UnixMilli()
	f := d.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if d.lib.Paused() || len(d.pending) >= window || !d.lib.Fetches() && len(d.asked) == 0 {
		return false
	}
	return d.more || d.kick || d.due != 0 && d.due <= now || !urgent && queued != int64(len(d.pending))+d.census.waiting
}

// sleep is how long there is nothing to load.
func (d *desk) sleep() time.Duration {
	f := d.f
	now := f.cfg.Now().UnixMilli()
	f.mu.Lock()
	defer f.mu.Unlock()
	if d.due == 0 {
		return poll
	}
	if d.due <= now {
		return timedScan // the library is paused, or the window full
	}
	return min(poll, time.Duration(d.due-now)*time.Millisecond)
}

// scan reads the queue until the window is full and returns how many assets it
// found to be worked on.
func (d *desk) scan() (int, error) {
	f := d.f
	now := f.cfg.Now()
	f.mu.Lock()
	kick, from := d.kick, d.kickFrom
	d.kick, d.more, d.due = false, false, 0
	room, roomLarge := window-len(d.pending), window/2-d.large.len()
	all := d.lib.Fetches()
	f.mu.Unlock()

	var found []*task
	var c census
	whole, more := true, false
	var cut can.Digest // the first asset that there was no room for
	err := func() error {
		for w, err := range d.lib.Queue(d.ctx) {
			if err != nil {
				return err
			}
			c.add(w)
			f.mu.Lock()
			_, known := d.pending[w.Asset]
			_, asked := d.asked[w.Asset]
			f.mu.Unlock()
			if known {
				continue
			}
			if !all && !asked {
				c.waiting++
				continue
			}
			wait := time.UnixMilli(w.Next).Sub(now)
			if wait > 0 && wait < soon && !(kick && forPeers(w.Cause) && bytes.Compare(w.Asset[:], from[:]) >= 0) {
				c.waiting++
				if c.due == 0 || w.Next < c.due {
					c.due = w.Next
				}
				continue
			}
			e, err := d.lib.Entry(d.ctx, w.Asset)
			if err != nil {
				return err
			}
			t := &task{d: d, asset: w.Asset, large: e.Member && e.Body.Size > transfer.SmallLimit}
			if t.large {
				if roomLarge--; roomLarge < 0 {
					if !more {
						more, cut = true, w.Asset
					}
					continue
				}
			}
			if room--; room < 0 {
				if !more {
					cut = w.Asset
				}
				more, whole = true, false
				return nil
			}
			found = append(found, t)
		}
		return nil
	}()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		d.more = true
		if kick && !d.kick {
			d.kick, d.kickFrom = true, from
		}
		d.due = now.Add(timedScan).UnixMilli()
	} else {
		d.more = d.more || more
		if kick && more && !d.kick {
			d.kick, d.kickFrom = true, cut
		}
		if whole {
			d.census = c
			d.census.at = now
		}
	}
	if c.due != 0 && (d.due == 0 || c.due < d.due) {
		d.due = c.due
	}
	for _, t := range found {
		if d.pending[t.asset] == nil {
			d.pending[t.asset] = t
			d.line(t)
		}
	}
	f.dispatch()
	return len(found), err
}

// forPeers says that a cause may have gone when a peer came.
func forPeers(c replica.Cause) bool {
	return c == replica.NoPeer || c == replica.NotAllowed || c == replica.SourceOffline
}
