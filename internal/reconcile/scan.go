package reconcile

import (
	"fmt"
	"slices"
)

// scan is a scan under way: sink takes its pages and says whether it wants more.
type scan struct {
	next ID
	sink func(ids []ID, end bool) (more bool, err error)
}

// successor is the id after id; last reports that there is none.
func successor(id ID) (next ID, last bool) {
	for i := len(id) - 1; i >= 0; i-- {
		id[i]++
		if id[i] != 0 {
			return id, false
		}
	}
	return id, true
}

func (s *Session) startScan(from ID, sink func([]ID, bool) (bool, error)) {
	s.scan = &scan{next: from, sink: sink}
	s.step.Scan = &Scan{From: from, Limit: ScanPage}
}

// Supply answers Step.Scan with the next ids in ascending order; end says that
// the set has none beyond them. The slice may be used again afterwards. Errors
// match ErrScan, or those of Handle if a message had to wait for the scan.
func (s *Session) Supply(ids []ID, end bool) (Step, error) {
	if s.err != nil {
		return Step{}, s.err
	}
	s.step = Step{}
	return s.conclude(s.supply(ids, end))
}

func (s *Session) supply(ids []ID, end bool) error {
	sc := s.scan
	if sc == nil {
		return fmt.Errorf("%w: none is under way", ErrScan)
	}
	if len(ids) == 0 && !end {
		return fmt.Errorf("%w: a page without ids that is not the last", ErrScan)
	}
	for i := range ids {
		if i == 0 && compare(ids[0], sc.next) < 0 || i > 0 && compare(ids[i-1], ids[i]) >= 0 {
			return fmt.Errorf("%w: ids not in ascending order", ErrScan)
		}
	}
	if len(ids) > 0 {
		next, last := successor(ids[len(ids)-1])
		sc.next, end = next, end || last
	}
	more, err := sc.sink(ids, end)
	if err != nil {
		return err
	}
	if s.scan != sc { // the sink ended this one, and perhaps began another
		return nil
	}
	if more && !end {
		s.step.Scan = &Scan{From: sc.next, Limit: ScanPage}
		return nil
	}
	s.scan = nil
	return s.resumeAfterScan()
}

func (s *Session) resumeAfterScan() error {
	if after := s.after; after != nil && s.scan == nil {
		s.after = nil
		return after()
	}
	return nil
}

// scanSymbols makes the first n symbols in one scan and hands them to then. If
// base is set, it is the prefix of the set they must belong to: what the scan saw
// beyond or short of that set is found by decoding, and made good. If it is too
// much for that, then gets ErrStale.
func (s *Session) scanSymbols(h hasher, n int, base []symbol, then func([]symbol, error) error) {
	s.stats.Scans++
	symbols := make([]symbol, n)
	s.startScan(ID{}, func(ids []ID, end bool) (bool, error) {
		for i := range ids {
			h.addAll(symbols, &ids[i], 1)
		}
		if !end {
			return true, nil
		}
		s.scan = nil
		var err error
		if base != nil {
			err = correct(h, symbols, base, s.limits.Work)
		}
		if err := then(symbols, err); err != nil {
			return false, err
		}
		return false, s.resumeAfterScan()
	})
}

// correct turns symbols of a set into those of the set with the prefix base.
func correct(h hasher, symbols, base []symbol, work int) error {
	dec := newDecoder(h, work)
	n := min(len(base), len(symbols))
	if err := dec.add(symbols[:n], base[:n]); err != nil {
		return ErrStale
	}
	if ok, err := dec.done(); !ok || err != nil {
		return ErrStale
	}
	for i := range dec.items {
		it := &dec.items[i]
		s := symbol{sum: it.words}
		id := s.id()
		h.addAll(symbols, &id, -it.sign)
	}
	if !slices.Equal(symbols[:n], base[:n]) {
		return ErrStale
	}
	return nil
}
