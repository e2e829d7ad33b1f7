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
// paging by offset through a quiet service doesn't have the index skip all rows
// before each page. A mark counts only while no asset entered or left listings.
type pageMarks struct {
	mu     sync.Mutex
	layout uint64
	marks  map[pageAt]pageEnd
}

type pageAt struct {
	asc    bool
	offset int64
}

// pageEnd is the last row before the offset.
type pageEnd struct{ timestamp, id int64 }

const maxPageMarks = 64

func (p *pageMarks) find(layout uint64, at pageAt) (pageEnd, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.layout != layout {
		return pageEnd{}, false
	}
	e, ok := p.marks[at]
	return e, ok
}

func (p *pageMarks) keep(layout uint64, at pageAt, e pageEnd) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.layout != layout || p.marks == nil {
		p.layout, p.marks = layout, make(map[pageAt]pageEnd)
	}
	for k := range p.marks {
		if len(p.marks) < maxPageMarks {
			break
		}
		delete(p.marks, k)
	}
	p.marks[at] = e
}
