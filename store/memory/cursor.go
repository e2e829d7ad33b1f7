package memory

import (
	"strings"

	"github.com/ipfs/go-datastore/query"
	"github.com/tidwall/btree"

	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/store/internal/scan"
)

// cursor walks a snapshot.
type cursor struct {
	s       *Store
	t       *txn // nil outside of transactions
	r       scan.Range
	iter    btree.IterG[item]
	started bool
	done    bool
}

func newCursor(s *Store, t *txn, snap *tree, r scan.Range) *cursor {
	return &cursor{s: s, t: t, r: r, iter: snap.Iter()}
}

func (c *cursor) Next() (query.Entry, bool, error) {
	if c.done {
		return query.Entry{}, false, nil
	}
	c.s.mu.RLock()
	closed := c.s.closed
	c.s.mu.RUnlock()
	if closed {
		return query.Entry{}, false, store.ErrClosed
	}
	if !c.step() {
		c.Close()
		return query.Entry{}, false, nil
	}
	it := c.iter.Item()
	if !strings.HasPrefix(it.key, c.r.Prefix) {
		c.Close()
		return query.Entry{}, false, nil
	}
	if c.t != nil {
		c.t.mu.Lock()
		done := c.t.done
		c.t.read(it.key)
		c.t.mu.Unlock()
		if done {
			return query.Entry{}, false, store.ErrDone
		}
	}
	e := query.Entry{Key: it.key, Size: len(it.value)}
	if c.r.Values {
		e.Value = clone(it.value)
	}
	return e, true, nil
}

// step moves to the next item in the order of the range.
func (c *cursor) step() bool {
	if c.started {
		if c.r.Reverse {
			return c.iter.Prev()
		}
		return c.iter.Next()
	}
	c.started = true
	if !c.r.Reverse {
		return c.iter.Seek(item{key: max(c.r.Prefix, c.r.From)})
	}
	end := c.r.End()
	if end == "" || !c.iter.Seek(item{key: end}) {
		return c.iter.Last()
	}
	return c.iter.Prev()
}

func (c *cursor) Close() {
	if !c.done {
		c.done = true
		c.iter.Release()
	}
}
