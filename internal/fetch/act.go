package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"lukechampine.com/blake3"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/ingest"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/transfer"
)

var (
	// errSpace says that a large content would leave too little disk space.
	errSpace = fmt.Errorf("%w: the reserve would be used", transfer.ErrNoSpace)
	// errUnread says that the content may be here already.
	errUnread = errors.New("fetch: an asset of the same size is being read first")
	// errEdited says that the user changed the metadata here, which is announced
	// before the record is applied; the later of the two then wins.
	errEdited = errors.New("fetch: metadata was changed here and is not announced yet")
)

// act does what is to be done about an asset now.
func (d *desk) act(t *task) outcome {
	begun := time.Now()
	e, err := d.lib.Entry(t.ctx, t.asset)
	var o outcome
	if err == nil {
		o, err = d.decide(t, e, begun)
	}
	if err == nil {
		o.t = t
		return o
	}
	if t.ctx.Err() != nil {
		return outcome{t: t} // closed, or to be looked at again
	}
	return d.failed(t, err, time.Since(begun))
}

func (d *desk) decide(t *task, e replica.Entry, begun time.Time) (outcome, error) {
	if !e.Member {
		return d.leave(t, e, begun)
	}
	// Twice at most: what was believed to be there may turn out not to be.
	brought := false
	for range 3 {
		items, err := d.f.cfg.Inventory.ByDigest(t.ctx, t.asset)
		if err != nil {
			return outcome{}, err
		}
		if len(items) == 0 || !items[0].Present() {
			if trashedByUser(items) {
				d.dropStage(t)
				return settled(e, replica.TrashedHere), nil
			}
			res, err := d.bring(t, e, begun, len(items) == 0)
			if err != nil {
				return outcome{}, err
			}
			if brought = true; res.Created {
				return settled(e, replica.Have), nil
			}
			items = []inventory.Item{res.Item}
		}
		done, err := d.apply(t, e, items[0], begun)
		if err != nil {
			return outcome{}, err
		}
		if done {
			if !brought {
				d.came(t, e.Bytes()) // if it was missed before, by another way
			}
			if t.large {
				d.dropStage(t) // begun before the content came by another way
			}
			return settled(e, replica.Have), nil
		}
	}
	return outcome{}, fmt.Errorf("%w: it goes away again and again", ingest.ErrNotHeld)
}

func settled(e replica.Entry, s replica.State) outcome {
	return outcome{settled: true, local: replica.Local{Applied: e.ID(), State: s}}
}

func trashedByUser(items []inventory.Item) bool {
	for _, i := range items {
		if i.Is(inventory.Trashed) && !i.Is(inventory.TrashedByUs) {
			return true
		}
	}
	return false
}

// leave is for an asset that is not in the library: removed, or outside the filter.
func (d *desk) leave(t *task, e replica.Entry, begun time.Time) (outcome, error) {
	row, queued, err := d.lib.Work(t.ctx, t.asset)
	if err != nil || !queued {
		return outcome{}, err
	}
	if e.Tombstone() {
		if err := d.trash(t, begun); err != nil {
			return outcome{}, err
		}
	}
	if row.State > replica.Wanted {
		d.dropStage(t)
	}
	return settled(e, replica.Gone), nil
}

// trash follows a removal as the library's policy says.
func (d *desk) trash(t *task, begun time.Time) error {
	desc, known := d.lib.Description()
	if !known || desc.Delete != control.DeleteTrash {
		return nil
	}
	item, present, err := d.f.cfg.Inventory.Present(t.ctx, t.asset)
	if err != nil || !present {
		return err
	}
	held, err := d.f.held(t.ctx, d, t.asset)
	if err != nil || held {
		return err
	}
	done, err := d.f.cfg.Ingester.Trash(t.ctx, item)
	if err != nil || !done {
		return err
	}
	d.f.emit(Event{Library: d.id, Asset: t.asset, Kind: Trashed, Duration: time.Since(begun)})
	return nil
}

