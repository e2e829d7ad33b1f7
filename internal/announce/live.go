package announce

import (
	"context"
	"errors"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/inventory"
)

const (
	// pollPages bounds the pages of one look at the newest assets, so that events
	// do not wait; the next look goes on from there.
	pollPages = 4
	firstPage = 100
	nextPage  = 500
	// pollOverlap is how many assets two pages have in common, for those that are
	// trashed while they are listed.
	pollOverlap = 8
	// manyHints is how many events about new assets are better served by a listing.
	manyHints = 64

	cursorMark = "announce.changes"
)

// poller is the state of the live loop.
type poller struct {
	at       int // where the next look at the newest assets begins; 0 at the top
	cursor   string
	loaded   bool
	lists    time.Time // until when lists are used instead of changes
	failures int
	again    bool
}

// live looks at what events named, at the newest assets, and at what rests.
func (a *Announcer) live() {
	var p poller
	next := time.Now()
	for {
		h := a.hints.take()
		a.checkVoices()
		if h.lost {
			a.scanNow()
		}
		if a.some() && a.follow(h) {
			h.look = true
		}
		if h.look || p.again || !time.Now().Before(next) {
			next = time.Now().Add(a.pollOnce(&p))
		}
		wake := a.recheck()
		if wake.IsZero() || next.Before(wake) {
			wake = next
		}
		if p.again {
			wake = time.Now()
		}
		t := time.NewTimer(time.Until(wake))
		select {
		case <-a.hints.wake:
		case <-t.C:
		case <-a.ctx.Done():
		}
		t.Stop()
		if a.ctx.Err() != nil {
			return
		}
	}
}

// follow looks at the assets that events named. It reports whether the newest
// assets have to be listed instead.
func (a *Announcer) follow(h hinted) (list bool) {
	l := look{urgent: true}
	fresh, order := 0, h.order[:0]
	for _, handle := range h.order {
		if h.named[handle].kind == can.EventNew {
			if a.ownNews(h.named[handle].asset, &l) {
				continue
			}
			fresh++
		}
		order = append(order, handle)
	}
	for _, handle := range order {
		if h.named[handle].kind == can.EventNew && fresh > manyHints {
			list = true
			continue
		}
		as, err := a.meta(a.ctx, handle)
		if err != nil {
			list = true
			continue
		}
		l.intents = nil
		if s, err := a.look(as, &l); err != nil {
			a.log.Warn("asset not looked at", "error", err)
		} else if s == seenDoubtful {
			list = true
		}
		if a.ctx.Err() != nil {
			return false
		}
	}
	a.disposed(&l)
	return list
}

// disposed is dispose where nothing else depends on it: a scan finds what is left.
func (a *Announcer) disposed(l *look) {
	if err := a.dispose(l); err != nil && a.ctx.Err() == nil {
		a.log.Warn("trashed assets not dealt with", "error", err)
	}
}

// ownNews reports whether a new asset is one that the node itself ingested, or may be
// the one that it is ingesting, which is looked at again soon. The service need not
// be asked about those: while a library comes, all its events are of that kind.
func (a *Announcer) ownNews(as can.Asset, l *look) bool {
	if as.Handle == "" || len(as.Handle) > maxHandle {
		return false
	}
	expected := a.inv.Expected(as.Size) // before the look-up: see Expected
	item, known, err := a.inv.ByHandle(a.ctx, as.Handle)
	switch {
	case err != nil:
		return false
	case known:
		return item.Present() && item.Is(inventory.Ingested) && inventory.FingerprintOf(as.Metadata) == item.Baseline
	case !expected:
		return false
	}
	s, err := a.look(as, l)
	return err == nil && s == seenKnown
}

// recheck looks at what rests and is due, and returns when the next is.
func (a *Announcer) recheck() time.Time {
	due, next := a.rest.due()
	if !a.rest.any(failing) && a.health.failing(aboutContents) && len(due) == 0 {
		a.readable(nil) // nothing is left that could show it
	}
	l := look{urgent: true}
	for _, as := range due {
		if a.some() {
			if _, err := a.look(as, &l); err != nil {
				a.log.Warn("asset not looked at", "error", err)
			}
		}
		if a.ctx.Err() != nil {
			return next
		}
		a.rest.renew(as.Handle)
	}
	a.disposed(&l)
	if len(due) > 0 {
		_, next = a.rest.due()
	}
	return next
}

