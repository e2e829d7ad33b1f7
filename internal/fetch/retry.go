package fetch

import (
	"errors"
	"time"

	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/ingest"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/transfer"
	"github.com/cansync/cansync/store"
)

// plan is how an error is shown and when the asset is tried again: after first,
// then each time factor times as long, up to most.
type plan struct {
	cause       replica.Cause
	ingesting   bool // the content was on its way into the service
	first, most time.Duration
	factor      float64
}

// planFor says what an error means for the asset. With factor 3 from a second on,
// there are at most five attempts in a minute.
func planFor(err error) plan {
	alone := peersAsked(err) == 0
	switch {
	case errors.Is(err, errUnread):
		return plan{first: 250 * time.Millisecond, most: 5 * time.Second, factor: 2}
	case errors.Is(err, errEdited):
		return plan{first: time.Second, most: time.Minute, factor: 2}
	case errors.Is(err, transfer.ErrBadContent):
		return plan{cause: replica.BadContent, first: time.Hour, most: 24 * time.Hour, factor: 2}
	case errors.As(err, new(errQuota)):
		// Removals, a larger quota and counts tell; nobody tells of what went another way.
		return plan{cause: replica.NoSpace, first: 5 * time.Second, most: 10 * time.Minute, factor: 3}
	case errors.Is(err, transfer.ErrNoSpace), errors.Is(err, blob.ErrNoSpace), errors.Is(err, store.ErrNoSpace):
		return plan{cause: replica.NoSpace, first: 10 * time.Second, most: 20 * time.Second, factor: 1.5}
	case errors.Is(err, ingest.ErrNotHeld):
		return plan{cause: replica.Rejected, ingesting: true, first: 10 * time.Second, most: 6 * time.Hour, factor: 4}
	case errors.Is(err, ingest.ErrRejected):
		return plan{cause: replica.Rejected, ingesting: true, first: 10 * time.Minute, most: 6 * time.Hour, factor: 2}
	case errors.Is(err, ingest.ErrUnknown):
		// It may take some seconds until a request that was lost has had its effect.
		return plan{cause: replica.ServiceDown, ingesting: true, first: 6 * time.Second, most: 24 * time.Second, factor: 2}
	case errors.Is(err, ingest.ErrDown):
		return plan{cause: replica.ServiceDown, first: time.Second, most: 24 * time.Second, factor: 3}
	case errors.Is(err, transfer.ErrNotServed), errors.Is(err, transfer.ErrNoPeer):
		if alone {
			// Somebody has to come, of which Kick tells.
			return plan{cause: replica.NoPeer, first: time.Minute, most: 4 * time.Minute, factor: 2}
		}
		return plan{cause: replica.NoPeer, first: time.Second, most: 4 * time.Minute, factor: 3}
	}
	return plan{first: time.Second, most: 4 * time.Minute, factor: 3}
}

func peersAsked(err error) int {
	var fe *transfer.FetchError
	if !errors.As(err, &fe) {
		return 0
	}
	return len(fe.Peers)
}

// delay is the wait before the next attempt, after the number of attempts that
// failed, this one included. It is spread upwards by a quarter at most.
func (p plan) delay(attempts uint32, random float64) time.Duration {
	d := float64(p.first)
	for range min(attempts, 64) - min(attempts, 1) {
		if d *= p.factor; d >= float64(p.most) {
			d = float64(p.most)
			break
		}
	}
	return time.Duration(d * (1 + random/4))
}

// coarse is the grid on which long waits end, so that many rows come due at once
// and the queue is looked at once for them.
const coarse = 10 * time.Second

// failed makes the row of an attempt that failed.
func (d *desk) failed(t *task, err error, took time.Duration) outcome {
	if !errors.Is(err, errUnread) {
		d.f.emit(Event{Library: d.id, Asset: t.asset, Kind: Failed, Err: err, Duration: took})
	}
	row, queued, rerr := d.lib.Work(t.ctx, t.asset)
	if rerr == nil && !queued {
		return outcome{t: t}
	}
	now := d.f.cfg.Now()
	if rerr != nil {
		// The store does not even read: a row is written when it does again.
		row = replica.Work{Asset: t.asset, State: replica.Wanted, Since: now.UnixMilli()}
	}
	p := planFor(err)
	if row.Cause != p.cause {
		row.Attempts = 0 // another trouble than before
	}
	row.Attempts++
	wait := p.delay(row.Attempts, d.f.cfg.Rand())
	next := now.Add(wait)
	if wait > 3*coarse {
		next = next.Truncate(coarse).Add(coarse)
	}
	row.Next, row.Cause, row.Detail = next.UnixMilli(), p.cause, err.Error()
	switch {
	case p.cause == replica.BadContent: // nothing of it is of use
		d.dropStage(t)
		row.State = replica.Wanted
	case p.ingesting:
		row.State = replica.Ingesting
	case row.State == replica.Ingesting && t.large:
		row.State = replica.Verified
	case row.State == replica.Ingesting:
		row.State = replica.Wanted
	}
	return outcome{t: t, retry: true, row: row}
}
