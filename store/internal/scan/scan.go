// Package scan answers go-datastore queries from an ordered cursor, so that
// every store of this module means the same by a query.
package scan

import (
	"context"
	"slices"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

// Range says which entries a cursor yields, and how.
type Range struct {
	// Prefix begins every key in the range; it ends in a slash, or is empty for
	// all keys.
	Prefix string
	// From is a key below which no entry is wanted, or empty. It is a hint to begin
	// there, and for ascending order only.
	From string
	// Reverse asks for descending byte order.
	Reverse bool
	// Values asks for values; without, only Key and Size are filled in.
	Values bool
	// Few is the number of entries that will be asked for at most, or 0 when that
	// is unknown. It is a hint.
	Few int
}

// End returns the least key above all keys of the range. It is empty when there
// is no such key, because the range has no prefix.
func (r Range) End() string {
	if r.Prefix == "" {
		return ""
	}
	// The prefix ends in '/', and '0' is the next byte.
	return r.Prefix[:len(r.Prefix)-1] + "0"
}

// Cursor yields the entries of a range in order.
type Cursor interface {
	// Next returns the next entry; ok is false at the end. The value belongs to
	// the caller. After an error the cursor is not used again.
	Next() (e query.Entry, ok bool, err error)
	// Close frees the cursor. It may be called more than once.
	Close()
}

// Query answers q from the cursor that open returns. Results end with the error
// of ctx when ctx ends.
func Query(ctx context.Context, q query.Query, open func(Range) (Cursor, error)) (query.Results, error) {
	r := Range{Values: !q.KeysOnly}
	if p := ds.NewKey(q.Prefix).String(); p != "/" {
		r.Prefix = p + "/"
	}
	native := true
	if len(q.Orders) > 0 {
		switch q.Orders[0].(type) {
		case query.OrderByKey, *query.OrderByKey:
		case query.OrderByKeyDescending, *query.OrderByKeyDescending:
			r.Reverse = true
		default:
			native = false
		}
	}
	if native && !r.Reverse {
		r.From = from(q.Filters)
	}
	if needsValues(q, native) {
		r.Values = true
	}
	if native && q.Limit > 0 && len(q.Filters) == 0 {
		r.Few = q.Limit + max(q.Offset, 0)
	}
	cur, err := open(r)
	if err != nil {
		return nil, err
	}
	it := &iterator{ctx: ctx, q: q, cur: cur, drop: q.KeysOnly && r.Values}
	if !native {
		return it.sorted()
	}
	it.skip, it.left = max(q.Offset, 0), max(q.Limit, 0)
	it.bounded = q.Limit > 0
	return query.ResultsFromIterator(q, query.Iterator{Next: it.next, Close: it.close}), nil
}

// from returns the greatest key that all entries must reach.
func from(filters []query.Filter) (key string) {
	for _, f := range filters {
		if p, ok := f.(*query.FilterKeyCompare); ok {
			f = *p
		}
		if c, ok := f.(query.FilterKeyCompare); ok && (c.Op == query.GreaterThan || c.Op == query.GreaterThanOrEqual) {
			key = max(key, c.Key)
		}
	}
	return key
}

// needsValues says whether a query that does not return values must see them.
func needsValues(q query.Query, native bool) bool {
	if !native {
		for _, o := range q.Orders {
			switch o.(type) {
			case query.OrderByKey, *query.OrderByKey, query.OrderByKeyDescending, *query.OrderByKeyDescending:
			default:
				return true
			}
		}
	}
	return slices.ContainsFunc(q.Filters, func(f query.Filter) bool {
		switch f.(type) {
		case query.FilterKeyCompare, *query.FilterKeyCompare, query.FilterKeyPrefix, *query.FilterKeyPrefix:
			return false
		}
		return true
	})
}

type iterator struct {
	ctx        context.Context
	q          query.Query
	cur        Cursor
	drop       bool // values are read but not returned
	skip, left int
	bounded    bool
	done       bool
}

// match returns the next entry that passes the filters.
func (it *iterator) match() (query.Entry, bool, error) {
	for {
		if err := it.ctx.Err(); err != nil {
			return query.Entry{}, false, err
		}
		e, ok, err := it.cur.Next()
		if err != nil || !ok {
			return e, false, err
		}
		pass := true
		for _, f := range it.q.Filters {
			if pass = f.Filter(e); !pass {
				break
			}
		}
		if pass {
			return e, true, nil
		}
	}
}

func (it *iterator) next() (query.Result, bool) {
	for !it.done && (!it.bounded || it.left > 0) {
		e, ok, err := it.match()
		if err != nil {
			it.close()
			return query.Result{Error: err}, true
		}
		if !ok {
			break
		}
		if it.skip > 0 {
			it.skip--
			continue
		}
		it.left--
		if it.drop {
			e.Value = nil
		}
		return query.Result{Entry: e}, true
	}
	_ = it.close()
	return query.Result{}, false
}

func (it *iterator) close() error {
	it.done = true
	it.cur.Close()
	return nil
}

// sorted answers a query whose order the cursor does not have: it holds the
// whole result in memory.
func (it *iterator) sorted() (query.Results, error) {
	defer it.cur.Close()
	var all []query.Entry
	for {
		e, ok, err := it.match()
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		all = append(all, e)
	}
	query.Sort(it.q.Orders, all)
	all = all[min(max(it.q.Offset, 0), len(all)):]
	if it.q.Limit > 0 {
		all = all[:min(it.q.Limit, len(all))]
	}
	if it.drop {
		for i := range all {
			all[i].Value = nil
		}
	}
	return query.ResultsWithEntries(it.q, all), nil
}