// held reports whether another library holds the asset live.
func (f *Fetcher) held(ctx context.Context, but *desk, asset can.Digest) (bool, error) {
	f.mu.Lock()
	libs := append([]*desk(nil), f.order...)
	f.mu.Unlock()
	for _, d := range libs {
		if d == but {
			continue
		}
		if e, err := d.lib.Entry(ctx, asset); err != nil || e.Member {
			return e.Member, err
		}
	}
	return f.cfg.HeldElsewhere != nil && f.cfg.HeldElsewhere(but.id, asset), nil
}

// apply brings the record's metadata to an asset that the service holds. It
// returns false when the service turns out not to hold it.
func (d *desk) apply(t *task, e replica.Entry, item inventory.Item, begun time.Time) (bool, error) {
	local, err := d.lib.Local(t.ctx, t.asset)
	if err != nil {
		return false, err
	}
	if local.Applied == e.ID() && local.State == replica.Have {
		return true, nil
	}
	// A record that is lost after the service has its metadata would leave an edit that
	// nobody made.
	if err := d.lib.Durable(t.ctx); err != nil {
		return false, err
	}
	// Where the node may not announce, nothing would come of waiting.
	overwrite := !d.lib.May(capability.Write) || !d.lib.Announces()
	did, err := d.f.cfg.Ingester.Apply(t.ctx, item, e.Body.Metadata(), overwrite)
	if err != nil {
		return false, err
	}
	switch did {
	case ingest.Edited:
		return false, errEdited
	case ingest.Lost, ingest.InTrash:
		return false, nil
	case ingest.Changed:
		d.f.emit(Event{Library: d.id, Asset: t.asset, Kind: Updated, Duration: time.Since(begun)})
	}
	return true, nil
}

// bring fetches the content and has it ingested. fresh says that the service never
// held it.
func (d *desk) bring(t *task, e replica.Entry, begun time.Time, fresh bool) (ingest.Result, error) {
	if f := d.f.cfg.Unread; f != nil && f(int64(e.Body.Size)) {
		return ingest.Result{}, errUnread
	}
	over, err := d.admit(t, e.Bytes())
	if err != nil {
		return ingest.Result{}, err
	}
	job := ingest.Job{Digest: t.asset, Size: int64(e.Body.Size), Root: e.Body.Root, Body: e.Body}
	var res ingest.Result
	if e.Body.Size > transfer.SmallLimit {
		res, err = d.bringLarge(t, e, job, fresh)
	} else {
		res, err = d.bringSmall(t, e, job)
	}
	over(err == nil)
	if err == nil && res.Created {
		d.f.emit(Event{Library: d.id, Asset: t.asset, Kind: Fetched, Bytes: job.Size, Duration: time.Since(begun)})
	}
	return res, err
}

func (d *desk) want(t *task, e replica.Entry) transfer.Want {
	return transfer.Want{Library: d.id, Record: e.ID(), Asset: t.asset, Root: e.Body.Root, Size: e.Body.Size}
}

func (d *desk) bringSmall(t *task, e replica.Entry, job ingest.Job) (ingest.Result, error) {
	var b []byte
	if job.Size > 0 {
		var err error
		if b, err = d.f.cfg.Source.Small(t.ctx, d.want(t, e)); err != nil {
			return ingest.Result{}, err
		}
	} else if t.asset != can.Digest(sha256.Sum256(nil)) {
		return ingest.Result{}, fmt.Errorf("%w: no bytes", transfer.ErrBadContent)
	}
	// The digest is checked, the BLAKE3 root that the record claims is not, and the
	// inventory must not hold a wrong one.
	if root := blake3.Sum256(b); root != job.Root {
		job.Root = root
		tree := blob.Sum(b).Outboard
		job.Outboard = func() (*io.SectionReader, error) {
			return io.NewSectionReader(bytes.NewReader(tree), 0, int64(len(tree))), nil
		}
	}
	job.Content = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
	return d.f.cfg.Ingester.Ingest(t.ctx, job)
}

// dropStage removes what is left of an asset that is not wanted any more.
func (d *desk) dropStage(t *task) {
	if d.f.cfg.Stages == nil {
		return
	}
	if err := blob.RemoveStage(d.f.cfg.Stages, blob.StageKey{Library: d.id, Digest: t.asset}); err != nil {
		d.f.log.Warn("a staged content could not be removed", "asset", t.asset, "err", err)
	}
}
