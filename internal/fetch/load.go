package fetch

import (
	"bytes"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/transfer"
)

const (
	// timedScan is the least time between two looks at the queue for rows whose
	// time has come, and poll the time after which rows that came by other ways
	// than new records are noticed.
	timedScan = time.Second
	poll      = 5 * time.Second
	// A look at the queue that takes long is not repeated before scanShare times
	// as long has passed.
	scanShare = 4
	// soon is beyond every wait: a row further in the future was written by a
	// clock that has been set back.
	soon = 48 * time.Hour
)

// load fills the window from the queue.
func (d *desk) load() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last, took = time.Time{}, time.Duration(0)
	for {
		urgent := false
		select {
		case <-d.ctx.Done():
			return
		case <-d.signal:
			urgent = true
		case <-timer.C:
		}
		gap := scanShare * took
		if !urgent {
			gap = max(gap, timedScan)
		}
		if left := gap - time.Since(last); !last.IsZero() && left > 0 {
			select {
			case <-d.ctx.Done():
				return
			case <-time.After(left):
			}
		}
		if d.worthwhile(urgent) {
			last = time.Now()
			n, err := d.scan()
			if err != nil && d.ctx.Err() == nil {
				d.f.log.Warn("the queue could not be read", "library", short(d.id), "err", err)
			}
			if took = time.Since(last); n >= lowWater/2 {
				took = 0 // time well spent
			}
		}
		timer.Reset(d.sleep())
	}
}

// worthwhile reports whether a look at the queue may find something to do. Rows
// that nobody told of are looked for now and then only.
func (d *desk) worthwhile(urgent bool) bool {
	queued := d.lib.Counts().Queued
	now := d.f.cfg.Now().UnixMilli()
	f := d.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if d.lib.Paused() || len(d.pending) >= window || !d.lib.Fetches() && len(d.asked) == 0 {
		return false
	}
	return d.more || d.kick || d.due != 0 && d.due <= now || !urgent && queued != int64(len(d.pending))+d.census.waiting
}

// sleep is how long there is nothing to load.
func (d *desk) sleep() time.Duration {
	f := d.f
	now := f.cfg.Now().UnixMilli()
	f.mu.Lock()
	defer f.mu.Unlock()
	if d.due == 0 {
		return poll
	}
	if d.due <= now {
		return timedScan // the library is paused, or the window full
	}
	return min(poll, time.Duration(d.due-now)*time.Millisecond)
}

// scan reads the queue until the window is full and returns how many assets it
// found to be worked on.
func (d *desk) scan() (int, error) {
	f := d.f
	now := f.cfg.Now()
	f.mu.Lock()
	kick, from := d.kick, d.kickFrom
	d.kick, d.more, d.due = false, false, 0
	room, roomLarge := window-len(d.pending), window/2-d.large.len()
	all, roomy := d.lib.Fetches(), d.roomy()
	f.mu.Unlock()

	var found []*task
	var c census
	whole, more := true, false
	var cut can.Digest // the first asset that there was no room for
	err := func() error {
		for w, err := range d.lib.Queue(d.ctx) {
			if err != nil {
				return err
			}
			c.add(w)
			f.mu.Lock()
			_, known := d.pending[w.Asset]
			_, asked := d.asked[w.Asset]
			f.mu.Unlock()
			if known {
				continue
			}
			if !all && !asked {
				c.waiting++
				continue
			}
			wait := time.UnixMilli(w.Next).Sub(now)
			if wait > 0 && wait < soon && !(kick && (forPeers(w.Cause) || roomy && w.Cause == replica.NoSpace) && bytes.Compare(w.Asset[:], from[:]) >= 0) {
				c.waiting++
				if c.due == 0 || w.Next < c.due {
					c.due = w.Next
				}
				continue
			}
			e, err := d.lib.Entry(d.ctx, w.Asset)
			if err != nil {
				return err
			}
			t := &task{d: d, asset: w.Asset, large: e.Member && e.Body.Size > transfer.SmallLimit}
			if t.large {
				if roomLarge--; roomLarge < 0 {
					if !more {
						more, cut = true, w.Asset
					}
					continue
				}
			}
			if room--; room < 0 {
				if !more {
					cut = w.Asset
				}
				more, whole = true, false
				return nil
			}
			found = append(found, t)
		}
		return nil
	}()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		d.more = true
		if kick && !d.kick {
			d.kick, d.kickFrom = true, from
		}
		d.due = now.Add(timedScan).UnixMilli()
	} else {
		d.more = d.more || more
		if kick && more && !d.kick {
			d.kick, d.kickFrom = true, cut
		}
		if whole {
			d.census = c
			d.census.at = now
		}
	}
	if c.due != 0 && (d.due == 0 || c.due < d.due) {
		d.due = c.due
	}
	for _, t := range found {
		if d.pending[t.asset] == nil {
			d.pending[t.asset] = t
			d.line(t)
		}
	}
	f.dispatch()
	return len(found), err
}

// forPeers says that a cause may have gone when a peer came.
func forPeers(c replica.Cause) bool {
	return c == replica.NoPeer || c == replica.NotAllowed || c == replica.SourceOffline
}
