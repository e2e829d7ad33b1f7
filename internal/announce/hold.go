package announce

import (
	"context"
	"errors"
	"fmt"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
)

// trashed deals with assets that the service says are trashed. It runs on the
// desk.
func (a *Announcer) trashed(items []inventory.Item) {
	without := make(map[string]bool, len(items))
	handles := make([]string, 0, len(items))
	for i, it := range items {
		without[it.Handle] = true
		handles = append(handles, it.Handle)
		// Another look may have found it since.
		if now, known, err := a.inv.ByHandle(a.ctx, it.Handle); err == nil && known {
			items[i] = now
		}
	}
	vs, done := a.all()
	defer done()
	for _, v := range vs {
		var gone []can.Digest
		seen := make(map[can.Digest]bool)
		missed := false
		for _, it := range items {
			if it.Is(inventory.TrashedByUs) || seen[it.Digest] || it.Is(inventory.Trashed) && v.isHeld() {
				continue
			}
			seen[it.Digest] = true
			had, err := a.had(v, it.Digest, without)
			if err != nil {
				a.log.Warn("store fails", "op", "read asset", "error", err)
				missed = true
			}
			if !had {
				continue
			}
			if !v.active() {
				missed = true
				continue
			}
			gone = append(gone, it.Digest)
		}
		if missed {
			a.patiently("store state of library", func() error { return v.miss(a.ctx, a.inv) })
		}
		a.remove(v, gone)
	}
	a.flag(handles, inventory.Trashed)
}

// unsaid reports whether an asset that is known to be trashed is still held by a
// library that could be told, since something else found out first.
func (a *Announcer) unsaid(item inventory.Item) bool {
	if item.Is(inventory.TrashedByUs) {
		return false
	}
	vs, done := a.all()
	defer done()
	for _, v := range vs {
		if v.isHeld() || !v.active() {
			continue
		}
		if had, err := a.had(v, item.Digest, nil); err == nil && had {
			return true
		}
	}
	return false
}

func (a *Announcer) flag(handles []string, f inventory.Flags) {
	for len(handles) > 0 {
		n := min(len(handles), maxNotes)
		a.patiently("store assets", func() error {
			return a.inv.Modify(a.ctx, handles[:n], func(it *inventory.Item) bool {
				was := it.Flags
				it.Flags |= f
				return it.Flags != was
			})
		})
		handles = handles[n:]
	}
}

// had reports whether the library holds the asset live, the node had it, and no
// other handle still serves it.
func (a *Announcer) had(v *voice, d can.Digest, without map[string]bool) (bool, error) {
	e, err := v.lib.Entry(a.ctx, d)
	if err != nil || !e.Member {
		return false, err
	}
	l, err := v.lib.Local(a.ctx, d)
	if err != nil || l.State != replica.Have {
		return false, err
	}
	items, err := a.inv.ByDigest(a.ctx, d)
	return err == nil && !served(items, without), err
}

// remove takes assets out of the library, or puts them on hold, or, where the node
// may not write, notes that they are not wanted here.
func (a *Announcer) remove(v *voice, gone []can.Digest) {
	if len(gone) == 0 {
		return
	}
	if !v.may() {
		a.unwanted(v, gone)
		return
	}
	v.mu.Lock()
	held, removed := v.held, v.removed
	v.mu.Unlock()
	if held > 0 {
		a.hold(v, held+len(gone))
		return
	}
	if total := removed + len(gone); tooMany(total, v.lib.Counts().Live+int64(removed)) {
		a.hold(v, len(gone))
		return
	}
	_ = a.bury(v, gone)
	v.mu.Lock()
	v.removed += len(gone)
	v.mu.Unlock()
}

// unwanted notes that the user trashed assets here only.
func (a *Announcer) unwanted(v *voice, gone []can.Digest) {
	var s []replica.Settled
	for _, d := range gone {
		if e, err := v.lib.Entry(a.ctx, d); err == nil && e.Member {
			s = append(s, replica.Settled{Asset: d, Local: replica.Local{Applied: e.ID(), State: replica.TrashedHere}})
		}
	}
	a.settle(v, s)
}

