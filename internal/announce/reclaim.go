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
	freed := make(map[*voice]int)
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
			wants, had, err := a.gone(v, d)
			if err != nil {
				return fmt.Errorf("announce: take back what was trashed: %w", err)
			}
			if wants {
				again[v] = append(again[v], replica.Settled{Asset: d, Local: replica.Local{State: replica.Wanted}})
			}
			if had && v.isHeld() {
				freed[v]++
			}
		}
	}
	if len(handles) == 0 {
		return nil
	}
	a.flag(handles, inventory.TrashedByUs)
	for v, s := range again {
		a.settle(v, s)
	}
	for v, n := range freed {
		a.unhold(v, n)
	}
	return a.ctx.Err()
}

// gone reports whether the library wants a content again that was trashed here, and
// whether its removal was still to be said.
func (a *Announcer) gone(v *voice, d can.Digest) (wants, had bool, err error) {
	if had, err = a.had(v, d, nil); had || err != nil {
		return had, had, err
	}
	e, err := v.lib.Entry(a.ctx, d)
	if err != nil || !e.Member {
		return false, false, err
	}
	l, err := v.lib.Local(a.ctx, d)
	return l.State == replica.TrashedHere, false, err
}

// unhold takes removals off those that are held.
func (a *Announcer) unhold(v *voice, n int) {
	v.mu.Lock()
	left := max(0, v.held-n)
	v.mu.Unlock()
	if !a.patiently("store hold", func() error { return a.inv.SetMark(a.ctx, heldMark(v.id), encodeHeld(left)) }) {
		return
	}
	v.mu.Lock()
	if v.held = left; left == 0 {
		v.removed = 0
	}
	v.mu.Unlock()
	if left == 0 {
		a.cfg.OnHeld(v.id, 0)
	}
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
