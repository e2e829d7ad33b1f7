package announce

import (
	"slices"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
)

// situation is what a decision about an asset in one library depends on.
type situation struct {
	kind  noteKind
	entry replica.Entry
	local replica.Local
	// body is what the node would say.
	body record.AssetBody
	// match: the asset matches the filter. may: the node may write. speaks: the
	// handle is the one that stands for the content in this library. later: the
	// handle came after what the library knows.
	match, may, speaks, later bool
}

// verdict is what to do.
type verdict uint8

const (
	nothing verdict = iota
	announce
	edit
	// readd says again, after a tombstone, that the asset is there.
	readd
	// agree notes that the service holds the asset as the live record says.
	agree
	// apply lets the metadata of the live record be brought into the service.
	apply
)

// decide follows two rules: what the library says already wins over what the node
// found, and only what the user did since is news.
func decide(s situation) verdict {
	e := s.entry
	switch {
	case !e.Known():
		// Any handle may bring in a content of which nothing is known: the oldest
		// that matches comes first.
		if s.match && s.may {
			return announce
		}
	case e.Tombstone():
		fresh := s.kind == noteFresh && s.later
		acts := s.speaks && (s.kind == noteEdit || s.kind == noteBack && s.later)
		if s.match && s.may && (fresh || acts) {
			return readd
		}
	case !s.speaks:
	case s.kind == noteEdit:
		switch {
		case !e.Member && !s.match:
		case same(e.Body, s.body):
			return agree
		case s.may:
			return edit
		}
	case e.Member:
		switch {
		case s.local.State == replica.Have && s.local.Applied == e.ID():
		case same(e.Body, s.body):
			return agree
		default:
			return apply
		}
	}
	return nothing
}

// same reports whether two bodies say the same about an asset, whenever either
// service took it in.
func same(a, b record.AssetBody) bool {
	a.Size, a.Root, a.Timestamp = b.Size, b.Root, b.Timestamp
	return a.Equal(b)
}

// speaks reports whether the handle stands for the content in a library: the
// present one whose metadata the library has, else the first present one.
func speaks(handle string, items []inventory.Item, e replica.Entry) bool {
	if e.Known() && !e.Tombstone() {
		fp := inventory.FingerprintOf(e.Body.Metadata())
		if i := slices.IndexFunc(items, func(it inventory.Item) bool { return it.Present() && it.Baseline == fp }); i >= 0 {
			return items[i].Handle == handle
		}
	}
	for _, it := range items {
		if it.Present() {
			return it.Handle == handle
		}
	}
	// None is present: the one that comes back speaks.
	return true
}

// served reports whether a content stays in the service without the handles.
func served(items []inventory.Item, without map[string]bool) bool {
	return slices.ContainsFunc(items, func(it inventory.Item) bool { return it.Present() && !without[it.Handle] })
}

// tooMany reports whether removals are so many at once that a person has to
// confirm them: more than 1,000, or more than half of the library unless it is a
// single asset.
func tooMany(removals int, live int64) bool {
	return removals > maxRemovals || removals > 1 && int64(removals)*2 > live
}

const maxRemovals = 1000

// newer reports whether the asset came into the service after the record was made.
func newer(as can.Asset, e replica.Entry) bool { return as.Timestamp > e.Live.Clock.Milli() }
