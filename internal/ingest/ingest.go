// Package ingest gives assets to the local CAN Service, each content once.
//
// An ingest is not idempotent on every service, so what the node is about to send
// is written down first. When the outcome stays unknown, because no answer came or
// the process died, the service is searched for the content before it is sent
// again. See docs/protocol.md.
//
// An [Ingester] is one per node: it also knows how much the service can take at
// once and whether it is there at all, and makes the other changes to it.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/record"
)

// Errors of an ingest, to be matched with errors.Is; the can package's sentinels
// stay visible beneath. Context errors pass through.
var (
	// ErrDown says that the service can't be reached or keeps failing. Nothing was
	// stored; try again when [Health] says that it is up.
	ErrDown = errors.New("ingest: the CAN Service is not available")
	// ErrRejected says that the service refused the asset, which will not change by
	// trying soon.
	ErrRejected = errors.New("ingest: the CAN Service refuses the asset")
	// ErrUnknown says that it could not be found out yet whether the service holds
	// the asset. The next ingest of the content looks again before it sends.
	ErrUnknown = errors.New("ingest: it is not known whether the CAN Service holds the asset")
	// ErrNotHeld says that the service confirmed an ingest and does not hold the
	// asset, or holds other bytes.
	ErrNotHeld = errors.New("ingest: the CAN Service confirmed an asset that it does not hold")
	// ErrContent says that the content to be ingested could not be read or is not as
	// long as was said. The service is not at fault.
	ErrContent = errors.New("ingest: content is not as described")
	// ErrClosed says that the ingester was closed.
	ErrClosed = errors.New("ingest: closed")
)

const (
	// firstChecked assets are read back in full, and later one in sampleEvery. Of the
	// first ones larger than wholeCheck that the service names by their digest, which
	// it has to compute for that, only a few places are.
	firstChecked = 100
	sampleEvery  = 100
	wholeCheck   = 1 << 20
	placeCheck   = 64 << 10
	// settling is how long after an unclear end an asset may still appear in the
	// service, because it works on a request whose answer nobody waits for.
	settling = 5 * time.Second
	// callTimeout bounds small calls, and calls that move content beside the time
	// that slowest bytes per second take.
	callTimeout = 30 * time.Second
	slowest     = 64 << 10
	maxHandle   = 1024
	// maxNotes bounds what is remembered of unclear ingests beyond their intents.
	maxNotes = 1 << 16
)

// Config says what an ingester works with. Service and Inventory are required.
type Config struct {
	Service   can.Client
	Inventory *inventory.Inventory
	// Now is the wall clock; nil is time.Now.
	Now func() time.Time
	// Logger may be nil.
	Logger *slog.Logger
	// OnHealth, if not nil, is told when the service goes down, each time the next
	// attempt is put off, and when it is back; one call at a time.
	OnHealth func(Health)
}

// Job is an asset to be ingested.
type Job struct {
	// Digest and Size of the content, which was verified.
	Digest can.Digest
	Size   int64
	// Root is the BLAKE3 hash of the content.
	Root [32]byte
	// Outboard returns the content's tree once the content was read to its end; nil,
	// or an empty tree, for content of one chunk group.
	Outboard func() (*io.SectionReader, error)
	// Body is what the live record says: the metadata and the original time.
	Body record.AssetBody
	// Content opens the content from its start. It is called once or twice. A reader
	// may wait for bytes that are still to come; it fails, and nothing is stored, when
	// the whole turns out not to have the digest. One that is an io.ReaderAt too
	// spares reading up to a place in the middle.
	Content func() (io.ReadCloser, error)
}

// Result is the asset in the service.
type Result struct {
	inventory.Item
	// Created says that this call sent the content, with the job's metadata. Else
	// the asset was there, or came by another call, with whatever metadata.
	Created bool
}

// Stats counts what an ingester did.
type Stats struct {
	Posted    int64 // ingests sent
	Ambiguous int64 // with an outcome unknown at first
	Adopted   int64 // found in the service afterwards
	Checked   int64 // read back in full
	Glanced   int64 // read back in places
	NotHeld   int64 // confirmed and not held
	Parallel  int   // ingests that may run at once now
}

// Ingester is safe for concurrent use.
type Ingester struct {
	cfg   Config
	log   *slog.Logger
	limit *limiter
	brk   *breaker
	// started is when the ingester was made: what another sent before may have been
	// under way until then.
	started time.Time

	life  context.Context
	die   context.CancelFunc
	tasks sync.WaitGroup

	posted, ambiguous, adopted, checked, glanced, notHeld atomic.Int64

	mu      sync.Mutex
	closed  bool
	flights map[can.Digest]*flight
	notes   map[can.Digest]note
}

// note is what is known of an unclear ingest beyond its intent.
type note struct {
	ended  time.Time // of the last attempt
	rounds int       // searches that a single unreadable asset kept from completing
}

