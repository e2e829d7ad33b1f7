package fetch

import (
	"context"
	"fmt"
	"time"

	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/transfer"
)

// errQuota says that an asset does not fit into the library's quota.
type errQuota struct{ held, limit int64 }

// Error implements error.
func (e errQuota) Error() string {
	return fmt.Sprintf("quota: %d of %d bytes are used", e.held, e.limit)
}

// Is makes it match transfer.ErrNoSpace.
func (e errQuota) Is(err error) bool { return err == transfer.ErrNoSpace }

const (
	// A count of what is missing is not repeated before recount has passed, and
	// before countShare times as long as it took.
	recount    = time.Second
	countShare = 10
	// maxSample is how many rows an estimate looks at.
	maxSample = 10_000
)

// budget is what is known of a library's bytes. What the service holds of the
// library is what is live less what is missing; the former is known at any time,
// the latter by a look at the whole queue. In between it is taken for smaller
// rather than larger than it is, so that the quota is never exceeded; a look that
// is due corrects that before anything is refused for long. All but the token is
// guarded by the fetcher's mutex.
type budget struct {
	token chan struct{} // held while the queue is looked at

	planned int64 // bytes that were let in and are on their way
	counted bool  // missing was counted
	missing int64
	soft    bool // missing may be larger by now
	void    bool // missing may be anything, since the filter may have changed
	landed  int64
	at      time.Time
	took    time.Duration
	refused bool // something was, since the last count

	// An estimate, for those who only want to know.
	about     int64
	aboutLive int64 // what was live before the look
	aboutAt   time.Time
	aboutTook time.Duration
}

// SetQuota bounds the bytes of a library that the CAN Service holds after a fetch;
// 0 means no bound. What would exceed it waits with the cause NoSpace until there
// is room; smaller assets that still fit come before it. It may be called before
// the library is added, and holds until it is removed.
func (f *Fetcher) SetQuota(id [32]byte, bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if bytes > 0 {
		f.quotas[id] = bytes
	} else {
		delete(f.quotas, id)
	}
	if d := f.libs[id]; d != nil {
		d.kickLocked()
		f.dispatch()
	}
}

// roomy reports whether anything may fit into the quota. It is called with the
// fetcher's mutex held.
func (d *desk) roomy() bool {
	limit := d.f.quotas[d.id]
	b := &d.budget
	return limit == 0 || !b.counted || b.void || b.soft || d.lib.Counts().LiveBytes-b.missing < limit
}

// admit checks that an asset whose content is missing fits into the quota. done is
// called when the attempt to get it is over.
func (d *desk) admit(t *task, size int64) (done func(came bool), err error) {
	ctx, f, b := t.ctx, d.f, &d.budget
	for {
		f.mu.Lock()
		limit := f.quotas[d.id]
		if limit == 0 {
			f.mu.Unlock()
			return func(came bool) {
				if came {
					d.came(t, size)
				}
			}, nil
		}
		held := d.lib.Counts().LiveBytes - b.missing
		known := b.counted && !b.void
		switch {
		// Neither side of it overflows. Less than nothing is held by a count that is off.
		case known && held >= 0 && size <= limit-held-b.planned:
			b.planned += size
			f.mu.Unlock()
			return func(came bool) {
				if came { // first, so that it counts all the time
					d.came(t, size)
				}
				f.mu.Lock()
				b.planned -= size
				f.mu.Unlock()
			}, nil
		case known && !b.soft && held >= 0, known && time.Since(b.at) < max(recount, countShare*b.took):
			b.refused = true
			held += b.planned
			f.mu.Unlock()
			return nil, errQuota{held, limit}
		}
		f.mu.Unlock()
		if err := d.recount(ctx); err != nil {
			return nil, err
		}
	}
}

// came takes note of a content that is there now, and no longer on its way.
func (d *desk) came(t *task, size int64) {
	d.f.mu.Lock()
	defer d.f.mu.Unlock()
	b := &d.budget
	b.missing -= size
	b.landed += size
	b.about -= size
	b.soft = true
	t.done, t.total = 0, 0
}

// note takes note of changes of the live records. It is called with the fetcher's
// mutex held.
func (b *budget) note(ap replica.Applied) {
	b.void = b.void || ap.Control
	b.soft = true
	for _, c := range ap.Changes {
		if !c.Before.Member {
			continue
		}
		less := c.Before.Bytes()
		if c.Entry.Member { // an edit may claim another size
			less = max(0, less-c.Entry.Bytes())
		}
		b.missing -= less
		b.landed += less
	}
}

// recount looks at the queue, unless somebody else just did.
func (d *desk) recount(ctx context.Context) error {
	f, b := d.f, &d.budget
	f.mu.Lock()
	before := b.at
	f.mu.Unlock()
	select {
	case b.token <- struct{}{}:
		defer func() { <-b.token }()
	case <-ctx.Done():
		return ctx.Err()
	}
	f.mu.Lock()
	if b.at != before {
		f.mu.Unlock()
		return nil
	}
	b.landed, b.soft, b.void = 0, b.planned > 0, false
	f.mu.Unlock()
	begun := time.Now()
	missing, err := d.missing(ctx, 0)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		b.void = true
		return err
	}
	b.counted, b.missing = true, missing-b.landed
	b.at = time.Now()
	b.took = b.at.Sub(begun)
	if b.refused && d.roomy() { // what was refused may fit
		b.refused = false
		d.kickLocked()
	}
	return nil
}

// missing adds up the bytes of the queued assets that the service does not hold.
// With a bound on the rows it extrapolates: digests are random, so that the first
// rows are a fair sample.
func (d *desk) missing(ctx context.Context, most int64) (sum int64, err error) {
	rows := int64(0)
	for w, err := range d.lib.Queue(ctx) {
		if err != nil {
			return 0, err
		}
		e, err := d.lib.Entry(ctx, w.Asset)
		if err != nil {
			return 0, err
		}
		if e.Member {
			if _, here, err := d.f.cfg.Inventory.Present(ctx, w.Asset); err != nil {
				return 0, err
			} else if !here {
				sum += e.Bytes()
			}
		}
		if rows++; rows == most {
			c := d.lib.Counts()
			return min(int64(float64(sum)/float64(rows)*float64(max(c.Queued, rows))), c.LiveBytes), nil
		}
	}
	return sum, nil
}

// lacks estimates how many bytes of the library are not here, from a look at the
// queue that is a second old at most, or older if it takes long. What came into the
// library since is taken for missing.
func (d *desk) lacks(ctx context.Context) (int64, error) {
	f, b := d.f, &d.budget
	now := d.lib.Counts()
	if now.Queued == 0 {
		return 0, nil
	}
	f.mu.Lock()
	about, fresh := max(0, b.about+max(0, now.LiveBytes-b.aboutLive)), !b.aboutAt.IsZero() && time.Since(b.aboutAt) < max(recount, countShare*b.aboutTook)
	f.mu.Unlock()
	if fresh {
		return about, nil
	}
	begun := time.Now()
	about, err := d.missing(ctx, maxSample)
	if err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	b.about, b.aboutLive, b.aboutAt = about, now.LiveBytes, time.Now()
	b.aboutTook = b.aboutAt.Sub(begun)
	return about, nil
}
