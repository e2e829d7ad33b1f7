package transfer

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/transport"
)

// download fetches the missing groups of one content. Its loop runs in the caller's
// goroutine and alone touches the scheduler and the maps; sources report to it.
type download struct {
	c      *Client
	want   Want
	sink   sink
	early  *Early
	sched  *blob.Scheduler[transport.PeerID]
	events chan event
	ctx    context.Context
	wg     sync.WaitGroup

	sources map[transport.PeerID]*source // opening, open, or ending
	ready   map[*source]bool             // open
	past    map[transport.PeerID]*history

	syncing, hashing bool // in the background
	tended           chan tended
	synced           time.Time // when the last sync began
	unsynced         int64     // bytes that came since then
	unhashed         int64
}

// tended says how a sync of the sink, or else its hashing, ended.
type tended struct {
	sync bool
	err  error
}

// hashBytes is how much comes before the hash of the whole is taken forward: little,
// so that it is still in the processor's cache when it is read back.
const hashBytes = 1 << 20

// Where contents come fast a sync is not begun more often than every syncEvery,
// unless syncShare times as much came as is to be synced: each costs several flushes
// of the disk.
const (
	syncEvery = 250 * time.Millisecond
	syncShare = 8
)

// history is how it went with a peer so far.
type history struct {
	err   error
	over  bool // not to be asked again for this content
	fails int  // in a row, without data in between
	after time.Time
}

const (
	// lookEvery is how often the download looks for new peers.
	lookEvery = 2 * time.Second
	// maxFails is how often in a row a peer's stream may break without data.
	maxFails  = 3
	failPause = 500 * time.Millisecond
)

// download brings the sink to completion.
func (c *Client) download(ctx context.Context, w Want, to sink, progress func(done, total int64), early *Early) error {
	have := to.have()
	d := &download{
		c: c, want: w, sink: to, early: early, sched: blob.NewScheduler[transport.PeerID](have, c.cfg.Schedule),
		events: make(chan event, 64), tended: make(chan tended, 2),
		sources: make(map[transport.PeerID]*source), ready: make(map[*source]bool),
		past: make(map[transport.PeerID]*history),
	}
	if have.Full() {
		progress(int64(w.Size), int64(w.Size))
		return nil
	}
	var cancel context.CancelFunc
	d.ctx, cancel = context.WithCancel(ctx)
	err := d.loop(progress)
	for src := range d.ready {
		if err == nil {
			src.halt()
		} else {
			src.cancel()
		}
	}
	if err != nil {
		cancel()
	} else {
		d.settle()
	}
	cancel()
	d.wg.Wait()
	return err
}

// settle waits for sources that were asked to end, and keeps their streams.
func (d *download) settle() {
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	for src := range d.ready {
		for over := false; !over; {
			select {
			case <-src.ended:
				if over = true; src.clean {
					d.c.cool(place{d.want.Library, src.peer}, src.st, src.f, src.seq)
				}
			case <-d.events: // so that they come to their end
			case <-timer.C:
				return // cancelled with the rest
			}
		}
	}
}

func (d *download) loop(progress func(done, total int64)) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	shown := int64(-1)
	for {
		if done := d.done(); done != shown {
			shown = done
			d.early.advance()
			progress(done, int64(d.want.Size))
		}
		if d.sched.Complete() {
			return d.rest()
		}
		d.c.mu.Lock()
		changed := d.c.changed
		d.c.mu.Unlock()
		now := d.c.cfg.Now()
		d.expire(now)
		waiting := d.gather(now)
		if len(d.sources) == 0 && !waiting {
			return d.failure()
		}
		d.assign(now)
		timer.Reset(d.wake(now))
		select {
		case ev := <-d.events:
			if err := d.handle(ev); err != nil {
				return err
			}
			for more := true; more; {
				select {
				case ev := <-d.events:
					if err := d.handle(ev); err != nil {
						return err
					}
				default:
					more = false
				}
			}
		case t := <-d.tended:
			if err := d.tend(t); err != nil {
				return err
			}
		case <-timer.C:
		case <-changed:
		case <-d.ctx.Done():
			return d.ctx.Err()
		}
		d.sync()
	}
}

