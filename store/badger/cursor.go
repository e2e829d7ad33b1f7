package badger

import (
	"context"

	badgerdb "github.com/dgraph-io/badger/v4"
	"github.com/ipfs/go-datastore/query"

	"github.com/cansync/cansync/store/internal/scan"
)

// Bounds of what a cursor fetches at a time.
const (
	firstChunk = 32
	maxChunk   = 1024
	chunkBytes = 1 << 20
)

// cursor reads a range in chunks, each through an iterator of its own. An
// iterator that stayed open would forbid a second one in a writing transaction,
// panic when the transaction ends first, and keep Close waiting.
type cursor struct {
	t     *txn
	own   bool // the transaction is the cursor's
	r     scan.Range
	chunk []query.Entry
	last  string // the key that was fetched last
	size  int    // of the next chunk
	begun bool
	end   bool
}

func newCursor(t *txn, r scan.Range, own bool) *cursor {
	size := firstChunk
	if r.Few > 0 {
		size = min(r.Few, maxChunk)
	}
	return &cursor{t: t, r: r, own: own, size: size}
}

func (c *cursor) Next() (query.Entry, bool, error) {
	if len(c.chunk) == 0 && !c.end {
		if err := c.fetch(); err != nil {
			c.Close()
			return query.Entry{}, false, err
		}
	}
	if len(c.chunk) == 0 {
		c.Close()
		return query.Entry{}, false, nil
	}
	e := c.chunk[0]
	c.chunk = c.chunk[1:]
	return e, true, nil
}

func (c *cursor) fetch() error {
	if err := c.t.enter(context.Background()); err != nil {
		return err
	}
	defer c.t.leave()
	it := c.t.t.NewIterator(badgerdb.IteratorOptions{
		Reverse: c.r.Reverse,
		Prefix:  c.iteratorPrefix(),
	})
	defer it.Close()
	c.seek(it)
	c.chunk = make([]query.Entry, 0, min(c.size, maxChunk))
	bytes := 0
	for len(c.chunk) < c.size && bytes < chunkBytes {
		if !it.ValidForPrefix([]byte(c.r.Prefix)) {
			c.end = true
			break
		}
		e, err := c.entry(it.Item())
		if err != nil {
			return mapError(err)
		}
		c.chunk = append(c.chunk, e)
		c.last = e.Key
		bytes += len(e.Key) + len(e.Value)
		it.Next()
	}
	c.size = min(2*c.size, maxChunk)
	return nil
}

// iteratorPrefix lets badger leave out tables. Backwards it would hide the key
// that is sought.
func (c *cursor) iteratorPrefix() []byte {
	if c.r.Reverse {
		return nil
	}
	return []byte(c.r.Prefix)
}

// seek moves to the first entry that was not fetched yet.
func (c *cursor) seek(it *badgerdb.Iterator) {
	var skip string // the one key that the iterator may find and must not
	switch {
	case c.begun:
		skip = c.last
		it.Seek([]byte(c.last))
	case c.r.Reverse && c.r.Prefix != "":
		skip = c.r.End()
		it.Seek([]byte(skip))
	case !c.r.Reverse && c.r.From > c.r.Prefix:
		it.Seek([]byte(c.r.From))
	default:
		it.Rewind()
	}
	c.begun = true
	if skip != "" && it.Valid() && string(it.Item().Key()) == skip {
		it.Next()
	}
}

func (c *cursor) entry(item *badgerdb.Item) (e query.Entry, err error) {
	e.Key = string(item.Key())
	if !c.r.Values {
		e.Size, err = sizeOf(item)
		return e, err
	}
	e.Value, err = item.ValueCopy(nil)
	e.Value = notNil(e.Value)
	e.Size = len(e.Value)
	return e, err
}

func (c *cursor) Close() {
	c.end, c.chunk = true, nil
	if c.own {
		c.t.Discard(context.Background())
	}
}
