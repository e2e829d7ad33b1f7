package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/inventory"
)

// maxRounds is how many searches a candidate that the service has and can't deliver
// may spoil: then it is no copy worth having.
const maxRounds = 4

// Recover clears up what an earlier process left: for each ingest that was begun
// and whose outcome it did not learn, the service is searched. What can't be
// cleared up now, because the service is away, is when the content is wanted
// again. It returns the number of assets that were found, and an error only when
// the store fails or ctx ends.
func (g *Ingester) Recover(ctx context.Context) (found int, err error) {
	ctx, leave, err := g.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	var left []inventory.Intent
	for in, err := range g.cfg.Inventory.Intents(ctx) {
		if err != nil {
			return 0, err
		}
		left = append(left, in)
	}
	for _, in := range left {
		f, first := g.claim(in.Digest)
		if !first {
			continue // it is wanted already
		}
		item, ok, err := g.resolve(ctx, in)
		if err == nil && !ok {
			err = g.abandon(ctx, in.Digest)
		}
		ferr := err
		if !ok && ferr == nil {
			ferr = context.Canceled // whoever waits goes on by itself
		}
		g.land(in.Digest, f, item, ferr)
		switch {
		case ctx.Err() != nil:
			return found, ctx.Err()
		case ok:
			found++
		case err != nil:
			g.log.Info("an ingest of before the restart is not cleared up yet", "asset", in.Digest, "err", err)
		}
	}
	return found, nil
}

// resolve finds out what became of an ingest. Without an error, the asset either
// was found and is in the inventory, or is certainly not there: the search was
// complete, and long enough after the last attempt.
func (g *Ingester) resolve(ctx context.Context, in inventory.Intent) (inventory.Item, bool, error) {
	inv := g.cfg.Inventory
	if item, ok, err := inv.Present(ctx, in.Digest); err != nil || ok {
		if ok {
			err = g.put(ctx, item) // takes the intent away
		}
		return item, ok, err
	}
	now := g.cfg.Now()
	g.mu.Lock()
	n := g.notes[in.Digest]
	g.mu.Unlock()
	last := time.UnixMilli(in.Begun)
	if n.ended.After(last) {
		last = n.ended
	}
	if g.started.After(last) {
		// An earlier process sent it, up to the moment it died as far as anybody knows.
		last = g.started
	}
	tree := inv.NewOutboardWriter(ctx, nil)
	item, found, err := g.search(ctx, in, n, tree)
	if err != nil || !found {
		if terr := tree.Abort(); terr != nil {
			g.log.Warn("an unfinished tree could not be dropped", "asset", in.Digest, "err", terr)
		}
	}
	switch {
	case err != nil:
		return inventory.Item{}, false, fmt.Errorf("%w: %w", ErrUnknown, err)
	case found:
		if in.Size > blob.GroupSize {
			if err := tree.Commit(in.Digest); err != nil {
				return inventory.Item{}, false, err
			}
		}
		if err := g.put(ctx, item); err != nil {
			return inventory.Item{}, false, err
		}
		g.adopted.Add(1)
		g.log.Info("an ingest of unknown outcome had happened", "asset", in.Digest, "handle", item.Handle)
		return item, true, nil
	}
	// A clock that was set back says nothing about how long ago that was.
	if age := now.Sub(last); age > -settling && age < settling {
		return inventory.Item{}, false, fmt.Errorf("%w: it may still appear", ErrUnknown)
	}
	return inventory.Item{}, false, nil
}

// search looks in the service for the content of an intent.
func (g *Ingester) search(ctx context.Context, in inventory.Intent, n note, tree *inventory.OutboardWriter) (inventory.Item, bool, error) {
	spoiled := false
	try := func(a can.Asset) (inventory.Item, bool, error) {
		if a.Corrupted || a.Trashed || a.Size > 0 && a.Size != in.Size || a.Size == 0 && in.Size != 0 {
			return inventory.Item{}, false, nil
		}
		if a.Handle == "" || len(a.Handle) > maxHandle {
			return inventory.Item{}, false, nil
		}
		if old, known, err := g.cfg.Inventory.ByHandle(ctx, a.Handle); err != nil {
			return inventory.Item{}, false, err
		} else if known && old.Present() && old.Digest != in.Digest {
			return inventory.Item{}, false, nil // it was read before
		}
		sum, err := g.readCandidate(ctx, a.Handle, in.Size, tree)
		switch {
		case errors.Is(err, can.ErrCorrupted), errors.Is(err, can.ErrNotFound):
			if n.rounds < maxRounds {
				spoiled = true
			}
			return inventory.Item{}, false, nil
		case err != nil:
			return inventory.Item{}, false, err
		case sum.Digest != in.Digest:
			return inventory.Item{}, false, tree.Abort()
		}
		return inventory.Item{
			Handle: a.Handle, Digest: in.Digest, Root: sum.Root, Size: in.Size, Timestamp: a.Timestamp,
			Baseline: inventory.FingerprintOf(a.Metadata), Flags: inventory.Ingested,
		}, true, nil
	}
	seen := make(map[string]bool)
	l := lister{service: g.cfg.Service, observe: g.brk.observe, credible: func(ctx context.Context) (bool, error) {
		// An empty listing is no proof where the node knows of assets.
		for item, err := range g.cfg.Inventory.Items(ctx) {
			if err != nil || item.Present() {
				return false, err
			}
		}
		return true, nil
	}}
	for a, err := range l.around(ctx, in.Begun, in.Timestamp) {
		if err != nil {
			return inventory.Item{}, false, err
		}
		if seen[a.Handle] {
			continue
		}
		if a.Size < 0 || a.Size == in.Size {
			seen[a.Handle] = true
		}
		item, found, err := try(a)
		if err != nil || found {
			return item, found, err
		}
	}
	if spoiled {
		g.mu.Lock()
		if m, ok := g.notes[in.Digest]; ok || len(g.notes) < maxNotes {
			m.rounds++
			g.notes[in.Digest] = m
		}
		g.mu.Unlock()
		return inventory.Item{}, false, errors.New("a candidate could not be read")
	}
	return inventory.Item{}, false, nil
}

// readCandidate reads an asset, more than once if the service fails on it.
func (g *Ingester) readCandidate(ctx context.Context, handle string, size int64, tree *inventory.OutboardWriter) (sum blob.Summary, err error) {
	err = again(ctx, func() error {
		tree.Reset(handle)
		sum, err = g.readBack(ctx, handle, size, tree)
		return err
	})
	return sum, err
}