func (d *download) done() int64 {
	return min(int64(d.sched.Count())*blob.GroupSize, int64(d.want.Size))
}

// wake returns how long nothing needs to be done if nothing is heard.
func (d *download) wake(now time.Time) time.Duration {
	wait := lookEvery
	if at, ok := d.sched.Wake(now); ok {
		// A time that has passed already would spin: what is due was just done.
		wait = min(wait, max(at.Sub(now), 10*time.Millisecond))
	}
	for _, h := range d.past {
		if !h.over && h.after.After(now) {
			wait = min(wait, h.after.Sub(now))
		}
	}
	return wait
}

// gather opens streams to peers that may have the content. It reports whether one
// is to be tried later.
func (d *download) gather(now time.Time) (waiting bool) {
	for _, p := range d.c.peers(d.want.Library) {
		if d.sources[p.ID] != nil {
			continue
		}
		h := d.past[p.ID]
		if h == nil {
			h = &history{}
			d.past[p.ID] = h
		}
		switch {
		case h.over:
			continue
		case h.after.After(now) || len(d.sources) >= d.c.cfg.MaxSources:
			waiting = true
			continue
		}
		d.open(p.ID)
	}
	return waiting
}

func (d *download) open(p transport.PeerID) {
	src := &source{
		d: d, peer: p, flow: flowLarge + flow(d.c.flows.Add(1)), reqs: make(chan []byte, 32), parts: make(chan part, 2),
		ended: make(chan struct{}), runs: make(map[uint32]*coming),
	}
	src.ctx, src.cancel = context.WithCancel(d.ctx)
	d.sources[p] = src
	d.wg.Go(func() {
		defer src.cancel()
		if err := src.open(); err != nil {
			src.err = err
			d.tell(d.ctx, event{src: src, ended: true})
			return
		}
		d.tell(d.ctx, event{src: src, opened: true})
		src.work()
		d.tell(d.ctx, event{src: src, ended: true})
	})
}

// tell reports to the loop unless ctx ends first.
func (d *download) tell(ctx context.Context, ev event) {
	select {
	case d.events <- ev:
	case <-ctx.Done():
	}
}

func (d *download) assign(now time.Time) {
	for src := range d.ready {
		for {
			run, ok := d.sched.Assign(src.peer, now)
			if !ok {
				break
			}
			if !src.request(run) {
				d.lose(src, ErrStalled)
				break
			}
		}
	}
}

func (d *download) expire(now time.Time) {
	for _, c := range d.sched.Expire(now) {
		src := d.sources[c.Source]
		if src == nil || !d.ready[src] {
			continue
		}
		if c.Cause == blob.CauseStalled {
			d.past[c.Source].err = ErrStalled
		}
		if !src.forget(c.Run) {
			d.lose(src, ErrStalled)
		}
	}
	for src := range d.ready {
		if d.sched.Dropped(src.peer) {
			h := d.past[src.peer]
			if h.over = true; h.err == nil {
				h.err = ErrUnavailable
			}
			d.lose(src, h.err)
		}
	}
}

// lose gives up a source; it reports its end later.
func (d *download) lose(src *source, err error) {
	delete(d.ready, src)
	d.past[src.peer].err = err
	d.sched.Failed(src.peer, blob.Run{}, blob.CauseGone, d.c.cfg.Now())
	src.cancel()
}

