// Package announce watches the local CAN Service and says in each library what
// the node has: new assets, the user's edits, and what the user trashed.
//
// Everything that the service tells is a hint. Events and polls of the newest
// assets make the node quick; a full listing, at the start and every few minutes,
// makes it right. From a listing that fails, is short, empty, or shifts while it
// is read nothing is concluded: an asset that is not listed is asked for by its
// handle, and only the service's word that it is trashed counts.
//
// The goroutines are: one that watches for events, one that polls, one that scans,
// a few that read and hash new contents, and the desk, which alone decides and
// publishes, so that decisions never race each other.
package announce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/replica"
)

// Errors of the announcer.
var (
	// ErrClosed says that the announcer was closed.
	ErrClosed = errors.New("announce: closed")
	// ErrNoLibrary says that the library was not added, or removed.
	ErrNoLibrary = errors.New("announce: no such library")
)

// EventKind says what an [Event] reports.
type EventKind uint8

// The kinds of events.
const (
	// Announced: an asset was announced, or added again after its removal.
	Announced EventKind = iota + 1
	// Edited: the user's change of an asset's metadata was published.
	Edited
	// Removed: the user trashed the asset, and it was removed from the library.
	Removed
	// Failed: the asset can't be announced; Err says why. Library or Asset are zero
	// where the failure is not about one library, or the content is unknown since
	// it can't be read.
	Failed
)

// Event is something that the announcer did, or could not do.
type Event struct {
	Library [32]byte
	Asset   can.Digest
	Kind    EventKind
	Err     error
}

// Config is what an announcer works with. Client and Inventory are required.
//
// The callbacks must return soon and must not call the announcer's Remove,
// Confirm, Dismiss or Close.
type Config struct {
	Client    can.Client
	Inventory *inventory.Inventory
	// Now is the wall clock; nil is time.Now. Time-outs do not use it.
	Now func() time.Time
	// Logger takes the log; nil discards it.
	Logger *slog.Logger
	// PollInterval is the time between looks at the newest assets; 0 is 5 s.
	PollInterval time.Duration
	// FullScanInterval is the time from the end of one full listing to the start
	// of the next; 0 is 5 min.
	FullScanInterval time.Duration
	// Hashing is how many contents are read at once; 0 is 2.
	Hashing int
	// OnHealth is called when the service begins to fail, with the error, and when
	// it works again, with nil. Calls come one at a time and in order.
	OnHealth func(err error)
	// OnHeld is called when a library's removals are put on hold, or their number
	// changes; 0 says that the hold is over.
	OnHeld func(lib [32]byte, count int)
	// OnEvent is called for each event, one at a time for each kind but Failed.
	OnEvent func(Event)
}

func (c Config) withDefaults() Config {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.PollInterval <= 0 {
		c.PollInterval = 5 * time.Second
	}
	if c.FullScanInterval <= 0 {
		c.FullScanInterval = 5 * time.Minute
	}
	if c.Hashing <= 0 {
		c.Hashing = 2
	}
	if c.OnHealth == nil {
		c.OnHealth = func(error) {}
	}
	if c.OnHeld == nil {
		c.OnHeld = func([32]byte, int) {}
	}
	if c.OnEvent == nil {
		c.OnEvent = func(Event) {}
	}
	return c
}

// Announcer is one per node. It is safe for concurrent use.
type Announcer struct {
	cfg    Config
	inv    *inventory.Inventory
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	health health
	hints  hints
	rest   resting
	lanes  lanes

	notes  chan note
	desk   chan func()
	early  early
	rescan chan struct{} // holds a token: begin a full scan now

	// Of the desk: see caughtIndex.
	caught  [][32]byte
	indexed bool

	lacked int // of the scans: how many assets the last listing was short of

	mu     sync.Mutex // never held across I/O or callbacks
	voices map[[32]byte]*voice
	busy   map[string]int64 // handles on their way from the listing to the inventory, and the size of each
}

// New starts an announcer without libraries. The service need not be reachable.
func New(cfg Config) *Announcer {
	cfg = cfg.withDefaults()
	a := &Announcer{
		cfg: cfg, inv: cfg.Inventory, log: cfg.Logger,
		notes: make(chan note, maxNotes), desk: make(chan func()), rescan: make(chan struct{}, 1),
		voices: make(map[[32]byte]*voice), busy: make(map[string]int64),
		lanes: newLanes(),
	}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.health.init(cfg.Now(), cfg.OnHealth)
	a.hints.init()
	a.rest.init()
	a.wg.Go(a.watch)
	a.wg.Go(a.live)
	a.wg.Go(a.scans)
	a.wg.Go(a.work)
	for i := range cfg.Hashing {
		a.wg.Go(func() { a.reader(i > 0 || cfg.Hashing == 1) })
	}
	return a
}

