package transfer

// fairly decides who of several that wait comes next, so that those who always wait
// are given the same amount in the long run, whatever the number and the sizes of
// their requests: start-time fair queueing (Goyal, Vin and Cheng, 1996). It is a
// plain value, not safe for concurrent use; the zero value is ready.
//
// Each has a mark, the amount up to which it was served; the lowest comes next. One
// that comes back takes up the mark of the last who was served, so nothing is saved
// up by staying away, and a debt is not forgotten by it.
type fairly[K comparable] struct {
	last  uint64 // the mark of the last who was served, before that
	marks map[K]*mark
}

type mark struct {
	at      uint64
	waiting int
}

// arrive notes one more request.
func (s *fairly[K]) arrive(k K) {
	m := s.marks[k]
	if m == nil {
		if s.marks == nil {
			s.marks = make(map[K]*mark)
		}
		s.forget()
		m = &mark{at: s.last}
		s.marks[k] = m
	}
	if m.waiting == 0 {
		m.at = max(m.at, s.last)
	}
	m.waiting++
}

// forget drops those who don't wait and have no debt, now and then.
func (s *fairly[K]) forget() {
	if n := len(s.marks); n < 64 || n&(n-1) != 0 {
		return
	}
	for k, m := range s.marks {
		if m.waiting == 0 && m.at <= s.last {
			delete(s.marks, k)
		}
	}
}

// next returns who comes next among those who wait and may come.
func (s *fairly[K]) next(may func(K) bool) (best K, ok bool) {
	var low uint64
	for k, m := range s.marks {
		if m.waiting > 0 && (!ok || m.at < low) && may(k) {
			best, low, ok = k, m.at, true
		}
	}
	return best, ok
}

// recent is how much the others must have been served since for one that does not
// wait to count as gone.
const recent = 1 << 20

// active calls fn for each that waits, or did until just now.
func (s *fairly[K]) active(fn func(K)) {
	for k, m := range s.marks {
		if m.waiting > 0 || m.at+recent > s.last {
			fn(k)
		}
	}
}

// serve notes that a request of k, who waits, is served at a cost.
func (s *fairly[K]) serve(k K, cost int) {
	m := s.marks[k]
	s.last = max(s.last, m.at)
	m.at += uint64(cost)
	m.waiting--
}

// charge notes that what k was served cost more than it was said to.
func (s *fairly[K]) charge(k K, more int) {
	if m := s.marks[k]; m != nil {
		m.at += uint64(more)
	}
}

// leave notes that a request was given up.
func (s *fairly[K]) leave(k K) { s.marks[k].waiting-- }

// clear forgets all debts; nobody waits.
func (s *fairly[K]) clear() {
	s.last = 0
	clear(s.marks)
}
