package replica

import (
	"context"
	"iter"
	"slices"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/kv"
	"github.com/cansync/cansync/internal/reconcile"
	"github.com/cansync/cansync/internal/record"
)

// maxViews bounds the views whose coded symbols are kept; each takes 192 KiB. A
// view beyond is coded again by a scan when it is asked for.
const maxViews = 16

// viewSet is the coded symbols of what a narrower view holds: all records of the
// assets whose live record lies in it.
type viewSet struct {
	view filter.View
	set  *reconcile.Set
	used uint64
}

// In reports whether an asset lies in a view: the greatest record known of it is
// there whole, is no tombstone, and matches. The empty view, which is that without
// any filter, holds every asset, removed ones too.
func (e Entry) In(v filter.View) bool {
	return len(v) == 0 || e.Ahead == nil && e.Live.HasBody() && v.Match(e.Asset, e.Body.Metadata())
}

// Head is the greatest record known of the asset, which may be known by its header
// alone. It is the zero Record if none is.
func (e Entry) Head() record.Record {
	if e.Ahead != nil {
		return *e.Ahead
	}
	return e.Live
}

// change brings the symbols up to date with an asset that changed.
func (vs *viewSet) change(c *change) {
	if c.before.In(vs.view) {
		for _, r := range c.had {
			if complete(r) {
				vs.set.Remove(r.ID())
			}
		}
	}
	if c.entry.In(vs.view) {
		for _, r := range c.rows {
			if complete(r) {
				vs.set.Insert(r.ID())
			}
		}
	}
}

// Snapshot returns the coded symbols of the control set, or of the asset set as
// far as it lies in the view, as they are now. It waits until they are complete.
func (r *Replica) Snapshot(ctx context.Context, controlSet bool, view filter.View) (*reconcile.Snapshot, error) {
	if controlSet {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.controlID.Snapshot(), nil
	}
	select {
	case <-r.ready:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-r.closed:
		return nil, ErrClosed
	}
	if r.readyErr != nil {
		return nil, r.readyErr
	}
	if len(view) == 0 {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.assets.Snapshot(), nil
	}
	enc, err := view.Encode()
	if err != nil {
		return nil, err
	}
	if s := r.cached(string(enc)); s != nil {
		return s, nil
	}
	if err := r.lock(ctx); err != nil {
		return nil, err
	}
	defer r.unlock()
	if s := r.cached(string(enc)); s != nil { // another link was first
		return s, nil
	}
	set := reconcile.NewSet(r.opts.ReconcileKey, assetPrefix)
	for rec, err := range r.RecordsFrom(ctx, false, view, can.Digest{}) {
		if err != nil {
			return nil, err
		}
		set.Insert(rec.ID())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.views) >= maxViews {
		var oldest string
		for k, vs := range r.views {
			if oldest == "" || vs.used < r.views[oldest].used {
				oldest = k
			}
		}
		delete(r.views, oldest)
	}
	r.uses++
	r.views[string(enc)] = &viewSet{view: slices.Clone(view), set: set, used: r.uses}
	return set.Snapshot(), nil
}

func (r *Replica) cached(key string) *reconcile.Snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	vs := r.views[key]
	if vs == nil {
		return nil
	}
	r.uses++
	vs.used = r.uses
	return vs.set.Snapshot()
}

// IDs yields the ids of the control records, or of the stored asset records as far
// as they lie in the view, in ascending order, as of one moment. For a view that
// is not empty they are gathered in memory first, 32 bytes each.
func (r *Replica) IDs(ctx context.Context, controlSet bool, view filter.View) iter.Seq2[record.ID, error] {
	if !controlSet && len(view) > 0 {
		return r.viewIDs(ctx, view)
	}
	prefix := r.key("i")
	if controlSet {
		prefix = r.key("k")
	}
	return func(yield func(record.ID, error) bool) {
		for e, err := range kv.Scan(ctx, r.opts.Store, prefix, true) {
			var id record.ID
			if err == nil {
				id, err = kv.Last32(e.Key)
			}
			if !yield(id, err) || err != nil {
				return
			}
		}
	}
}

func (r *Replica) viewIDs(ctx context.Context, view filter.View) iter.Seq2[record.ID, error] {
	return func(yield func(record.ID, error) bool) {
		var ids []record.ID
		for rec, err := range r.RecordsFrom(ctx, false, view, can.Digest{}) {
			if err != nil {
				yield(record.ID{}, err)
				return
			}
			ids = append(ids, rec.ID())
		}
		slices.SortFunc(ids, record.ID.Compare)
		for _, id := range ids {
			if !yield(id, nil) {
				return
			}
		}
	}
}

// RecordsFrom yields all control records, or all stored asset records that lie in
// the view, in ascending order of their assets from the given one on, as of one
// moment. Records known by their header alone are left out.
func (r *Replica) RecordsFrom(ctx context.Context, controlSet bool, view filter.View, from can.Digest) iter.Seq2[record.Record, error] {
	room, first := r.key("a"), r.assetKey("a", from)
	if controlSet {
		room = r.key("k")
		first = room
	}
	return func(yield func(record.Record, error) bool) {
		for e, err := range kv.ScanFrom(ctx, r.opts.Store, room, first) {
			var rows []record.Record
			switch {
			case err != nil:
			case controlSet:
				var rec record.Record
				rec, err = record.Decode(e.Value)
				rows = []record.Record{rec}
			default:
				rows, err = decodeRows(e.Value)
			}
			if err != nil {
				yield(record.Record{}, err)
				return
			}
			if !controlSet && len(view) > 0 && !(lens{}).entry(can.Digest(rows[0].Subject), rows).In(view) {
				continue
			}
			for _, rec := range rows {
				if (controlSet || complete(rec)) && !yield(rec, nil) {
					return
				}
			}
		}
	}
}