// Close stops the announcer and waits for it. What was under way is found again
// by the next one that uses the same store. The libraries stay open.
func (a *Announcer) Close() error {
	a.cancel()
	a.wg.Wait()
	return nil
}

// Add begins to announce in the library: at once if it may, or when the library
// has met a peer. Adding a library again does nothing.
func (a *Announcer) Add(lib *library.Library) { a.AddGated(lib, nil) }

// AddGated is Add with a gate in force from the start; see [Announcer.SetGate].
func (a *Announcer) AddGated(lib *library.Library, publish func(can.Digest, can.Metadata) bool) {
	v := newVoice(a.ctx, lib)
	v.gate = publish
	a.mu.Lock()
	if a.voices[v.id] != nil || a.ctx.Err() != nil {
		a.mu.Unlock()
		v.cancel()
		return
	}
	a.voices[v.id] = v
	a.mu.Unlock()
	lib.Observe(func(ap replica.Applied) {
		if ap.Control && v.ctx.Err() == nil {
			a.hints.check()
		}
	})
	v.wg.Go(func() {
		for n := 1; !v.isLoaded(); n++ {
			var err error
			if a.onDesk(func() { err = a.load(v) }) != nil || v.ctx.Err() != nil {
				return
			}
			if err != nil {
				a.log.Warn("store fails", "op", "read state of library", "error", err)
				if !sleep(v.ctx, backoff(n, nil)) {
					return
				}
			}
		}
		a.hints.check()
		select {
		case <-a.Scanned():
		default:
			a.scanNow() // the first scan waited for a library
		}
		select {
		case <-lib.Met():
			a.hints.check()
		case <-v.ctx.Done():
		}
	})
}

// Remove ends announcing in the library and waits until the announcer no longer
// uses it. What is kept about it is valid only for the same membership.
func (a *Announcer) Remove(id [32]byte) {
	a.mu.Lock()
	v := a.voices[id]
	delete(a.voices, id)
	a.mu.Unlock()
	if v == nil {
		return
	}
	v.cancel()
	a.scanNow() // a scan under way begins anew without it
	v.wg.Wait()
	_ = a.onDesk(func() {}) // the desk is done with what it had begun
	v.uses.Wait()
}

// SetGate makes publish decide whether an asset that matches the filter is
// announced in the library; nil, as at first, announces all. Edits and removals of
// what the library holds do not ask.
func (a *Announcer) SetGate(id [32]byte, publish func(can.Digest, can.Metadata) bool) error {
	v, err := a.voice(id)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.gate = publish
	return nil
}

// Offer makes the announcer offer all assets to a library again, for what a gate
// now lets pass.
func (a *Announcer) Offer(id [32]byte) error {
	v, err := a.voice(id)
	if err != nil {
		return err
	}
	v.missNow()
	a.scanNow()
	return nil
}

// Poke makes the announcer look at the newest assets at once.
func (a *Announcer) Poke() { a.hints.poll() }

// Health returns since when the service works or fails, when the last full scan
// ended, zero if there was none, and why the service counts as failing, or nil.
func (a *Announcer) Health() (since, lastScan time.Time, err error) {
	return a.health.get()
}

// Held returns how many removals in the library wait for [Announcer.Confirm].
func (a *Announcer) Held(id [32]byte) int {
	v, err := a.voice(id)
	if err != nil {
		return 0
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.held
}

// Confirm publishes the removals that are on hold. It returns when they are
// published.
func (a *Announcer) Confirm(id [32]byte) error { return a.release(id, true) }

// Dismiss forgets the removals that are on hold: the library keeps the assets, and
// the node wants them again.
func (a *Announcer) Dismiss(id [32]byte) error { return a.release(id, false) }

func (a *Announcer) voice(id [32]byte) (*voice, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ctx.Err() != nil {
		return nil, ErrClosed
	}
	v := a.voices[id]
	if v == nil {
		return nil, fmt.Errorf("%w: %x", ErrNoLibrary, id[:4])
	}
	return v, nil
}

// all returns the libraries, and a function to call when they are no longer used.
func (a *Announcer) all() ([]*voice, func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	vs := slices.SortedFunc(maps.Values(a.voices), func(x, y *voice) int { return slices.Compare(x.id[:], y.id[:]) })
	for _, v := range vs {
		v.uses.Add(1)
	}
	return vs, func() {
		for _, v := range vs {
			v.uses.Done()
		}
	}
}

func (a *Announcer) some() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.voices) > 0
}

// onDesk runs fn between two decisions and waits for it.
func (a *Announcer) onDesk(fn func()) error {
	done := make(chan struct{})
	select {
	case a.desk <- func() { defer close(done); fn() }:
	case <-a.ctx.Done():
		return ErrClosed
	}
	<-done
	return nil
}

// sleep waits for d and reports false when the announcer closes first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
