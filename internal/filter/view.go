package filter

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/wire"
)

// MaxView is the largest number of filters in a view: that of the library, one
// for each step of a chain of certificates, and the member's own.
const MaxView = 10

// View is a list of filters that an asset has to match all of: the library's, and
// those by which a member's view is narrower. An empty view takes everything. It
// is a list because two filters with tags have no single filter for what both
// select.
type View []Filter

// Match reports whether every filter matches.
func (v View) Match(digest can.Digest, m can.Metadata) bool {
	for i := range v {
		if !v[i].Match(digest, m) {
			return false
		}
	}
	return true
}

// Normalize returns the view without the filters that others make redundant, each
// in normal form and in one order. It selects the same and shares no memory with v.
func (v View) Normalize() View {
	type item struct {
		f   Filter
		key []byte
	}
	var items []item
	for i, f := range v {
		redundant := f.IsZero()
		for j, o := range v {
			// Of two that select the same the first stays.
			if i != j && Narrower(o, f) && (j < i || !Narrower(f, o)) {
				redundant = true
			}
		}
		if !redundant {
			f = f.Normalize()
			items = append(items, item{f, f.sortKey()})
		}
	}
	slices.SortFunc(items, func(a, b item) int { return bytes.Compare(a.key, b.key) })
	var out View
	for _, it := range items {
		out = append(out, it.f)
	}
	return out
}

// sortKey orders normal forms whether or not they are within their limits.
func (f Filter) sortKey() []byte {
	var b []byte
	for _, s := range append([]string{f.Application, f.User, f.MIMEPrefix}, f.Tags...) {
		b = append(wire.AppendU32(b, uint32(len(s))), s...)
	}
	b = append(b, 0xff) // no length starts like this
	for _, h := range f.Hashes {
		b = append(b, h[:]...)
	}
	return b
}

// Narrower reports whether v is known to select nothing beyond what o does: each
// filter of o is implied by one of v. It may say no where several filters of v
// imply it only together.
func (v View) Narrower(o View) bool {
	for _, f := range o {
		if !f.IsZero() && !slices.ContainsFunc(v, func(g Filter) bool { return Narrower(g, f) }) {
			return false
		}
	}
	return true
}

// Equal reports whether the normal forms are equal.
func (v View) Equal(o View) bool {
	return slices.EqualFunc(v.Normalize(), o.Normalize(), Filter.Equal)
}

// Encode returns the encoding of the normal form: the number of filters, then each
// with a four-byte length. It fails as [Filter.Validate] does, or when more than
// [MaxView] filters are left.
func (v View) Encode() ([]byte, error) {
	v = v.Normalize()
	if len(v) > MaxView {
		return nil, fmt.Errorf("%w: a view of %d filters, at most %d", ErrInvalid, len(v), MaxView)
	}
	dst := wire.AppendU16(nil, uint16(len(v)))
	for _, f := range v {
		b, err := f.Encode()
		if err != nil {
			return nil, err
		}
		dst = wire.AppendBytes(dst, b)
	}
	return dst, nil
}

// DecodeView reads exactly one encoded view, which is in normal form. Errors match
// wire.ErrMalformed.
func DecodeView(b []byte) (View, error) {
	r := wire.NewReader(b)
	var v View
	for range r.Count(MaxView) {
		p := r.Bytes(MaxEncoded)
		if r.Err() != nil {
			break
		}
		f, err := Decode(p)
		if err != nil {
			return nil, err
		}
		v = append(v, f)
	}
	if n := v.Normalize(); r.Err() == nil && !slices.EqualFunc(n, v, Filter.Equal) {
		r.Fail("a view that is not in its normal form")
	}
	if err := r.End(); err != nil {
		return nil, fmt.Errorf("filter: view: %w", err)
	}
	return v, nil
}
