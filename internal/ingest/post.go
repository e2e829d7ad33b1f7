package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/inventory"
)

// post sends the content. careful has the result read back in full.
func (g *Ingester) post(ctx context.Context, job Job, careful bool) (Result, error) {
	inv := g.cfg.Inventory
	in := inventory.Intent{Digest: job.Digest, Size: job.Size, Begun: g.cfg.Now().UnixMilli(), Timestamp: job.Body.Timestamp}
	if err := inv.Begin(ctx, in); err != nil {
		return Result{}, err
	}
	done := inv.Expect(job.Size)
	defer done()
	a, err := g.send(ctx, job)
	switch can.OutcomeOf(err) {
	case can.OutcomeNotStored:
		if aerr := g.abandon(ctx, job.Digest); aerr != nil {
			g.log.Warn("an ingest that did not happen could not be noted", "asset", job.Digest, "err", aerr)
		}
		return Result{}, refusal(ctx, err)
	case can.OutcomeUnknown:
		return g.unclear(ctx, in, fmt.Errorf("%w: %w", ErrUnknown, err))
	}
	if err := g.confirm(ctx, job, a, careful); err != nil {
		if errors.Is(err, ErrNotHeld) {
			g.notHeld.Add(1)
			g.log.Error("the CAN Service confirmed an asset that it does not hold", "asset", job.Digest, "handle", a.Handle, "err", err)
		}
		return g.unclear(ctx, in, err)
	}
	item := inventory.Item{
		Handle: a.Handle, Digest: job.Digest, Root: job.Root, Size: job.Size, Timestamp: a.Timestamp,
		Flags: inventory.Ingested,
	}
	if err := g.keepTree(ctx, job); err != nil {
		return g.unclear(ctx, in, fmt.Errorf("%w: %w", ErrUnknown, err))
	}
	item.Baseline = g.agree(ctx, a, job.Body.Metadata())
	if err := g.put(ctx, item); err != nil {
		return Result{}, err
	}
	return Result{Item: item, Created: true}, nil
}

// keepTree stores the tree of content that the service holds, before anybody is
// told that it does.
func (g *Ingester) keepTree(ctx context.Context, job Job) error {
	if job.Outboard == nil {
		return nil
	}
	tree, err := job.Outboard()
	if err != nil || tree.Size() == 0 {
		return err
	}
	ctx, cancel := lasting(ctx)
	defer cancel()
	return g.cfg.Inventory.PutOutboard(ctx, job.Digest, tree)
}

// send makes the one call that may store the asset.
func (g *Ingester) send(ctx context.Context, job Job) (can.Asset, error) {
	s, err := g.limit.acquire(ctx)
	if err != nil {
		return can.Asset{}, fmt.Errorf("%w: %w", can.ErrNotStored, err)
	}
	if h := g.brk.state(); !h.Up {
		s.release()
		return can.Asset{}, fmt.Errorf("%w: %w: %w", can.ErrNotStored, can.ErrUnavailable, h.Err)
	}
	g.posted.Add(1)
	call, cancel := context.WithTimeout(ctx, contentTimeout(job.Size))
	defer cancel()
	clock := &sourceClock{}
	begun := time.Now()
	a, err := g.cfg.Service.Ingest(call, can.Ingest{
		Content: clock.opener(job.Content), Size: job.Size, Timestamp: job.Body.Timestamp, Metadata: job.Body.Metadata(),
	})
	if ctx.Err() == nil {
		err = clock.blame(begun, err)
	}
	g.brk.observe(ctx, err)
	switch wish, _ := can.RetryAfter(err); {
	case err == nil:
		s.succeeded(job.Size)
	case ctx.Err() == nil && serviceFailed(err):
		s.failed(wish)
	default:
		s.release()
	}
	return a, err
}

func contentTimeout(size int64) time.Duration {
	return callTimeout + time.Duration(size/slowest)*time.Second
}

// refusal says what an ingest that certainly stored nothing means.
func refusal(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	case errors.Is(err, can.ErrContent):
		return fmt.Errorf("%w: %w", ErrContent, err)
	case serviceFailed(err):
		return fmt.Errorf("%w: %w", ErrDown, err)
	case errors.Is(err, can.ErrBadRequest), errors.Is(err, can.ErrTooLarge), errors.Is(err, can.ErrDenied), errors.Is(err, can.ErrUnsupported):
		return fmt.Errorf("%w: %w", ErrRejected, err)
	}
	return fmt.Errorf("%w: %w", ErrDown, err)
}

// lasting is a context for what has to be written down although the caller gave
// up.
func lasting(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
}

func (g *Ingester) abandon(ctx context.Context, d can.Digest) error {
	ctx, cancel := lasting(ctx)
	defer cancel()
	g.forget(d)
	return g.cfg.Inventory.Abandon(ctx, d)
}

func (g *Ingester) put(ctx context.Context, item inventory.Item) error {
	ctx, cancel := lasting(ctx)
	defer cancel()
	g.forget(item.Digest)
	return g.cfg.Inventory.Put(ctx, item)
}

// unclear notes that the outcome is not known and looks at once, which finds the
// asset if the service is well. Nothing is sent again here: the service may still
// be at work on the request.
func (g *Ingester) unclear(ctx context.Context, in inventory.Intent, cause error) (Result, error) {
	g.ambiguous.Add(1)
	in.Ambiguous = true
	g.mu.Lock()
	if len(g.notes) < maxNotes {
		g.notes[in.Digest] = note{ended: g.cfg.Now()}
	}
	g.mu.Unlock()
	mark, cancel := lasting(ctx)
	err := g.cfg.Inventory.Begin(mark, in)
	cancel()
	if err != nil {
		// The intent from before the call stands, which says as much.
		g.log.Warn("an unclear ingest could not be marked", "asset", in.Digest, "err", err)
	}
	if ctx.Err() != nil {
		return Result{}, fmt.Errorf("%w: %w", ctx.Err(), cause)
	}
	if !g.brk.state().Up {
		return Result{}, cause
	}
	item, found, err := g.resolve(ctx, in)
	if err != nil {
		return Result{}, errors.Join(cause, err)
	}
	if !found {
		return Result{}, cause
	}
	return Result{Item: item}, nil
}

func (g *Ingester) forget(d can.Digest) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.notes, d)
}
