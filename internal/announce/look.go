package announce

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/replica"
)

// maxHandle is the longest handle that can be remembered, in bytes.
const maxHandle = 1024

// seen says what became of an asset that was looked at.
type seen uint8

const (
	// seenKnown: there is nothing new about it, or it is being dealt with.
	seenKnown seen = iota
	// seenNew: it is on its way to the readers.
	seenNew
	// seenDoubtful: it looks changed, and the service can't be asked about one
	// asset: it has to be listed again.
	seenDoubtful
	// seenStopped: the announcer closes, or the scan begins anew.
	seenStopped
)

// look is how assets are looked at.
type look struct {
	urgent bool
	// offer are the libraries to which known assets are offered.
	offer []*voice
	// listed says that the asset was listed twice with the same metadata, and what
	// its item was before the second time.
	sure   bool
	before inventory.Item
	// gone are the known assets that turned out to be trashed. Whoever looks deals with
	// them together, so that many at once are seen to be many.
	gone []inventory.Item
	// intents are the sizes of the ingests whose outcome is not known; read when
	// first needed.
	intents map[int64]bool
}

// look deals with one asset as the service describes it. Errors are of the store.
func (a *Announcer) look(as can.Asset, l *look) (seen, error) {
	ctx := a.ctx
	if as.Handle == "" || len(as.Handle) > maxHandle {
		return seenKnown, nil
	}
	w, age, asleep := a.rest.at(as.Handle)
	expected := a.inv.Expected(as.Size) // before the look-up: see Expected
	item, known, err := a.inv.ByHandle(ctx, as.Handle)
	if err != nil {
		return seenKnown, err
	}
	if !known {
		return a.lookNew(as, l, w, age, asleep, expected)
	}
	switch {
	case as.Trashed:
		if item.Is(inventory.Trashed) && !a.unsaid(item) {
			return seenKnown, nil
		}
		return a.verify(as, item, l)
	case item.Is(inventory.Bad):
		if asleep || as.Corrupted {
			return seenKnown, nil
		}
		if w == 0 { // the server found it; give it time
			a.rest.put(as, unreadable, slowly)
			return seenKnown, nil
		}
		return a.read(as, l)
	case item.Is(inventory.Trashed):
		return a.verify(as, item, l)
	case item.Is(inventory.Missing):
		return a.send(note{kind: noteBack, asset: as, item: item})
	case item.Baseline == inventory.Fingerprint{}:
		if a.isBusy(as.Handle) {
			return seenKnown, nil // on the desk right now
		}
		return a.send(note{kind: noteOffer, asset: as, item: item})
	case inventory.FingerprintOf(as.Metadata) != item.Baseline:
		return a.verify(as, item, l)
	}
	if w == applying || w == ours {
		a.rest.drop(as.Handle)
	}
	if len(l.offer) > 0 {
		return a.send(note{kind: noteOffer, asset: as, item: item, only: l.offer})
	}
	return seenKnown, nil
}

func (a *Announcer) lookNew(as can.Asset, l *look, w why, age time.Duration, asleep, expected bool) (seen, error) {
	switch {
	case as.Trashed || asleep || a.isBusy(as.Handle):
		return seenKnown, nil
	case as.Corrupted:
		a.unread(as, can.ErrCorrupted, true)
		return seenKnown, nil
	}
	if !expected {
		if l.intents == nil {
			l.intents = make(map[int64]bool)
			for in, err := range a.inv.Intents(a.ctx) {
				if err != nil {
					return seenKnown, err
				}
				l.intents[in.Size] = true
			}
		}
		expected = l.intents[as.Size] || as.Size < 0 && len(l.intents) > 0
	}
	if expected && (w != ours || age < maxRecheck) {
		a.rest.put(as, ours, soon)
		return seenKnown, nil
	}
	return a.read(as, l)
}

func (a *Announcer) read(as can.Asset, l *look) (seen, error) {
	if !a.push(as, l.urgent) {
		return seenStopped, nil
	}
	return seenNew, nil
}

