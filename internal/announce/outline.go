package announce

import (
	"cmp"
	"hash/maphash"
	"slices"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/inventory"
)

// outline is what a full scan knows of the inventory as it stood when the scan
// began: 16 bytes for each item. A large service is nearly always listed as it was
// listed before, and what is needs no look at the store, which would cost more than
// reading the listing does.
//
// What changes in the inventory during the scan is the business of whoever changes
// it, and of the next scan.
type outline struct {
	seed   maphash.Seed
	shards [256][]outlined // by the first byte of the hash, each sorted by it
	size   int
}

// outlined is one item.
type outlined struct {
	// handle is a hash of the handle, but for the lowest bit: that says that it was
	// listed.
	handle uint64
	// rest is a hash of the metadata with which nothing is to be done when the
	// service lists it, or one of the following.
	rest uint64
}

const (
	// restless: what is listed has to be looked at.
	restless = 0
	// absentee is restless, and need not be listed.
	absentee = 1
)

const listedBit = 1

// outline reads what is known of the inventory.
func (a *Announcer) outline() (*outline, error) {
	o := newOutline()
	for item, err := range a.inv.Items(a.ctx) {
		if err != nil {
			return nil, err
		}
		if o.size%scanPage == 0 && a.restarts() {
			return nil, errRestart
		}
		o.add(item, !item.Is(inventory.Missing) && (!item.Is(inventory.Trashed) || a.unsaid(item)))
	}
	o.sort()
	return o, nil
}

// news notes that the assets of a page were listed and returns those that have to be
// looked at.
func (w *walk) news(page []can.Asset, l *look) []can.Asset {
	var out []can.Asset
	for _, as := range page {
		w.probe = as.Handle
		if !w.known.list(as) {
			out = append(out, as)
		}
	}
	if len(l.offer) > 0 {
		return page // all of them are news to a library
	}
	return out
}

func newOutline() *outline { return &outline{seed: maphash.MakeSeed()} }

func (o *outline) hash(handle string) uint64 { return maphash.String(o.seed, handle) &^ listedBit }

func (o *outline) restOf(f inventory.Fingerprint) uint64 {
	return max(maphash.Bytes(o.seed, f[:]), absentee+1)
}

// add adds an item; must says whether the service should list it. When all are
// added, sort makes the outline ready.
func (o *outline) add(item inventory.Item, must bool) {
	e := outlined{handle: o.hash(item.Handle), rest: restless}
	switch {
	case !must:
		e.rest = absentee
	case item.Present() && item.Baseline != inventory.Fingerprint{}:
		e.rest = o.restOf(item.Baseline)
	}
	s := &o.shards[e.handle>>56]
	*s = append(*s, e)
	o.size++
}

func (o *outline) sort() {
	for _, s := range o.shards {
		slices.SortFunc(s, func(a, b outlined) int { return cmp.Compare(a.handle, b.handle) })
	}
}

func (o *outline) find(handle string) *outlined {
	h := o.hash(handle)
	s := o.shards[h>>56]
	from, to := 0, len(s)
	for from < to {
		if mid := (from + to) / 2; s[mid].handle < h {
			from = mid + 1
		} else {
			to = mid
		}
	}
	if from == len(s) || s[from].handle&^listedBit != h {
		return nil
	}
	return &s[from]
}

// list notes that an asset was listed, and reports whether nothing is to be done
// about it as it is.
func (o *outline) list(as can.Asset) (rests bool) {
	e := o.find(as.Handle)
	if e == nil {
		return false
	}
	e.handle |= listedBit
	return !as.Trashed && e.rest > absentee && e.rest == o.restOf(inventory.FingerprintOf(as.Metadata))
}

// lacks reports whether a handle of the outline was not listed. Of a handle that is
// not in it, it can't be said.
func (o *outline) lacks(handle string) bool {
	e := o.find(handle)
	return e != nil && e.handle&listedBit == 0
}

// complete reports whether everything was listed that should have been.
func (o *outline) complete() bool {
	for _, s := range o.shards {
		if slices.ContainsFunc(s, func(e outlined) bool { return e.handle&listedBit == 0 && e.rest != absentee }) {
			return false
		}
	}
	return true
}