// handle takes note of an event. Its errors end the download.
func (d *download) handle(ev event) error {
	now := d.c.cfg.Now()
	src := ev.src
	h := d.past[src.peer]
	switch {
	case ev.fatal != nil:
		return ev.fatal
	case ev.opened:
		d.ready[src] = true
		if !d.sched.Add(src.peer) {
			h.over = true
			d.lose(src, h.err)
		}
	case ev.ended:
		d.ended(src, h, now)
	case ev.failed:
		d.failed(src, h, ev, now)
	default:
		if ev.got.Count > 0 {
			if d.ready[src] { // else it keeps why it was given up
				h.fails, h.err = 0, nil
			}
			d.unsynced += ev.got.Len(d.want.Size)
			d.unhashed += ev.got.Len(d.want.Size)
		}
		d.sched.Got(src.peer, ev.run, ev.got, now)
	}
	return nil
}

// failed takes note of a run that the peer ended.
func (d *download) failed(src *source, h *history, ev event, now time.Time) {
	cause := blob.CauseUnavailable
	switch {
	case errors.Is(ev.cause, ErrNotServed), errors.Is(ev.cause, ErrConflict):
		h.over = true
		if d.ready[src] {
			d.lose(src, ev.cause)
		}
		return
	case errors.Is(ev.cause, errStatus):
		cause = blob.CauseOvertaken // we cancelled it
	default:
		h.err = ev.cause
	}
	d.sched.Failed(src.peer, ev.run, cause, now)
}

// ended takes note that nothing of a source runs any more.
func (d *download) ended(src *source, h *history, now time.Time) {
	delete(d.sources, src.peer)
	lost := !d.ready[src]
	delete(d.ready, src)
	cause := blob.CauseGone
	if src.err != nil && (h.err == nil || !lost || errors.Is(src.err, ErrWrong)) {
		h.err = src.err
	}
	switch {
	case errors.Is(src.err, ErrWrong):
		cause, h.over = blob.CauseWrong, true
		d.c.liar(src.peer)
	case errors.Is(src.err, ErrProtocol), errors.Is(src.err, transport.ErrLimited), errors.Is(src.err, transport.ErrNoProtocol):
		h.over = true
	}
	d.sched.Failed(src.peer, blob.Run{}, cause, now)
	if src.warm && !src.gave.Load() {
		return // it may have ended long ago
	}
	if h.fails++; h.fails >= maxFails {
		h.over = true
	}
	h.after = now.Add(failPause * time.Duration(h.fails-1))
}

// sync makes what came durable in the background, so that a crash loses little, and
// beside that takes the hash of the whole forward, so that it is done when the last
// group comes.
func (d *download) sync() {
	if d.sched.Complete() {
		return
	}
	due := d.c.cfg.SyncBytes
	now := d.c.cfg.Now()
	if now.Sub(d.synced) < syncEvery {
		due *= syncShare
	}
	if !d.syncing && d.unsynced >= due {
		d.syncing, d.synced, d.unsynced = true, now, 0
		d.wg.Go(func() { d.tended <- tended{true, d.sink.sync()} })
	}
	if !d.hashing && d.unhashed >= hashBytes {
		d.hashing, d.unhashed = true, 0
		d.wg.Go(func() { d.tended <- tended{false, d.sink.hash()} })
	}
}

// tend takes note of what ended in the background.
func (d *download) tend(t tended) error {
	if t.sync {
		d.syncing = false
	} else {
		d.hashing = false
	}
	return t.err
}

// rest waits for what is under way in the background.
func (d *download) rest() error {
	var err error
	for d.syncing || d.hashing {
		err = errors.Join(err, d.tend(<-d.tended))
	}
	return err
}

// failure is the error of a download without a peer to ask.
func (d *download) failure() error {
	var all []*PeerError
	for _, p := range d.c.peers(d.want.Library) {
		if h := d.past[p.ID]; h != nil && h.err != nil {
			all = append(all, &PeerError{p.ID, h.err})
			delete(d.past, p.ID)
		}
	}
	for p, h := range d.past { // those that are gone
		if h.err != nil {
			all = append(all, &PeerError{p, h.err})
		}
	}
	return fetchError(all)
}