func (a *Announcer) send(n note) (seen, error) {
	select {
	case a.notes <- n:
		return seenKnown, nil
	case <-a.ctx.Done():
		return seenStopped, nil
	}
}

// verify makes sure that a known asset really differs from what the node agreed
// with, and that the node itself is not the one who is changing it: what was
// listed may be older than what the node did since.
func (a *Announcer) verify(as can.Asset, item inventory.Item, l *look) (seen, error) {
	ctx := a.ctx
	fresh, err := a.meta(ctx, as.Handle)
	switch {
	case err == nil:
	case errors.Is(err, can.ErrUnsupported):
		if !l.sure {
			return seenDoubtful, nil
		}
		if l.before != item {
			return seenKnown, nil // it moved; the next look decides
		}
		fresh = as
	case a.ctx.Err() != nil:
		return seenStopped, nil
	case errors.Is(err, can.ErrNotFound):
		return seenKnown, nil // the scan finds out
	default:
		if !serviceFault(err) {
			return seenKnown, nil
		}
		a.rest.put(as, failing, func(n int) time.Duration { return backoff(n, err) })
		return seenKnown, nil
	}
	if w, age, _ := a.rest.at(as.Handle); w != applying || age < maxRecheck {
		busy, err := a.working(ctx, item.Digest)
		if err != nil {
			return seenKnown, err
		}
		if busy {
			a.rest.put(as, applying, soon)
			return seenKnown, nil
		}
	}
	now, known, err := a.inv.ByHandle(ctx, as.Handle)
	if err != nil || !known {
		return seenKnown, err
	}
	if now != item {
		a.rest.put(as, applying, soon)
		return seenKnown, nil
	}
	a.rest.drop(as.Handle)
	switch {
	case fresh.Trashed:
		if l.gone = append(l.gone, item); len(l.gone) == maxPortion {
			return seenKnown, a.dispose(l)
		}
		return seenKnown, nil
	case item.Is(inventory.Trashed):
		return a.send(note{kind: noteBack, asset: fresh, item: item})
	case inventory.FingerprintOf(fresh.Metadata) != item.Baseline:
		return a.send(note{kind: noteEdit, asset: fresh, item: item})
	}
	return seenKnown, nil
}

// dispose deals with what a look found to be trashed, once the first scan since the start
// is over: what was trashed while the node was off is for that scan, which finds all of
// it at once.
func (a *Announcer) dispose(l *look) error {
	gone := l.gone
	if l.gone = nil; len(gone) == 0 || a.early.keep(gone) {
		return nil
	}
	return a.onDesk(func() { a.trashed(gone) })
}

// early keeps what was found to be trashed while the first scan is under way.
type early struct {
	mu    sync.Mutex
	over  bool
	more  bool // than are kept
	items []inventory.Item
}

// keep reports whether the items are dealt with after the scan.
func (e *early) keep(items []inventory.Item) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over {
		return false
	}
	n := min(len(items), maxPortion-len(e.items))
	e.items, e.more = append(e.items, items[:n]...), e.more || n < len(items)
	return true
}

// afterFirst deals with what was kept, when the first scan has come to an end.
func (a *Announcer) afterFirst() error {
	a.early.mu.Lock()
	items, more := a.early.items, a.early.more
	a.early.over, a.early.items, a.early.more = true, nil, false
	a.early.mu.Unlock()
	if more {
		a.scanNow()
	}
	if len(items) == 0 {
		return nil
	}
	return a.onDesk(func() { a.trashed(items) })
}

// working reports whether a library may be bringing the asset up to date in the
// service right now. A row that waits for its next attempt, and not for the
// service, is not being worked on: perhaps it waits for what the user did here.
func (a *Announcer) working(ctx context.Context, d can.Digest) (bool, error) {
	now := a.cfg.Now().UnixMilli()
	vs, done := a.all()
	defer done()
	for _, v := range vs {
		if !v.lib.Fetches() {
			continue
		}
		w, ok, err := v.lib.Work(ctx, d)
		if err != nil {
			return false, err
		}
		if ok && (w.Next <= now || w.Cause == replica.ServiceDown) {
			return true, nil
		}
	}
	return false, nil
}