// checkVoices begins a scan when a library has to be offered everything, or hears
// only now what was edited.
func (a *Announcer) checkVoices() {
	vs, done := a.all()
	defer done()
	for _, v := range vs {
		if v.waited() || v.behind() && v.mayTry(time.Now()) {
			a.scanNow()
			return
		}
	}
}

// pollOnce looks at the newest assets and returns when to look again.
func (a *Announcer) pollOnce(p *poller) time.Duration {
	p.again = false
	err := a.poll(p)
	if a.ctx.Err() != nil {
		return 0
	}
	a.listed(err)
	if err == nil {
		p.failures = 0
		return a.cfg.PollInterval
	}
	p.failures++
	p.at = 0
	wait := max(backoff(p.failures, err), min(a.cfg.PollInterval, maxBackoff))
	a.log.Debug("service fails", "op", "poll", "error", err, "again_in", wait)
	return wait
}

func (a *Announcer) poll(p *poller) error {
	if !a.some() { // is it there?
		_, err := a.list(a.ctx, can.ListOptions{Limit: 1})
		return err
	}
	c, ok := a.cfg.Client.(can.ChangeLister)
	if !ok || time.Now().Before(p.lists) {
		return a.pollNewest(p)
	}
	if !p.loaded {
		b, err := a.inv.Mark(a.ctx, cursorMark)
		if err != nil {
			a.log.Warn("store fails", "op", "read cursor", "error", err)
			return a.pollNewest(p)
		}
		p.cursor, p.loaded = string(b), true
	}
	err := a.pollChanges(c, p)
	switch {
	case errors.Is(err, can.ErrUnsupported):
		p.lists = time.Now().Add(reprobe)
	case errors.Is(err, can.ErrBadRequest):
		// The cursor is not understood any more. Meanwhile lists do.
		p.cursor = ""
		p.lists = time.Now().Add(a.cfg.FullScanInterval)
	default:
		return err
	}
	return a.pollNewest(p)
}

func (a *Announcer) pollChanges(c can.ChangeLister, p *poller) error {
	before := p.cursor
	l := look{urgent: true}
	var err error
	for n := 0; ; n++ {
		if n == pollPages {
			p.again = true
			break
		}
		var page can.ChangePage
		page, err = call(a.ctx, func(ctx context.Context) (can.ChangePage, error) { return c.Changes(ctx, p.cursor, nextPage) })
		if err != nil {
			break
		}
		l.intents = nil
		if _, err := a.lookAll(page.Assets, &l); err != nil {
			a.log.Warn("assets not looked at", "error", err)
			break // the cursor stays
		}
		if a.ctx.Err() != nil {
			return a.ctx.Err()
		}
		stuck := page.Next == p.cursor || page.Next == ""
		if page.Next != "" && len(page.Next) <= maxCursor {
			p.cursor = page.Next
		}
		if !page.More || stuck {
			break
		}
	}
	a.disposed(&l)
	if p.cursor != before {
		if serr := a.inv.SetMark(a.ctx, cursorMark, []byte(p.cursor)); serr != nil && a.ctx.Err() == nil {
			a.log.Warn("store fails", "op", "keep cursor", "error", serr)
		}
	}
	return err
}

const maxCursor = 4 << 10

// pollNewest lists the newest assets until a page holds nothing new.
func (a *Announcer) pollNewest(p *poller) error {
	for range pollPages {
		o := can.ListOptions{Offset: max(0, p.at-pollOverlap), Limit: nextPage}
		if p.at == 0 {
			o.Limit = firstPage
		}
		found, n, err := a.lookAtPage(o)
		if err != nil {
			return err
		}
		if !found || o.Offset+n <= p.at || a.ctx.Err() != nil {
			p.at = 0
			return nil
		}
		p.at = o.Offset + n
	}
	p.again = true
	return nil
}

// lookAtPage looks at a page. What looks changed is listed a second time.
func (a *Announcer) lookAtPage(o can.ListOptions) (found bool, n int, err error) {
	page, err := a.list(a.ctx, o)
	if err != nil {
		return false, 0, err
	}
	l := look{urgent: true}
	r, err := a.lookAll(page.Assets, &l)
	if err == nil && len(r.doubtful) > 0 {
		err = a.lookTwice(o, r.doubtful, &l)
	}
	a.disposed(&l)
	if err != nil && a.ctx.Err() == nil {
		var se *serviceError
		if errors.As(err, &se) {
			return false, 0, se.err
		}
		a.log.Warn("assets not looked at", "error", err)
		err = nil
	}
	return r.found, len(page.Assets), err
}
