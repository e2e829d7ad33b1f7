package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/inventory"
)

// Trash trashes an asset in the service on behalf of a library. That it was the
// node is written down first, so that it is never taken for the user's wish. It
// returns false where the service has no such call.
func (g *Ingester) Trash(ctx context.Context, item inventory.Item) (bool, error) {
	ctx, leave, err := g.enter(ctx)
	if err != nil {
		return false, err
	}
	defer leave()
	return g.trash(ctx, item)
}

func (g *Ingester) trash(ctx context.Context, item inventory.Item) (bool, error) {
	t, able := g.cfg.Service.(can.Trasher)
	if !able {
		return false, nil
	}
	if h := g.brk.state(); !h.Up {
		return false, errors.Join(ErrDown, h.Err)
	}
	item.Flags |= inventory.TrashedByUs
	if err := g.put(ctx, item); err != nil {
		return false, err
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := t.Trash(call, item.Handle)
	g.brk.observe(ctx, err)
	switch {
	case err == nil:
		item.Flags |= inventory.Trashed
		return true, g.put(ctx, item)
	case errors.Is(err, can.ErrNotFound):
		item.Flags = item.Flags&^inventory.TrashedByUs | inventory.Missing
		return false, g.put(ctx, item)
	case errors.Is(err, can.ErrUnsupported), errors.Is(err, can.ErrBadRequest), errors.Is(err, can.ErrDenied):
		item.Flags &^= inventory.TrashedByUs
		if perr := g.put(ctx, item); perr != nil || errors.Is(err, can.ErrUnsupported) {
			return false, perr
		}
	}
	return false, downOr(err) // it may have happened: the flag stays until it is tried again
}

// clear trashes assets whose bytes rotted before their content is ingested again: a
// service that goes by a content's hash answers with the asset that it has, and
// never looks at what is sent. After a crash in between, the assets are known to be
// trashed by the node and the content is ingested when it is next wanted. Where the
// service does not trash, it may still repair by itself.
//
// The mark may be old, or come from a service that had a bad moment: each asset is
// read once more before, and one that is in order is returned instead.
func (g *Ingester) clear(ctx context.Context, items []inventory.Item) (sound inventory.Item, ok bool, err error) {
	for _, it := range items {
		if !it.Is(inventory.Bad) || it.Is(inventory.Trashed) || it.Is(inventory.Missing) {
			continue
		}
		rotten, err := g.rotten(ctx, it)
		switch {
		case errors.Is(err, can.ErrNotFound):
			continue
		case err != nil:
			return it, false, fmt.Errorf("read the damaged asset: %w", downOr(err))
		case !rotten:
			it.Flags &^= inventory.Bad
			return it, true, g.put(ctx, it)
		}
		done, err := g.trash(ctx, it)
		switch {
		case errors.Is(err, can.ErrBadRequest), errors.Is(err, can.ErrDenied):
		case err != nil:
			return it, false, fmt.Errorf("trash the damaged asset: %w", err)
		case done:
			g.log.Warn("a damaged asset was trashed to be ingested again", "asset", it.Digest, "handle", it.Handle)
		}
	}
	return sound, false, nil
}

// rotten reports whether the service holds other bytes than those of the asset.
func (g *Ingester) rotten(ctx context.Context, it inventory.Item) (bool, error) {
	var sum blob.Summary
	err := again(ctx, func() (err error) {
		sum, err = g.readBack(ctx, it.Handle, it.Size, io.Discard)
		return err
	})
	if errors.Is(err, can.ErrCorrupted) {
		return true, nil
	}
	return sum.Digest != it.Digest, err
}
