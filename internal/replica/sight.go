package replica

import (
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/record"
)

// Sight says what a peer is to hear of the assets. It is pure, and the zero value is
// that of two members who both see the whole library.
type Sight struct {
	theirs, link filter.View
}

// NewSight returns the sight between a node and a peer with these views.
func NewSight(own, theirs filter.View) Sight {
	return Sight{theirs: theirs.Normalize(), link: append(append(filter.View(nil), own...), theirs...).Normalize()}
}

// Theirs returns the peer's view in normal form.
func (s Sight) Theirs() filter.View { return s.theirs }

// Link returns the view of the link, which is what lies in both members' views.
func (s Sight) Link() filter.View { return s.link }

// Head returns the greatest record of an asset as the peer may see it: whole only if
// the asset lies in the peer's view.
func (s Sight) Head(e Entry) record.Record {
	h := e.Head()
	if e.In(s.theirs) {
		return h
	}
	return h.WithoutBody()
}

// Show returns a record of a set of the link as the peer may see it: as it is, or the
// head of its asset, should that have left the view.
func (s Sight) Show(r record.Record, e Entry) record.Record {
	if e.In(s.link) {
		return r
	}
	return s.Head(e)
}

// Hand returns what to send for a record that is owed: nothing unless the peer sees
// the whole library, else the record and the head of its asset. The head may have been
// paid to another member, and without it the record would pass for the live one.
func (s Sight) Hand(r record.Record, e Entry) []record.Record {
	if len(s.theirs) > 0 {
		return nil
	}
	if h := s.Head(e); h.Header != r.Header {
		return []record.Record{r, h}
	}
	return []record.Record{r}
}

// Push returns what the peer has to hear of a change that did not come from it: the
// new records of assets in its view, all records of those that entered it, and the
// heads of those that left it.
func (s Sight) Push(ap Applied) (out []record.Record) {
	if ap.Control {
		return ap.Records
	}
	if len(s.link) == 0 {
		return whole(ap.Records)
	}
	inside := make(map[[32]byte]bool, len(ap.Touched))
	for _, c := range ap.Touched {
		was, is := c.Before.In(s.theirs), c.Entry.In(s.theirs)
		left := was && !is || c.Before.In(s.link) && !c.Entry.In(s.link)
		switch {
		case is && !was, c.Entry.In(s.link) && !c.Before.In(s.link):
			out = append(out, c.Whole()...)
		case is:
			inside[c.Asset] = true
		}
		if left && c.Entry.Known() && !(is && complete(c.Entry.Head())) {
			out = append(out, s.Head(c.Entry))
		}
	}
	for _, r := range ap.Records {
		if complete(r) && inside[r.Subject] {
			out = append(out, r)
		}
	}
	return out
}

// Answer returns what the peer has to hear in return for records of assets that it
// sent, and of which Apply touched some: where an asset thereby entered the view of the
// link, the other records of it; where the peer knows less of one that lies outside, its
// head. After that both sides hold the same of these assets in their sets of the link.
func (s Sight) Answer(recs []record.Record, touched []Change, entry func(can.Digest) (Entry, error)) (out []record.Record, err error) {
	if len(s.link) == 0 {
		return nil, nil
	}
	changes := make(map[can.Digest]Change, len(touched))
	for _, c := range touched {
		if first, ok := changes[c.Asset]; ok {
			c.Before = first.Before
		}
		changes[c.Asset] = c
	}
	type said struct {
		record.Header
		whole bool
	}
	came := make(map[said]bool, len(recs))
	for i := range recs {
		came[said{recs[i].Header, complete(recs[i])}] = true
	}
	done := make(map[can.Digest]bool, len(recs))
	for i := range recs {
		asset := can.Digest(recs[i].Subject)
		if done[asset] || recs[i].Kind.Control() {
			continue
		}
		done[asset] = true
		c, ok := changes[asset]
		if !ok {
			if c.Entry, err = entry(asset); err != nil {
				return nil, err
			}
			c.Before = c.Entry
		}
		switch e := c.Entry; {
		case !e.Known():
		case e.In(s.link):
			if c.Before.In(s.link) {
				continue
			}
			for _, w := range c.Whole() {
				if !came[said{w.Header, true}] {
					out = append(out, w)
				}
			}
		default:
			h := s.Head(e)
			if !came[said{h.Header, true}] && !(came[said{h.Header, false}] && !complete(h)) {
				out = append(out, h)
			}
		}
	}
	return out, nil
}

func whole(rows []record.Record) []record.Record {
	out := make([]record.Record, 0, len(rows))
	for i := range rows {
		if complete(rows[i]) {
			out = append(out, rows[i])
		}
	}
	return out
}

// touched returns the assets of which something was stored, and those of them whose
// live record changed.
func (t *tx) touched() (all, live []Change) {
	all = make([]Change, 0, len(t.order))
	moved := func(c *Change) bool {
		return c.Before.Live.Header != c.Entry.Live.Header || !c.Before.Live.HasBody() && c.Entry.Live.HasBody()
	}
	n := 0
	for _, d := range t.order {
		if c := t.changes[d]; c.news {
			all = append(all, Change{Asset: d, Before: c.before, Entry: c.entry, rows: c.rows})
			if moved(&all[len(all)-1]) {
				n++
			}
		}
	}
	if n == len(all) {
		return all, all
	}
	live = make([]Change, 0, n)
	for i := range all {
		if moved(&all[i]) {
			live = append(live, all[i])
		}
	}
	return all, live
}