// bury publishes tombstones.
func (a *Announcer) bury(v *voice, gone []can.Digest) (failed error) {
	for len(gone) > 0 {
		n := min(len(gone), record.MaxBatch)
		drafts := make([]record.Draft, n)
		for i, d := range gone[:n] {
			drafts[i] = v.lib.Removal(d)
		}
		err := a.publish(v, drafts)
		if err != nil {
			v.missNow()
			failed = err
		}
		for _, d := range gone[:n] {
			ev := Event{Library: v.id, Asset: d, Kind: Removed}
			if err != nil {
				ev.Kind, ev.Err = Failed, err
			}
			a.cfg.OnEvent(ev)
		}
		gone = gone[n:]
	}
	return failed
}

// hold keeps removals back until a person confirms them. Which they are follows
// from inventory and replica; only their number is kept.
func (a *Announcer) hold(v *voice, count int) {
	if !a.patiently("store hold", func() error { return a.inv.SetMark(a.ctx, heldMark(v.id), encodeHeld(count)) }) {
		return
	}
	v.mu.Lock()
	v.held = count
	v.mu.Unlock()
	a.log.Warn("removals are on hold until they are confirmed", "library", v.short(), "count", count)
	a.cfg.OnHeld(v.id, count)
}

// release ends a hold.
func (a *Announcer) release(id [32]byte, publish bool) error {
	v, err := a.voice(id)
	if err != nil {
		return err
	}
	if derr := a.onDesk(func() { err = a.releaseNow(v, publish) }); derr != nil {
		return derr
	}
	return err
}

func (a *Announcer) releaseNow(v *voice, publish bool) error {
	v.mu.Lock()
	held := v.held
	v.mu.Unlock()
	if held == 0 {
		return nil
	}
	var failed error
	err := a.pending(v, func(gone []can.Digest) error {
		switch {
		case !publish:
			s := make([]replica.Settled, len(gone))
			for i, d := range gone {
				s[i] = replica.Settled{Asset: d, Local: replica.Local{State: replica.Wanted}}
			}
			a.settle(v, s)
		case v.may():
			failed = errors.Join(failed, a.bury(v, gone))
		default:
			a.unwanted(v, gone)
			failed = control.ErrForbidden
		}
		return nil
	})
	if err = errors.Join(err, failed); err != nil && !errors.Is(err, control.ErrForbidden) {
		return fmt.Errorf("announce: release held removals: %w", err)
	}
	if serr := a.inv.SetMark(a.ctx, heldMark(v.id), encodeHeld(0)); serr != nil {
		return serr
	}
	v.mu.Lock()
	v.held, v.removed = 0, 0
	v.mu.Unlock()
	a.cfg.OnHeld(v.id, 0)
	return err
}

// pending yields in portions what the user trashed and the library still holds.
func (a *Announcer) pending(v *voice, fn func([]can.Digest) error) error {
	var gone []can.Digest
	seen := make(map[can.Digest]bool) // in this portion
	flush := func() error {
		if len(gone) == 0 {
			return nil
		}
		err := fn(gone)
		gone = nil
		clear(seen)
		return err
	}
	for it, err := range a.inv.Items(a.ctx) {
		if err != nil {
			return err
		}
		if v.ctx.Err() != nil {
			return context.Canceled
		}
		if !it.Is(inventory.Trashed) || it.Is(inventory.TrashedByUs) || seen[it.Digest] {
			continue
		}
		had, err := a.had(v, it.Digest, nil)
		if err != nil {
			return err
		}
		if had {
			seen[it.Digest] = true
			if gone = append(gone, it.Digest); len(gone) == maxPortion {
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	return flush()
}

// maxPortion bounds the removals that are decided about at once.
const maxPortion = 16 << 10

// missing deals with assets that the service no longer knows: they are wanted
// again where a library holds them. It runs on the desk.
func (a *Announcer) missing(items []inventory.Item) {
	without := make(map[string]bool, len(items))
	handles := make([]string, 0, len(items))
	for _, it := range items {
		without[it.Handle] = true
		handles = append(handles, it.Handle)
	}
	a.flag(handles, inventory.Missing)
	vs, done := a.all()
	defer done()
	for _, v := range vs {
		var s []replica.Settled
		for _, it := range items {
			had, err := a.had(v, it.Digest, without)
			if err != nil {
				a.log.Warn("store fails", "op", "read asset", "error", err)
			}
			if had {
				s = append(s, replica.Settled{Asset: it.Digest, Local: replica.Local{State: replica.Wanted}})
			}
		}
		a.settle(v, s)
	}
}
