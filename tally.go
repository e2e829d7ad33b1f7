package cansync

import (
	"context"
	"time"

	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/replica"
)

// tally is what the rows of a library's queue come to.
type tally struct {
	// foreign are not in the library: removals to follow, and what left the filter.
	foreign int64
	causes  map[Cause]int64
	failed  int64

	at   time.Time
	took time.Duration
}

// maxTally bounds how many rows of the queue a tally looks at; beyond, the causes
// are those of the first rows, and digests being random the others are much the same.
const maxTally = 10_000

// tallyShare bounds the time that is spent on tallies, however often they are asked
// for: one is good for so many times as long as it took.
const tallyShare = 10

// tally says of each asset in the queue what [Library.Asset] says.
func (l *Library) tally(ctx context.Context, lib *library.Library) (tally, error) {
	c := lib.Counts()
	if c.Queued == 0 {
		return tally{}, nil
	}
	begun := time.Now()
	l.n.mu.Lock()
	t := l.tallied
	l.n.mu.Unlock()
	if begun.Sub(t.at) < tallyShare*t.took {
		return t, nil
	}
	t = tally{causes: make(map[Cause]int64)}
	src, seen := new(sources), int64(0)
	for w, err := range lib.Queue(ctx) {
		if err != nil {
			return t, err
		}
		if err := l.count(ctx, lib, w, src, &t); err != nil {
			return t, err
		}
		if seen++; seen == maxTally {
			t.foreign = int64(float64(t.foreign) / float64(seen) * float64(max(c.Queued, seen)))
			if !lib.Fetches() { // what is asked for by name is a matter of moments
				t.causes[ByMode] += max(0, c.Queued-seen)
			}
			break
		}
	}
	t.at = time.Now()
	t.took = t.at.Sub(begun)
	l.n.mu.Lock()
	l.tallied = t
	l.n.mu.Unlock()
	return t, nil
}

func (l *Library) count(ctx context.Context, lib *library.Library, w replica.Work, src *sources, t *tally) error {
	e, err := lib.Entry(ctx, w.Asset)
	if err != nil {
		return err
	}
	a := Asset{Digest: w.Asset, State: assetStates[w.State], Cause: causes[w.Cause]}
	switch {
	case e.Member:
		l.explain(lib, e, &a, src)
	case !lib.Fetches():
		a.Cause = ByMode
	}
	if !e.Member {
		t.foreign++
	}
	if a.Cause == "" {
		return nil
	}
	if t.causes[a.Cause]++; a.Cause != ByMode {
		t.failed++
	}
	return nil
}

// synced returns how many assets are as they should be in the CAN Service.
func synced(c replica.Counts, t tally) int64 {
	return max(0, c.Live-max(0, c.Queued-t.foreign)-c.Trashed-c.Held)
}
