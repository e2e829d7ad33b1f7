package fetch

import (
	"context"
	"time"

	"github.com/cansync/cansync/internal/replica"
)

// outcome is what became of a task: settled, to be tried again with the row as it
// is now, or, with neither, left as it was.
type outcome struct {
	t       *task
	settled bool
	local   replica.Local
	retry   bool
	row     replica.Work
}

const (
	// batch is how many outcomes one transaction takes.
	batch = 256
	// A store that refuses to write is tried again after storeRetry, and then less
	// often, up to storeRetryMax.
	storeRetry    = 250 * time.Millisecond
	storeRetryMax = 10 * time.Second
	// lastWrite bounds what is written down when the desk ends.
	lastWrite = 5 * time.Second
)

// hand gives an outcome to the settler.
func (d *desk) hand(o outcome) {
	d.f.mu.Lock()
	d.outs = append(d.outs, o)
	d.f.mu.Unlock()
	select {
	case d.ready <- struct{}{}:
	default:
	}
}

// settle writes outcomes down, as many at a time as came while the last ones were
// written: one alone does not wait, and under load a transaction is shared.
func (d *desk) settle() {
	for {
		select {
		case <-d.ready:
			d.flush(d.ctx)
		case <-d.ctx.Done():
			d.tasks.Wait()
			ctx, cancel := context.WithTimeout(context.WithoutCancel(d.ctx), lastWrite)
			d.flush(ctx)
			cancel()
			return
		}
	}
}

func (d *desk) take() []outcome {
	d.f.mu.Lock()
	defer d.f.mu.Unlock()
	n := min(len(d.outs), batch)
	outs := d.outs[:n:n]
	if d.outs = d.outs[n:]; len(d.outs) == 0 {
		d.outs = nil
	}
	return outs
}

func (d *desk) flush(ctx context.Context) {
	for outs := d.take(); len(outs) > 0; outs = d.take() {
		wait := storeRetry
		for {
			missed, err := d.write(ctx, outs)
			if err == nil {
				d.finish(outs, missed)
				break
			}
			if ctx.Err() != nil || d.ctx.Err() != nil {
				// The rows are still there; the next process looks at them again.
				d.f.mu.Lock()
				d.outs = append(outs, d.outs...)
				d.f.mu.Unlock()
				return
			}
			d.f.log.Warn("what was done can't be written down", "library", short(d.id), "assets", len(outs), "err", err)
			t := time.NewTimer(wait)
			select {
			case <-t.C:
			case <-d.ctx.Done():
				t.Stop()
			}
			wait = min(2*wait, storeRetryMax)
		}
	}
}

// write reports whether an asset stays queued because its live record changed.
func (d *desk) write(ctx context.Context, outs []outcome) (missed bool, err error) {
	var done []replica.Settled
	var rows []replica.Work
	for _, o := range outs {
		switch {
		case o.settled:
			done = append(done, replica.Settled{Asset: o.t.asset, Local: o.local})
		case o.retry:
			rows = append(rows, o.row)
		}
	}
	if len(done) > 0 {
		n, err := d.lib.Settle(ctx, done)
		if err != nil {
			return false, err
		}
		missed = n < len(done)
	}
	if len(rows) > 0 {
		return missed, d.lib.Progress(ctx, rows...)
	}
	return missed, nil
}

// finish takes tasks out of memory whose outcome is written down, but those that
// have to be looked at again.
func (d *desk) finish(outs []outcome, missed bool) {
	f := d.f
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range outs {
		if o.t.again {
			d.line(o.t)
			continue
		}
		delete(d.pending, o.t.asset)
		if !o.retry {
			delete(d.asked, o.t.asset)
		} else {
			d.census.waiting++
			if o.row.Next != 0 && (d.due == 0 || o.row.Next < d.due) {
				d.due = o.row.Next
				d.wake()
			}
		}
	}
	d.census.stale = true
	if missed {
		d.more = true
	}
	if d.more && d.small.len()+d.large.len() < lowWater {
		d.wake()
	}
	f.dispatch()
}
