package reconcile

import "fmt"

// lister sends its ids in pages, pageWindow of them ahead of the answers.
type lister struct {
	ids  []ID   // scanned, not sent
	out  [][]ID // sent, not answered
	next ID     // where the scan goes on
	end  bool   // the scan has ended
	last bool   // the last page is sent
}

func (s *Session) startListing() error {
	s.stats.Listed = true
	s.stats.Scans++
	s.state = listing
	s.scanList()
	return nil
}

func (s *Session) scanList() {
	s.startScan(s.list.next, func(ids []ID, end bool) (bool, error) {
		l := &s.list
		l.ids = append(l.ids, ids...)
		l.end = end
		if len(ids) > 0 {
			l.next, _ = successor(ids[len(ids)-1])
		}
		return s.sendPages(), nil
	})
}

// sendPages sends what the window allows and reports whether more ids are wanted.
func (s *Session) sendPages() bool {
	l := &s.list
	for len(l.out) < pageWindow && !l.last {
		n := min(len(l.ids), pageIDs)
		l.last = l.end && n == len(l.ids)
		if n < pageIDs && !l.last {
			return true
		}
		page := l.ids[:n:n]
		l.ids = l.ids[n:]
		l.out = append(l.out, page)
		s.send(pageMsg{ids: page, last: l.last})
	}
	return false
}

func (s *Session) onWant(m wantMsg) error {
	l := &s.list
	if len(l.out) == 0 || m.n != len(l.out[0]) {
		return fmt.Errorf("%w: answer to no page", ErrProtocol)
	}
	for i, id := range l.out[0] {
		if m.bits[i/8]>>(i%8)&1 != 0 {
			s.step.Surplus = append(s.step.Surplus, id)
		}
	}
	l.out = l.out[1:]
	if l.last && len(l.out) == 0 {
		s.done()
		return nil
	}
	if s.scan != nil {
		s.sendPages()
		return nil
	}
	if s.sendPages() {
		s.scanList()
	}
	return nil
}

// merger compares the peer's pages with a scan of our own ids, as one merges two
// sorted lists: the obvious way, and the reference for the others.
type merger struct {
	limit int // ids accepted
	got   int
	prev  *ID // the last id of the page before
	last  bool
	pages []pageMsg // received, not answered
	at    int       // ids of the first page that are compared
	want  []byte    // bits of the first page's answer
	mine  []ID      // scanned, not compared
	next  ID        // where the scan goes on
	end   bool      // the scan has ended
}

func (s *Session) startMerge(peer int) {
	s.state = merging
	s.stats.Listed = true
	s.stats.Scans++
	s.merge = merger{limit: min(2*peer+ScanPage, s.limits.Listed)}
}

func (s *Session) onPage(m pageMsg) error {
	g := &s.merge
	switch {
	case g.last || len(g.pages) >= pageWindow:
		return fmt.Errorf("%w: page out of turn", ErrProtocol)
	case !m.last && len(m.ids) != pageIDs:
		return fmt.Errorf("%w: listing not in full pages", ErrProtocol)
	case len(m.ids) > 0 && g.prev != nil && compare(*g.prev, m.ids[0]) >= 0:
		return fmt.Errorf("%w: ids out of order", ErrProtocol)
	}
	if g.got += len(m.ids); g.got > g.limit {
		return fmt.Errorf("%w: more than %d ids listed", ErrBudget, g.limit)
	}
	if len(m.ids) > 0 {
		g.prev = &m.ids[len(m.ids)-1]
	}
	g.last = m.last
	g.pages = append(g.pages, m)
	if s.scan == nil && s.mergePages() {
		s.scanMerge()
	}
	return nil
}

func (s *Session) scanMerge() {
	s.startScan(s.merge.next, func(ids []ID, end bool) (bool, error) {
		g := &s.merge
		g.mine = append(g.mine, ids...)
		g.end = end
		if len(ids) > 0 {
			g.next, _ = successor(ids[len(ids)-1])
		}
		return s.mergePages(), nil
	})
}

// mergePages compares what is there and reports whether it takes more of our ids.
func (s *Session) mergePages() bool {
	g := &s.merge
	for len(g.pages) > 0 {
		page := &g.pages[0]
		if g.want == nil {
			g.want = make([]byte, (len(page.ids)+7)/8)
		}
		for ; g.at < len(page.ids); g.at++ {
			id := page.ids[g.at]
			for len(g.mine) > 0 && compare(g.mine[0], id) < 0 {
				s.surplus()
			}
			switch {
			case len(g.mine) == 0 && !g.end:
				return true
			case len(g.mine) > 0 && g.mine[0] == id:
				g.mine = g.mine[1:]
			case s.refuse(id):
			default:
				g.want[g.at/8] |= 1 << (g.at % 8)
				s.step.Missing = append(s.step.Missing, id)
			}
		}
		if page.last {
			for len(g.mine) > 0 {
				s.surplus()
			}
			if !g.end {
				return true
			}
		}
		s.send(wantMsg{n: len(page.ids), bits: g.want})
		if page.last {
			s.done()
			return false
		}
		g.pages, g.at, g.want = g.pages[1:], 0, nil
	}
	return false
}

func (s *Session) surplus() {
	s.step.Surplus = append(s.step.Surplus, s.merge.mine[0])
	s.merge.mine = s.merge.mine[1:]
}
