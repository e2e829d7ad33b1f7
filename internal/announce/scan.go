package announce

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/inventory"
)

const (
	scanPage    = 500
	scanOverlap = 8
	// maxStepsBack bounds how often a scan goes back because the listing shifted.
	maxStepsBack = 24
	// scanRetry is the wait before a scan that failed to get a clear picture is
	// repeated, where a library waits for it.
	scanRetry = 30 * time.Second
	// hopeless is after how many assets, none of which is trashed, an empty listing
	// is no longer believed.
	hopeless = 256
)

var errRestart = errors.New("announce: the scan begins anew")

// serviceError is an error of the service among those of the store.
type serviceError struct{ err error }

func (e *serviceError) Error() string { return e.err.Error() }
func (e *serviceError) Unwrap() error { return e.err }

// scanNow makes a full scan begin, or begin anew.
func (a *Announcer) scanNow() {
	select {
	case a.rescan <- struct{}{}:
	default:
	}
}

// scans runs full scans.
func (a *Announcer) scans() {
	wait := time.Duration(0)
	for {
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-a.rescan:
		case <-a.ctx.Done():
		}
		t.Stop()
		if a.ctx.Err() != nil {
			return
		}
		wait = a.cfg.FullScanInterval
		if !a.some() {
			continue
		}
		err := a.scan()
		if ferr := a.afterFirst(); ferr != nil && a.ctx.Err() == nil {
			a.log.Warn("trashed assets not dealt with", "error", ferr)
		}
		switch {
		case a.ctx.Err() != nil:
			return
		case errors.Is(err, errRestart):
			wait = 0
		case err != nil:
			a.log.Warn("full scan failed", "error", err)
			wait = min(wait, scanRetry)
		case a.health.unscanned(): // others wait for a first clear picture
			wait = min(wait, scanRetry)
		}
	}
}

// scan lists everything once.
func (a *Announcer) scan() (err error) {
	vs, done := a.all()
	defer done()
	l := look{}
	passes := make([]*pass, 0, len(vs))
	for _, v := range vs {
		if p := v.begin(); p != nil {
			defer v.end(p)
			v.tried(time.Now())
			l.offer, passes = append(l.offer, v), append(passes, p)
		}
	}
	w := walk{}
	if w.known, err = a.outline(); err != nil {
		return err
	}
	if err := a.walk(&w, &l); err != nil {
		return err
	}
	if w.shaky {
		a.log.Debug("the listing shifts too much to conclude anything from it")
	} else if err := a.absent(&w, l.gone); err != nil {
		return err
	}
	for _, v := range vs {
		v.newWindow()
	}
	for i, v := range l.offer {
		if w.shaky {
			break
		}
		var gone []can.Digest
		err := a.pending(v, func(d []can.Digest) error {
			gone = append(gone[:0], d...)
			return a.onDesk(func() { a.remove(v, gone) })
		})
		if err != nil {
			if v.ctx.Err() != nil {
				continue
			}
			return err
		}
		if _, err := a.send(note{kind: noteCaught, only: []*voice{v}, pass: passes[i]}); err != nil {
			return err
		}
	}
	// The desk may still be at the last notes: they belong to this scan.
	if err := a.drained(); err != nil {
		return err
	}
	if !w.shaky {
		a.health.scanned(a.cfg.Now())
	}
	return nil
}

// drained waits until the desk has dealt with the notes sent so far.
func (a *Announcer) drained() error {
	for len(a.notes) > 0 {
		if err := a.onDesk(func() {}); err != nil {
			return err
		}
	}
	return a.onDesk(func() {})
}

// walk is one full listing under way.
type walk struct {
	known *outline
	probe string // a listed handle
	shaky bool   // it can't be said that everything was listed
	empty bool
}

// restarts reports whether the scan is to begin anew.
func (a *Announcer) restarts() bool {
	select {
	case <-a.rescan:
		return true
	default:
		return a.ctx.Err() != nil
	}
}

// walk lists the oldest assets first, so that new ones only append, in pages that
// overlap. When a page does not hold the end of the one before, assets left the
// listing: it goes back until the pages fit.
func (a *Announcer) walk(w *walk, l *look) error {
	var tail []string
	pos, back, step, failures := 0, 0, scanPage, 0
	for {
		if a.restarts() {
			return errRestart
		}
		o := can.ListOptions{Order: can.Oldest, Limit: scanPage, Offset: max(0, pos-scanOverlap)}
		page, err := a.list(a.ctx, o)
		a.listed(err)
		if err != nil {
			failures++
			if err := a.pause(backoff(failures, err)); err != nil {
				return err
			}
			continue
		}
		failures = 0
		at := lastOf(page.Assets, tail)
		if tail != nil && at < 0 && o.Offset > 0 && !w.shaky {
			if back++; back > maxStepsBack {
				w.shaky = true
				continue
			}
			pos = max(0, pos-step)
			step *= 2
			continue
		}
		step = scanPage
		l.intents = nil
		r, err := a.lookAll(w.news(page.Assets, l), l)
		if err == nil && len(r.doubtful) > 0 {
			err = a.lookTwice(o, r.doubtful, l)
		}
		var se *serviceError
		if errors.As(err, &se) {
			continue // the next listing shows whether it works again
		}
		if err != nil {
			return err
		}
		if r.stopped {
			continue // and see above why
		}
		end := o.Offset + len(page.Assets)
		if at+1 >= len(page.Assets) || end <= pos && tail != nil {
			w.empty = w.probe == ""
			w.shaky = a.short(page.Total-end) || w.shaky
			return nil
		}
		pos, tail = end, handlesOf(page.Assets[max(0, len(page.Assets)-scanOverlap):])
	}
}

