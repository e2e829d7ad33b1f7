package ingest

import (
	"context"
	"errors"
	"slices"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/inventory"
)

// meta asks the service about a handle; ok is false when it has no such call.
func (g *Ingester) meta(ctx context.Context, handle string) (a can.Asset, ok bool, err error) {
	r, ok := g.cfg.Service.(can.MetaReader)
	if !ok {
		return can.Asset{}, false, nil
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	a, err = r.Meta(call, handle)
	g.brk.observe(ctx, err)
	if errors.Is(err, can.ErrUnsupported) {
		return can.Asset{}, false, nil
	}
	return a, true, err
}

// Meta asks the service about a handle. It returns can.ErrUnsupported when the
// service has no such call.
func (g *Ingester) Meta(ctx context.Context, handle string) (can.Asset, error) {
	ctx, leave, err := g.enter(ctx)
	if err != nil {
		return can.Asset{}, err
	}
	defer leave()
	a, ok, err := g.meta(ctx, handle)
	if !ok {
		return can.Asset{}, can.ErrUnsupported
	}
	return a, err
}

// update sends what differs between the metadata that the service reports and the
// wanted one; ok is false when there is nothing that the service could change.
func (g *Ingester) update(ctx context.Context, handle string, have, want can.Metadata) (a can.Asset, ok bool, err error) {
	up, differs := difference(have, want)
	u, able := g.cfg.Service.(can.MetaUpdater)
	if !differs || !able {
		return can.Asset{}, false, nil
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	a, err = u.UpdateMeta(call, handle, up)
	g.brk.observe(ctx, err)
	if errors.Is(err, can.ErrUnsupported) {
		return can.Asset{}, false, nil
	}
	return a, true, err
}

// difference returns the update that leads from one metadata to the other. The
// MIME type can't be changed.
func difference(have, want can.Metadata) (up can.Update, differs bool) {
	for _, f := range []struct {
		have, want string
		to         **string
	}{
		{have.Application, want.Application, &up.Application},
		{have.User, want.User, &up.User},
		{have.Description, want.Description, &up.Description},
		{have.Filename, want.Filename, &up.Filename},
		{have.Path, want.Path, &up.Path},
	} {
		if f.have != f.want {
			*f.to, differs = &f.want, true
		}
	}
	if !slices.Equal(have.Tags, want.Tags) {
		tags := slices.Clone(want.Tags)
		if tags == nil {
			tags = []string{}
		}
		up.Tags, differs = &tags, true
	}
	return up, differs
}

// lacks says that a text or all tags that were wanted are absent, as in an answer
// that tells of the handle only.
func lacks(got, want can.Metadata) bool {
	for _, p := range [...][2]string{
		{got.Application, want.Application}, {got.User, want.User}, {got.Description, want.Description},
		{got.Filename, want.Filename}, {got.Path, want.Path}, {got.MIMEType, want.MIMEType},
	} {
		if p[0] == "" && p[1] != "" {
			return true
		}
	}
	return got.MIMEType == "" || len(got.Tags) == 0 && len(want.Tags) > 0
}

// agree makes the service's metadata the wanted one as far as it goes and returns
// the fingerprint of what it then reports. There is one attempt: a service that
// drops or changes a field keeps it its way. The zero fingerprint stands for "not
// known": what is seen next is then taken for agreed.
func (g *Ingester) agree(ctx context.Context, answer can.Asset, want can.Metadata) inventory.Fingerprint {
	got := answer.Metadata
	if lacks(got, want) {
		a, ok, err := g.meta(ctx, answer.Handle)
		if !ok || err != nil {
			return inventory.Fingerprint{}
		}
		got = a.Metadata
	}
	a, ok, err := g.update(ctx, answer.Handle, got, want)
	switch {
	case err != nil:
		return inventory.Fingerprint{} // it may or may not have happened
	case ok:
		return g.reported(ctx, a, got)
	}
	return inventory.FingerprintOf(got)
}

// reported returns the fingerprint of the answer to an update, asking again where
// it tells of no metadata.
func (g *Ingester) reported(ctx context.Context, a can.Asset, before can.Metadata) inventory.Fingerprint {
	if a.MIMEType == "" && before.MIMEType != "" {
		m, ok, err := g.meta(ctx, a.Handle)
		if !ok || err != nil {
			return inventory.Fingerprint{}
		}
		a = m
	}
	return inventory.FingerprintOf(a.Metadata)
}

// Applied says what became of metadata that was to be brought into the service.
type Applied uint8

const (
	// Agreed: nothing had to be changed, or could be.
	Agreed Applied = iota
	// Changed: the service was given the metadata and reports what it made of it.
	Changed
	// Edited: the user changed the metadata since the node last agreed with the
	// service, so nothing was done.
	Edited
	// Lost: the service no longer knows the handle; the inventory says so now.
	Lost
	// InTrash: the asset was trashed; the inventory says so now.
	InTrash
)

// Apply brings metadata into the service for an asset that it holds, and remembers
// what the service then reports. Unless overwrite is set, an edit by the user that
// the node has not taken note of is left alone. Where the service can't tell or
// change metadata, it is accepted as it is.
func (g *Ingester) Apply(ctx context.Context, item inventory.Item, want can.Metadata, overwrite bool) (Applied, error) {
	ctx, leave, err := g.enter(ctx)
	if err != nil {
		return Agreed, err
	}
	defer leave()
	if h := g.brk.state(); !h.Up {
		return Agreed, errors.Join(ErrDown, h.Err)
	}
	a, ok, err := g.meta(ctx, item.Handle)
	switch {
	case !ok:
		return Agreed, g.applyBlind(ctx, item, want)
	case errors.Is(err, can.ErrNotFound):
		item.Flags |= inventory.Missing
		return Lost, g.put(ctx, item)
	case err != nil:
		return Agreed, downOr(err)
	case a.Trashed:
		item.Flags |= inventory.Trashed
		return InTrash, g.put(ctx, item)
	}
	now, done := inventory.FingerprintOf(a.Metadata), Agreed
	if !overwrite && now != item.Baseline && item.Baseline != (inventory.Fingerprint{}) && now != inventory.FingerprintOf(want) {
		return Edited, nil
	}
	after, ok, err := g.update(ctx, item.Handle, a.Metadata, want)
	switch {
	case err != nil:
		return Agreed, downOr(err)
	case ok:
		now, done = g.reported(ctx, after, a.Metadata), Changed
	}
	if now == item.Baseline && !item.Is(inventory.TrashedByUs) {
		return done, nil
	}
	// What the node meant to trash and did not is the user's again.
	item.Baseline, item.Flags = now, item.Flags&^inventory.TrashedByUs
	return done, g.put(ctx, item)
}

// applyBlind updates a service that can't be asked what it holds. Whatever it then
// reports is taken for agreed when it is seen next.
func (g *Ingester) applyBlind(ctx context.Context, item inventory.Item, want can.Metadata) error {
	if item.Baseline == inventory.FingerprintOf(want) {
		return nil
	}
	u, able := g.cfg.Service.(can.MetaUpdater)
	if !able {
		return nil
	}
	tags := slices.Clone(want.Tags)
	if tags == nil {
		tags = []string{}
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	a, err := u.UpdateMeta(call, item.Handle, can.Update{
		Application: &want.Application, User: &want.User, Description: &want.Description,
		Filename: &want.Filename, Path: &want.Path, Tags: &tags,
	})
	g.brk.observe(ctx, err)
	switch {
	case errors.Is(err, can.ErrUnsupported):
		return nil
	case errors.Is(err, can.ErrNotFound):
		item.Flags |= inventory.Missing
	case err != nil:
		return downOr(err)
	default:
		item.Baseline = inventory.Fingerprint{}
		if a.MIMEType != "" {
			item.Baseline = inventory.FingerprintOf(a.Metadata)
		}
	}
	return g.put(ctx, item)
}

func downOr(err error) error {
	switch {
	case serviceFailed(err):
		return errors.Join(ErrDown, err)
	case errors.Is(err, can.ErrBadRequest), errors.Is(err, can.ErrDenied):
		return errors.Join(ErrRejected, err)
	}
	return err
}