// New returns an ingester. The caller calls [Ingester.Recover] before it is used,
// and [Ingester.Close] in the end.
func New(cfg Config) *Ingester {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	g := &Ingester{
		cfg: cfg, log: cfg.Logger, limit: newLimiter(), started: cfg.Now(),
		flights: make(map[can.Digest]*flight), notes: make(map[can.Digest]note),
	}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	g.life, g.die = context.WithCancel(context.Background())
	g.brk = &breaker{now: cfg.Now, health: Health{Up: true}, run: g.task, ask: func(ctx context.Context) error {
		_, err := cfg.Service.List(ctx, can.ListOptions{Limit: 1})
		return err
	}}
	if cfg.OnHealth != nil {
		g.brk.watch(cfg.OnHealth)
	}
	return g
}

// task runs fn until it returns; the context ends when the ingester closes.
func (g *Ingester) task(fn func(context.Context)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.tasks.Go(func() { fn(g.life) })
	}
}

// Close ends what is running and waits for it. Ingests that were sent and not
// answered are cleared up by the next process.
func (g *Ingester) Close() error {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.die()
	g.tasks.Wait()
	return nil
}

// enter begins a call; leave ends it.
func (g *Ingester) enter(ctx context.Context) (context.Context, func(), error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, nil, ErrClosed
	}
	g.tasks.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(g.life, func() { cancel(ErrClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
		g.tasks.Done()
	}, nil
}

// Health returns the state of the service as the ingester sees it.
func (g *Ingester) Health() Health { return g.brk.state() }

// OnHealth registers fn as Config.OnHealth does.
func (g *Ingester) OnHealth(fn func(Health)) { g.brk.watch(fn) }

// Observe takes note of how a call to the service ended that someone else made.
func (g *Ingester) Observe(ctx context.Context, err error) { g.brk.observe(ctx, err) }

// Stats returns the counters.
func (g *Ingester) Stats() Stats {
	return Stats{
		Posted: g.posted.Load(), Ambiguous: g.ambiguous.Load(), Adopted: g.adopted.Load(),
		Checked: g.checked.Load(), Glanced: g.glanced.Load(), NotHeld: g.notHeld.Load(), Parallel: g.limit.parallel(),
	}
}

// Ingest makes the service hold the asset and returns it as the inventory knows
// it. Calls for one content at the same time send it once. Errors match those of
// this package, or are the store's.
func (g *Ingester) Ingest(ctx context.Context, job Job) (Result, error) {
	ctx, leave, err := g.enter(ctx)
	if err != nil {
		return Result{}, err
	}
	defer leave()
	for {
		f, first := g.claim(job.Digest)
		if first {
			res, err := g.ingest(ctx, job)
			if err != nil && ctx.Err() != nil && errors.Is(context.Cause(ctx), ErrClosed) {
				err = fmt.Errorf("%w: %w", ErrClosed, err)
			}
			g.land(job.Digest, f, res.Item, err)
			return res, err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return Result{}, context.Cause(ctx)
		}
		if f.err == nil {
			return Result{Item: f.item}, nil
		}
		if !errors.Is(f.err, context.Canceled) && !errors.Is(f.err, context.DeadlineExceeded) && !errors.Is(f.err, ErrContent) {
			return Result{}, f.err
		}
		// What ended the other call was its own affair.
	}
}

// flight is an ingest that is running.
type flight struct {
	done chan struct{}
	item inventory.Item
	err  error
}

// claim returns the running ingest of the content, or makes the caller the one
// that runs it.
func (g *Ingester) claim(d can.Digest) (f *flight, first bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f := g.flights[d]; f != nil {
		return f, false
	}
	f = &flight{done: make(chan struct{})}
	g.flights[d] = f
	return f, true
}

func (g *Ingester) land(d can.Digest, f *flight, item inventory.Item, err error) {
	g.mu.Lock()
	delete(g.flights, d)
	g.mu.Unlock()
	f.item, f.err = item, err
	close(f.done)
}

// ingest runs while no other ingest of the content does.
func (g *Ingester) ingest(ctx context.Context, job Job) (Result, error) {
	inv := g.cfg.Inventory
	items, err := inv.ByDigest(ctx, job.Digest)
	if err != nil {
		return Result{}, err
	}
	if len(items) > 0 && items[0].Present() {
		return Result{Item: items[0]}, nil
	}
	in, unclear, err := inv.Intent(ctx, job.Digest)
	if err != nil {
		return Result{}, err
	}
	if h := g.brk.state(); !h.Up {
		return Result{}, fmt.Errorf("%w: %w", ErrDown, h.Err)
	}
	if unclear {
		item, found, err := g.resolve(ctx, in)
		if err != nil || found {
			return Result{Item: item}, err
		}
	}
	if item, sound, err := g.clear(ctx, items); err != nil || sound {
		return Result{Item: item}, err
	}
	// Content that was found bad or missing before is looked at more closely.
	return g.post(ctx, job, unclear || len(items) > 0)
}
