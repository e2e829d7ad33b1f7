package main

import (
	"context"
	"fmt"
	"time"

	"github.com/cansync/cansync/internal/reconcile"
)

// benchSymbols is P6.
func benchSymbols(ctx context.Context, e *env) error {
	n := e.size(1_000_000)
	ids := make([]reconcile.ID, 0, 100_000)
	for id := range randomIDs(2, cap(ids)) {
		ids = append(ids, id)
	}
	var each []time.Duration
	for range e.runs {
		s := reconcile.NewSet(benchKey, 0)
		began := time.Now()
		for _, id := range ids {
			s.Insert(id)
		}
		for _, id := range ids {
			s.Remove(id)
		}
		each = append(each, time.Since(began)/time.Duration(2*len(ids)))
		if s.Len() != 0 {
			return fmt.Errorf("%d ids left of none", s.Len())
		}
	}
	e.report(result{
		name:   fmt.Sprintf("insert or remove, %d symbols kept", reconcile.DefaultPrefix),
		figure: fmt.Sprintf("%.2f µs", float64(median(each))/1e3),
		limit:  "≤ 5 µs", holds: median(each) <= 5*time.Microsecond,
	})

	var build []time.Duration
	for range e.runs {
		began := time.Now()
		s, err := reconcile.Build(benchKey, 0, randomIDs(3, n))
		if err != nil {
			return err
		}
		build = append(build, time.Since(began))
		if s.Len() != n {
			return fmt.Errorf("%d ids of %d", s.Len(), n)
		}
	}

	dir, err := e.temp("symbols")
	if err != nil {
		return err
	}
	k, err := e.spawn("records", "node", recordsSetup{Dir: dir})
	if err != nil {
		return err
	}
	e.progress("storing %s records", group(n))
	if err := k.call(ctx, "create", none{}, nil); err != nil {
		return err
	}
	var load loaded
	if err := k.call(ctx, "load", n, &load); err != nil {
		return err
	}
	var took []time.Duration
	for range e.runs {
		var d time.Duration
		if err := k.start(ctx); err != nil {
			return err
		}
		if err := k.call(ctx, "reopen", n, &d); err != nil {
			return err
		}
		if err := k.finish(ctx); err != nil {
			return err
		}
		took = append(took, d)
	}
	limit := 2 * time.Second
	if e.quick {
		limit /= 10
	}
	e.report(result{
		name:     fmt.Sprintf("rebuild for %s from the store on open", group(n)),
		figure:   fmt.Sprintf("%.2f s in the background", median(took).Seconds()),
		baseline: fmt.Sprintf("the same from memory %.2f s", median(build).Seconds()),
		ratio:    median(took).Seconds() / median(build).Seconds(),
		limit:    fmt.Sprintf("≤ %v", limit), holds: median(took) <= limit,
	})
	e.note("stored at %s records/s while filling", group(int(perSecond(int64(n), load.Took))))
	return nil
}
