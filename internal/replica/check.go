package replica

import (
	"context"

	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/transport"
)

// Checked are records whose signatures were looked at. Only [Replica.Check] makes
// one that is not empty. The zero value is empty.
type Checked struct {
	all     []record.Record // as they came
	good    []record.Record // those that may be stored; shares memory with all if all are good
	refused []Refused
	library [32]byte
}

// Check verifies records, of which [Replica.ApplyChecked] then stores the good ones.
// It needs neither store nor lock, so that the next records can be checked while
// others are stored. The caller no longer changes recs.
func (r *Replica) Check(recs []record.Record) Checked {
	c := Checked{all: recs, library: r.opts.Library}
	for i := range recs {
		err := r.opts.Verifier.Verify(recs[i])
		if err == nil && recs[i].Header.Library != r.opts.Library {
			err = ErrLibrary
		}
		switch {
		case err != nil && c.refused == nil:
			c.good = append(make([]record.Record, 0, len(recs)), recs[:i]...)
			fallthrough
		case err != nil:
			c.refused = append(c.refused, Refused{recs[i].ID(), err})
		case c.refused != nil:
			c.good = append(c.good, recs[i])
		}
	}
	if c.refused == nil {
		c.good = recs
	}
	return c
}

// Records are all that were checked, good or not. They must not be changed.
func (c Checked) Records() []record.Record { return c.all }

// Join puts what was checked one after another, of one library, together.
func Join(parts ...Checked) Checked {
	if len(parts) == 1 {
		return parts[0]
	}
	var all, good int
	for _, p := range parts {
		all, good = all+len(p.all), good+len(p.good)
	}
	c := Checked{all: make([]record.Record, 0, all)}
	whole := all == good
	if !whole {
		c.good = make([]record.Record, 0, good)
	}
	for _, p := range parts {
		if len(p.all) == 0 {
			continue
		}
		c.library = p.library
		c.all = append(c.all, p.all...)
		if !whole {
			c.good = append(c.good, p.good...)
		}
		c.refused = append(c.refused, p.refused...)
	}
	if whole {
		c.good = c.all
	}
	return c
}

// Apply checks and stores records; see [Replica.ApplyChecked].
func (r *Replica) Apply(ctx context.Context, recs []record.Record, from transport.PeerID) (Result, error) {
	return r.ApplyChecked(ctx, r.Check(recs), from)
}