// short reports whether a listing that ended is in doubt because that many assets
// are missing from it. A service that counts otherwise than it lists, its trash
// too perhaps, is always short of as many: then that is how it is.
func (a *Announcer) short(by int) bool {
	was := a.lacked
	a.lacked = max(0, by)
	return by > 0 && by != was
}

// pause waits, unless the scan is to begin anew.
func (a *Announcer) pause(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-a.rescan:
		return errRestart
	case <-a.ctx.Done():
		return a.ctx.Err()
	}
}

// lastOf returns the place of the last asset that is one of the handles, or -1.
func lastOf(as []can.Asset, handles []string) int {
	for i, as := range slices.Backward(as) {
		if slices.Contains(handles, as.Handle) {
			return i
		}
	}
	return -1
}

func handlesOf(as []can.Asset) []string {
	out := make([]string, len(as))
	for i := range as {
		out[i] = as[i].Handle
	}
	return out
}

// looked says what a look at several assets found.
type looked struct {
	found    bool
	stopped  bool
	doubtful map[string]inventory.Item
}

func (a *Announcer) lookAll(as []can.Asset, l *look) (r looked, err error) {
	for _, as := range as {
		s, err := a.look(as, l)
		if err != nil {
			return r, err
		}
		switch s {
		case seenNew:
			r.found = true
		case seenDoubtful:
			if r.doubtful == nil {
				r.doubtful = make(map[string]inventory.Item)
			}
			item, _, err := a.inv.ByHandle(a.ctx, as.Handle)
			if err != nil {
				return r, err
			}
			r.doubtful[as.Handle] = item
		case seenStopped:
			r.stopped = true
			return r, nil
		case seenKnown:
		}
	}
	return r, nil
}

// lookTwice lists a page again for the assets that look changed. What the node
// itself changed in between shows in their items.
func (a *Announcer) lookTwice(o can.ListOptions, doubtful map[string]inventory.Item, l *look) error {
	page, err := a.list(a.ctx, o)
	if err != nil {
		return &serviceError{err}
	}
	for _, as := range page.Assets {
		if item, ok := doubtful[as.Handle]; ok {
			again := look{urgent: l.urgent, sure: true, before: item, offer: l.offer, gone: l.gone}
			_, err := a.look(as, &again)
			l.gone = again.gone
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// absent asks the service about the assets that it should have listed and did not. What
// the listing showed to be trashed is dealt with among them.
func (a *Announcer) absent(w *walk, trashed []inventory.Item) error {
	if w.known.complete() && len(trashed) == 0 {
		return nil
	}
	var missing []inventory.Item
	answers := false
	if w.probe != "" {
		_, err := a.meta(a.ctx, w.probe)
		if errors.Is(err, can.ErrUnsupported) {
			return nil
		}
		answers = err == nil
	}
	asked := 0
	flush := func() error {
		t, m := trashed, missing
		trashed, missing = nil, nil
		if len(t)+len(m) == 0 {
			return nil
		}
		return a.onDesk(func() {
			if len(t) > 0 {
				a.trashed(t)
			}
			if len(m) > 0 {
				a.missing(m)
			}
		})
	}
	for item, err := range a.inv.Items(a.ctx) {
		if err != nil {
			return err
		}
		if !w.known.lacks(item.Handle) || item.Is(inventory.Missing) || item.Is(inventory.Trashed) && !a.unsaid(item) {
			continue
		}
		if a.restarts() {
			return errRestart
		}
		if asked++; w.empty && asked > hopeless && len(trashed) == 0 {
			a.log.Warn("the service lists nothing, and does not say that anything is trashed")
			return nil
		}
		what, err := a.askAbsent(item, &answers)
		if err != nil {
			return err
		}
		switch what {
		case inventory.Trashed:
			trashed = append(trashed, item)
		case inventory.Missing:
			missing = append(missing, item)
		}
		if len(trashed)+len(missing) == maxPortion {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// askAbsent returns what the service says about an asset that it did not list:
// trashed, missing, or zero for nothing that counts.
func (a *Announcer) askAbsent(item inventory.Item, answers *bool) (inventory.Flags, error) {
	for try := 1; ; try++ {
		as, err := a.meta(a.ctx, item.Handle)
		switch {
		case err == nil && !as.Trashed:
			*answers = true
			return 0, nil
		case err == nil:
			*answers = true
			busy, err := a.working(a.ctx, item.Digest)
			if err != nil || busy {
				return 0, err
			}
			now, known, err := a.inv.ByHandle(a.ctx, item.Handle)
			if err != nil || !known || now.Flags != item.Flags {
				return 0, err
			}
			return inventory.Trashed, nil
		case errors.Is(err, can.ErrNotFound) && *answers:
			return inventory.Missing, nil
		case a.ctx.Err() != nil:
			return 0, context.Canceled
		case !serviceFault(err), errors.Is(err, can.ErrUnsupported), errors.Is(err, can.ErrNotFound):
			return 0, nil
		case try == readTries:
			return 0, &serviceError{err}
		}
		if err := a.pause(backoff(try, err)); err != nil {
			return 0, err
		}
	}
}
