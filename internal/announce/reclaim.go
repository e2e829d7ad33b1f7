package announce

import (
	"fmt"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/replica"
)

// Reclaim takes back that the user trashed contents of a library here: they are
// wanted again by every library of the node that holds them, and removals of them
// that were held are not made. That it was the user's wish is forgotten for good,
// so that a restart before they came changes nothing. Contents that were not
// trashed by the user are passed over.
func (a *Announcer) Reclaim(id [32]byte, digests ...can.Digest) error {
	v, err := a.voice(id)
	if err != nil {
		return err
	}
	if derr := a.onDesk(func() { err = a.reclaim(v, digests) }); derr != nil {
		return derr
	}
	return err
}

// reclaim runs on the desk.
func (a *Announcer) reclaim(asked *voice, digests []can.Digest) error {
	vs, done := a.all()
	defer done()
	var handles []string
	again := make(map[*voice][]replica.Settled)
	for _, d := range digests {
		e, err := asked.lib.Entry(a.ctx, d)
		if err != nil {
			return fmt.Errorf("announce: take back what was trashed: %w", err)
		}
		items, err := a.inv.ByDigest(a.ctx, d)
		if err != nil {
			return fmt.Errorf("announce: take back what was trashed: %w", err)
		}
		trashed := trashedByUser(items)
		if !e.Member || len(trashed) == 0 || items[0].Present() {
			continue
		}
		handles = append(handles, trashed...)
		for _, v := range vs {
			wants, err := a.gone(v, d)
			if err != nil {
				return fmt.Errorf("announce: take back what was trashed: %w", err)
			}
			if wants {
				again[v] = append(again[v], replica.Settled{Asset: d, Local: replica.Local{State: replica.Wanted}})
			}
		}
	}
	if len(handles) == 0 {
		return nil
	}
	a.flag(handles, inventory.TrashedByUs)
	for v, s := range again {
		a.settle(v, s)
		a.tell(v)
	}
	return a.ctx.Err()
}

// gone reports whether the library wants a content again that was trashed here.
func (a *Announcer) gone(v *voice, d can.Digest) (bool, error) {
	if had, err := a.had(v, d, nil); had || err != nil {
		return had, err
	}
	e, err := v.lib.Entry(a.ctx, d)
	if err != nil || !e.Member {
		return false, err
	}
	l, err := v.lib.Local(a.ctx, d)
	return l.State == replica.TrashedHere || l.State == replica.OnHold, err
}

// trashedByUser returns the handles that the user trashed.
func trashedByUser(items []inventory.Item) (handles []string) {
	for _, i := range items {
		if i.Is(inventory.Trashed) && !i.Is(inventory.TrashedByUs) {
			handles = append(handles, i.Handle)
		}
	}
	return handles
}
