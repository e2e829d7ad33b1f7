package announce

import (
	"sync"
	"time"

	"github.com/cansync/cansync/can"
)

// maxResting bounds the assets that are remembered to be looked at later. What
// finds no room is met again by the next full scan.
const maxResting = 10_000

// why says why an asset rests.
type why uint8

const (
	// ours: it may come from an ingest of the node's own that is under way.
	ours why = iota + 1
	// applying: the node may be changing it on behalf of a library.
	applying
	// failing: the service did not answer.
	failing
	// unreadable: the service can't produce its content.
	unreadable
)

const (
	recheck     = 500 * time.Millisecond // for what the node itself is doing
	maxRecheck  = time.Minute
	firstReread = time.Minute
	maxReread   = 6 * time.Hour
	// maxDoubtful bounds the wait where it may be the service that is at fault.
	maxDoubtful = 5 * time.Minute
)

type restingAsset struct {
	asset can.Asset
	why   why
	since time.Time
	due   time.Time
	tries int
	sure  bool // unreadable, and not for a fault of the service
}

// resting are the assets to be looked at later. Times are of time.Now.
type resting struct {
	mu sync.Mutex
	m  map[string]*restingAsset
	// When a content was last read, and when one that had been unreadable.
	read, recovered time.Time
}

func (r *resting) init() { r.m = make(map[string]*restingAsset) }

// put makes an asset rest. It returns how often it did for this reason without
// being woken, from 1.
func (r *resting) put(as can.Asset, w why, wait func(tries int) time.Duration) int {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.m[as.Handle]
	switch {
	case e == nil && len(r.m) >= maxResting:
		return 1
	case e == nil:
		e = &restingAsset{}
		r.m[as.Handle] = e
		fallthrough
	case e.why != w:
		e.why, e.since, e.tries = w, now, 0
	}
	e.tries++
	e.asset, e.due = as, now.Add(wait(e.tries))
	return e.tries
}

// unread makes an asset rest whose content can't be had, and returns how often it
// did, from 1. A service that fails one read in a few gives the same errors as one
// whose asset is broken: what is not sure to be the asset's fault is tried again
// every few minutes, until others were read meanwhile and none came back that had
// failed as well.
func (r *resting) unread(as can.Asset, sure bool) int {
	tries := r.put(as, unreadable, slowly)
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.m[as.Handle]
	if e == nil {
		return tries
	}
	now := time.Now()
	e.sure = sure || r.read.After(e.since) && (r.recovered.IsZero() || now.Sub(r.recovered) > maxReread)
	if latest := now.Add(maxDoubtful); !e.sure && e.due.After(latest) {
		e.due = latest
	}
	return tries
}

// hasRead notes that an asset's content was read. One that could not be before
// casts doubt on the others.
func (r *resting) hasRead(handle string) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.read = now
	if e := r.m[handle]; e == nil || e.why != unreadable {
		return
	}
	if !r.recovered.IsZero() && now.Sub(r.recovered) < time.Minute {
		return // they were woken just before
	}
	r.recovered = now
	for _, e := range r.m {
		if latest := now.Add(maxDoubtful); e.why == unreadable && e.due.After(latest) {
			e.due = latest
		}
	}
}

// renew makes an asset that was looked at and still rests wait again.
func (r *resting) renew(handle string) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.m[handle]; e != nil && !now.Before(e.due) {
		e.due = now.Add(maxRecheck)
	}
}

// drop forgets an asset that was dealt with.
func (r *resting) drop(handle string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.m, handle)
}

// at returns for how long and why an asset rests, and whether it is not yet due.
func (r *resting) at(handle string) (w why, age time.Duration, asleep bool) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.m[handle]
	if e == nil {
		return 0, 0, false
	}
	return e.why, now.Sub(e.since), now.Before(e.due)
}

// due returns a few assets that are due, and when the next of the others is.
func (r *resting) due() (out []can.Asset, next time.Time) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.m {
		switch {
		case !now.Before(e.due) && len(out) < 64:
			out = append(out, e.asset)
		case next.IsZero() || e.due.Before(next):
			next = e.due
		}
	}
	return out, next
}

// any reports whether an asset rests for the reason.
func (r *resting) any(w why) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.m {
		if e.why == w {
			return true
		}
	}
	return false
}

func soon(int) time.Duration { return recheck }

func slowly(tries int) time.Duration {
	return min(firstReread<<min(2*(tries-1), 20), maxReread)
}
