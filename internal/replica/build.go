package replica

import (
	"context"
	"fmt"

	"github.com/cansync/cansync/internal/reconcile"
	"github.com/cansync/cansync/internal/record"
)

// buildPage is how many ids are handed over at a time while the symbols are built.
const buildPage = 4096

// build makes the coded symbols of the asset set from the store. The writer is held
// only until the scan has begun: what is stored meanwhile is noted in r.assets, and
// added at the end.
func (r *Replica) build(ctx context.Context) {
	defer close(r.ready)
	if err := r.lock(ctx); err != nil {
		r.readyErr = err
		return
	}
	set, err := r.code(ctx, func() {
		r.mu.Lock()
		r.assets = reconcile.NewSet(r.opts.ReconcileKey, assetPrefix) // the scan sees what came before
		r.mu.Unlock()
		r.unlock()
	})
	if err != nil {
		r.readyErr = fmt.Errorf("replica: read ids: %w", err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.readyErr = set.Merge(r.assets); r.readyErr == nil {
		r.assets = set
	}
}

// code reads the ids on one core and codes them on another. It calls begun once, as
// soon as what it reads is settled.
func (r *Replica) code(ctx context.Context, begun func()) (*reconcile.Set, error) {
	set := reconcile.NewSet(r.opts.ReconcileKey, assetPrefix)
	pages, coded := make(chan []record.ID, 2), make(chan struct{})
	go func() {
		defer close(coded)
		for page := range pages {
			for _, id := range page {
				set.Insert(id)
			}
		}
	}()
	defer func() { <-coded }()
	defer close(pages)
	defer func() {
		if begun != nil {
			begun() // there was nothing to read
		}
	}()
	page := make([]record.ID, 0, buildPage)
	for id, err := range r.IDs(ctx, false, nil) {
		if begun != nil {
			begun()
			begun = nil
		}
		if err != nil {
			return nil, err
		}
		if page = append(page, id); len(page) == buildPage {
			pages <- page
			page = make([]record.ID, 0, buildPage)
		}
	}
	pages <- page
	return set, nil
}
