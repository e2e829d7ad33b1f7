package ingest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/cansync/cansync/can"
)

const (
	// before is how much older than the begin of an ingest a service's time of it
	// may be, for clocks that differ.
	before = 5 * time.Minute
	// near is how far a kept original time may be from the one given, for services
	// that keep seconds.
	near = 2 * time.Second
	// pageSize is what is asked for; services may cap it.
	pageSize = 500
	// overlap is how many assets of a page the next one repeats, which shows a
	// listing that shifts.
	overlap = 16
	// restarts bounds how often a shifting listing is begun again, and maxPages
	// what one search reads.
	restarts = 3
	maxPages = 1 << 16
)

var (
	errShifting = errors.New("the listing shifts")
	errPartial  = errors.New("the listing is not complete")
)

// lister reads the parts of a service's listing in which an asset must be that
// was ingested at a given time. What it yields may be repeated. A listing that
// breaks off, shrinks while it is read, or is empty against what the node knows is
// an error: only a complete one says that something is not there.
type lister struct {
	service  can.Lister
	observe  func(context.Context, error)
	credible func(context.Context) (bool, error) // an empty listing is possible
}

// around yields the assets that came since shortly before begun, both in Unix
// milliseconds, and those around the original time.
func (l lister) around(ctx context.Context, begun, original int64) iter.Seq2[can.Asset, error] {
	oldest := begun - before.Milliseconds()
	return func(yield func(can.Asset, error) bool) {
		sorted := true
		for p, err := range l.from(ctx, 0, oldest, &sorted) {
			if !yield(p, err) || err != nil {
				return
			}
		}
		if !sorted || original <= 0 || original >= oldest {
			return // the walk went through everything, or past the original time
		}
		at, err := l.find(ctx, original+near.Milliseconds())
		if err != nil {
			yield(can.Asset{}, err)
			return
		}
		for p, err := range l.from(ctx, max(0, at-overlap), original-near.Milliseconds(), &sorted) {
			if !yield(p, err) || err != nil {
				return
			}
		}
	}
}

// from yields assets from an offset on, the newest first, to the first page that
// ends with one older than oldest, or to the end if the listing turns out not to
// be sorted.
func (l lister) from(ctx context.Context, offset int, oldest int64, sorted *bool) iter.Seq2[can.Asset, error] {
	return func(yield func(can.Asset, error) bool) {
		start, begun := offset, 0
		last := "" // the handle that the next page must repeat
		for range maxPages {
			page, end, err := l.page(ctx, offset)
			if err != nil {
				yield(can.Asset{}, err)
				return
			}
			known := last == "" || len(page) == 0
			for i, a := range page {
				known = known || a.Handle == last
				if i > 0 && a.Timestamp > page[i-1].Timestamp {
					*sorted = false
				}
			}
			if !known {
				if begun++; begun > restarts {
					yield(can.Asset{}, errShifting)
					return
				}
				offset, last = start, ""
				continue
			}
			for _, a := range page {
				if !yield(a, nil) {
					return
				}
			}
			if end || *sorted && page[len(page)-1].Timestamp < oldest {
				return
			}
			repeat := min(overlap, len(page)/2)
			if last = ""; repeat > 0 {
				last = page[len(page)-1].Handle
			}
			offset += len(page) - repeat
		}
		yield(can.Asset{}, fmt.Errorf("%w: more than %d pages", errPartial, maxPages))
	}
}

// page reads one page; end says that nothing comes after it.
func (l lister) page(ctx context.Context, offset int) ([]can.Asset, bool, error) {
	p, err := l.list(ctx, offset, pageSize)
	if err != nil {
		return nil, false, err
	}
	if len(p.Assets) > 0 {
		return p.Assets, p.Total >= 0 && offset+len(p.Assets) >= p.Total, nil
	}
	if p.Total > offset {
		return nil, false, fmt.Errorf("%w: nothing at %d of %d", errPartial, offset, p.Total)
	}
	// Nothing is there, or the service only says so.
	ok := true
	switch {
	case offset == 0:
		ok, err = l.credible(ctx)
	case p.Total >= 0:
		err = errShifting // pages overlap, so the listing shrank
	}
	if err != nil {
		return nil, false, err
	}
	if p, err := l.list(ctx, offset, pageSize); err != nil {
		return nil, false, err
	} else if !ok || len(p.Assets) > 0 || p.Total > offset {
		return nil, false, fmt.Errorf("%w: it is empty", errPartial)
	}
	return nil, true, nil
}

// list makes one call, again if the service fails: a search takes many of them, and
// begins anew when one is missing.
func (l lister) list(ctx context.Context, offset, limit int) (p can.Page, err error) {
	err = again(ctx, func() error {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		p, err = l.service.List(call, can.ListOptions{Limit: limit, Offset: offset, Order: can.Newest})
		l.observe(ctx, err)
		return err
	})
	return p, err
}

const (
	// readTries is how often a call that changes nothing is made, readPause the wait
	// after the first failure, and readPatience the longest wait that the service may
	// ask for: beyond, the search is put off.
	readTries    = 4
	readPause    = 50 * time.Millisecond
	readPatience = 5 * time.Second
)

// again makes a call that changes nothing until it succeeds, a few times.
func again(ctx context.Context, call func() error) error {
	pause := readPause
	for try := 1; ; try++ {
		err := call()
		if err == nil || ctx.Err() != nil || try == readTries {
			return err
		}
		wish, _ := can.RetryAfter(err)
		if wish > readPatience {
			return err
		}
		t := time.NewTimer(max(wish, pause))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
		pause *= 2
	}
}

// find returns the first offset of the listing, the newest first, at which assets
// are no newer than the time.
func (l lister) find(ctx context.Context, at int64) (int, error) {
	older := func(offset int) (bool, error) {
		p, err := l.list(ctx, offset, 1)
		if err != nil {
			return false, err
		}
		if len(p.Assets) == 0 && p.Total > offset {
			return false, fmt.Errorf("%w: nothing at %d of %d", errPartial, offset, p.Total)
		}
		return len(p.Assets) == 0 || p.Assets[0].Timestamp <= at, nil
	}
	low, high := 0, 1
	for { // an offset that is old enough
		ok, err := older(high - 1)
		if err != nil {
			return 0, err
		}
		if ok {
			break
		}
		if low, high = high, 2*high; high > 1<<40 {
			return 0, errPartial
		}
	}
	for low < high-1 {
		mid := (low + high - 1) / 2
		ok, err := older(mid)
		if err != nil {
			return 0, err
		}
		if ok {
			high = mid + 1
		} else {
			low = mid + 1
		}
	}
	return high - 1, nil
}
