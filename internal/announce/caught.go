package announce

import (
	"context"
	"errors"
	"slices"

	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/wire"
)

// caughtIndex names the libraries of which it is kept that everything was offered
// to them; what is kept about others does not count. One that is not there when the desk deals with something, being removed
// or not yet added, is struck off before what was decided is kept.
const caughtIndex = "announce.caught"

// maxIndexed bounds the libraries in the index; those beyond are offered everything
// again after a restart.
const maxIndexed = 4096

func encodeIndex(ids [][32]byte) []byte {
	b := []byte{1}
	for _, id := range ids {
		b = append(b, id[:]...)
	}
	return b
}

func decodeIndex(b []byte) (ids [][32]byte, err error) {
	r := wire.NewReader(b)
	if v := r.U8(); r.Err() == nil && v != 1 {
		r.Fail("index of version %d", v)
	}
	if r.Len() > maxIndexed*32 {
		r.Fail("an index of %d bytes", r.Len())
	}
	for r.Err() == nil && r.Len() > 0 {
		ids = append(ids, r.B32())
	}
	if err := r.End(); err != nil {
		return nil, err
	}
	return ids, nil
}

// index returns the libraries in the index. It runs on the desk.
func (a *Announcer) index() ([][32]byte, error) {
	if a.indexed {
		return a.caught, nil
	}
	b, err := a.inv.Mark(a.ctx, caughtIndex)
	if err != nil {
		return nil, err
	}
	if b != nil {
		if a.caught, err = decodeIndex(b); err != nil {
			a.log.Warn("index of libraries unreadable, everything is offered again", "error", err)
			a.caught = nil
		}
	}
	a.indexed = true
	return a.caught, nil
}

// strike takes the libraries off the index that are not in use.
func (a *Announcer) strike(vs []*voice) error {
	ids, err := a.index()
	if err != nil {
		return err
	}
	var keep [][32]byte
	for _, id := range ids {
		if slices.ContainsFunc(vs, func(v *voice) bool { return v.id == id }) {
			keep = append(keep, id)
		}
	}
	if len(keep) == len(ids) {
		return nil
	}
	if err := a.inv.SetMark(a.ctx, caughtIndex, encodeIndex(keep)); err != nil {
		return err
	}
	a.caught = keep
	return nil
}

// Forget deletes what is kept about a library that was removed for good. The index
// names it until the desk next deals with something.
func Forget(ctx context.Context, inv *inventory.Inventory, id [32]byte) error {
	return errors.Join(inv.DropMark(ctx, caughtMark(id)), inv.DropMark(ctx, heldMark(id)))
}

// load reads what is kept about a library. It runs on the desk.
func (a *Announcer) load(v *voice) error {
	ids, err := a.index()
	if err != nil {
		return err
	}
	return v.load(a.ctx, a.inv, slices.Contains(ids, v.id))
}

// catch notes durably that a pass through everything reached its end.
func (a *Announcer) catch(v *voice, p *pass) error {
	if !v.reached(p) {
		return nil
	}
	ids, err := a.index()
	if err != nil {
		return err
	}
	if !slices.Contains(ids, v.id) && len(ids) < maxIndexed {
		next := append(slices.Clone(ids), v.id)
		if err := a.inv.SetMark(a.ctx, caughtIndex, encodeIndex(next)); err != nil {
			return err
		}
		a.caught = next
	}
	if slices.Contains(a.caught, v.id) {
		if err := a.inv.SetMark(a.ctx, caughtMark(v.id), p.state.encode()); err != nil {
			return err
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.caught = p.state
	return nil
}
