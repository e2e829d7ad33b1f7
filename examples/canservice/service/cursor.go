package service

import (
	"strconv"
	"strings"
	"sync"
)

// cursor stands for all changes of one index up to a number. Its text form is
// the index's epoch, a dash, and the number in decimal.
type cursor struct {
	epoch string
	seq   int64
}

const epochLen = 16

func (c cursor) String() string { return c.epoch + "-" + strconv.FormatInt(c.seq, 10) }

// parseCursor reads what String printed, and nothing else.
func parseCursor(s string) (cursor, error) {
	epoch, num, ok := strings.Cut(s, "-")
	seq, err := strconv.ParseInt(num, 10, 64)
	c := cursor{epoch: epoch, seq: seq}
	if !ok || len(epoch) != epochLen || strings.Trim(epoch, "0123456789abcdef") != "" || err != nil || seq < 0 || c.String() != s {
		return cursor{}, badRequest("changed_since is not a cursor of this service; start again with an empty one")
	}
	return c, nil
}

// pageMarks remembers where recent pages of listings ended, so that a client
// paging by offset doesn't have the index skip all rows before each page, also when
// its pages overlap. A mark counts while no asset entered or left listings before it.
type pageMarks struct {
	mu     sync.Mutex
	layout uint64 // grows when an asset enters or leaves listings
	marks  map[pageAt]pageEnd
}

type pageAt struct {
	asc    bool
	offset int64
}

// pageEnd is the last row before the offset.
type pageEnd struct{ timestamp, id int64 }

const maxPageMarks = 64

// now returns the layout, to be read before the listing that a mark is kept of.
func (p *pageMarks) now() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.layout
}

// changed drops the marks behind which an asset with one of the timestamps entered or
// left listings; without timestamps, all.
func (p *pageMarks) changed(timestamps ...int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.layout++
	if len(timestamps) == 0 {
		clear(p.marks)
	}
	for at, e := range p.marks {
		for _, t := range timestamps {
			if at.asc && t <= e.timestamp || !at.asc && t >= e.timestamp {
				delete(p.marks, at)
			}
		}
	}
}

// find returns the last mark that is not behind at; found is false when there is
// none.
func (p *pageMarks) find(at pageAt) (mark pageAt, e pageEnd, found bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for m, end := range p.marks {
		if m.asc == at.asc && m.offset <= at.offset && (!found || m.offset > mark.offset) {
			mark, e, found = m, end, true
		}
	}
	return mark, e, found
}

// keep keeps a mark of a listing that was read since the layout was what now returned.
func (p *pageMarks) keep(layout uint64, at pageAt, e pageEnd) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.layout != layout {
		return
	}
	if p.marks == nil {
		p.marks = make(map[pageAt]pageEnd)
	}
	for k := range p.marks {
		if len(p.marks) < maxPageMarks {
			break
		}
		delete(p.marks, k)
	}
	p.marks[at] = e
}
