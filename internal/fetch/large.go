package fetch

import (
	"errors"
	"time"

	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/ingest"
	"github.com/cansync/cansync/internal/replica"
)

// bringLarge fetches a content into a stage and has it ingested from there, the
// beginning of it while the rest still comes. What the service held before waits: a
// damaged asset makes way only for content that is there.
func (d *desk) bringLarge(t *task, e replica.Entry, job ingest.Job, fresh bool) (ingest.Result, error) {
	row, _, err := d.lib.Work(t.ctx, t.asset)
	if err != nil {
		return ingest.Result{}, err
	}
	release, err := d.reserve(t, e.Body.Size)
	if err != nil {
		return ingest.Result{}, err
	}
	defer release()
	d.begin(t, job.Size)
	began, first := false, int64(-1)
	ahead := ahead{f: d.f, ctx: t.ctx, job: job, off: !fresh}
	content, err := d.f.cfg.Source.Large(t.ctx, d.want(t, e), func(done, total int64) {
		d.advance(t, done, total)
		if !began && done > 0 {
			began = true
			release()
			if row.State < replica.Partial {
				d.mark(t, replica.Partial)
				row.Cause = replica.NoCause
			}
		}
		// What was staged before does not show that there is a source again.
		if first < 0 {
			first = done
		} else if done > first && row.Cause != replica.NoCause {
			row.Cause = replica.NoCause
			d.mark(t, replica.Partial)
		}
		ahead.advance(time.Now(), done)
	}, ahead.offer)
	res, ran, aerr := ahead.wait(err != nil)
	if err != nil {
		return ingest.Result{}, err
	}
	if ran && !errors.Is(aerr, ingest.ErrContent) {
		err = aerr
	} else {
		res, err = d.ingestLarge(t, content, job)
	}
	if err != nil {
		return res, errors.Join(err, content.Close())
	}
	if derr := content.Discard(); derr != nil {
		d.f.log.Warn("a staged content could not be removed", "asset", t.asset, "err", derr)
	}
	return res, nil
}

func (d *desk) ingestLarge(t *task, c Content, job ingest.Job) (ingest.Result, error) {
	d.mark(t, replica.Ingesting)
	job.Content, job.Outboard = c.Open, c.Outboard
	return d.f.cfg.Ingester.Ingest(t.ctx, job)
}

// mark shows how far a large asset is. Nothing depends on it, so that it may fail.
func (d *desk) mark(t *task, s replica.State) {
	row, ok, err := d.lib.Work(t.ctx, t.asset)
	if err != nil || !ok {
		return
	}
	row.State, row.Cause, row.Detail = s, replica.NoCause, ""
	if err := d.lib.Progress(t.ctx, row); err != nil && t.ctx.Err() == nil {
		d.f.log.Debug("the state of an asset could not be written", "asset", t.asset, "err", err)
	}
}

func (d *desk) begin(t *task, total int64) {
	d.f.mu.Lock()
	defer d.f.mu.Unlock()
	t.total = total
}

func (d *desk) advance(t *task, done, total int64) {
	now := time.Now()
	d.f.mu.Lock()
	defer d.f.mu.Unlock()
	if t.moved { // what was staged before did not come now
		t.rate.Add(now, max(0, done-t.done))
	}
	t.moved = true
	t.done, t.total = done, total
}

// reserve checks that there is room for a large content beside those that were
// begun and do not occupy the disk yet. What is staged already does, which is for the
// disk to say: the row may speak of a stage that another record began, of another size.
func (d *desk) reserve(t *task, size uint64) (release func(), err error) {
	f := d.f
	if f.cfg.Space == nil {
		return func() {}, nil
	}
	free, err := f.cfg.Space()
	if err != nil {
		return nil, err
	}
	need := size + blob.OutboardSize(size)
	if f.cfg.Stages != nil {
		need = blob.StageNeeds(f.cfg.Stages, blob.StageKey{Library: d.id, Digest: t.asset}, size)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if used := f.planned + f.cfg.Reserve; free < used || free-used < need {
		return nil, errSpace
	}
	f.planned += need
	released := false
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if !released {
			f.planned -= need
			released = true
		}
	}, nil
}
