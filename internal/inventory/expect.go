package inventory

import "sync"

// maxExpected bounds the ingests in flight that are told apart by size.
const maxExpected = 4096

// expected are the sizes of the ingests in flight.
type expected struct {
	mu    sync.Mutex
	sizes map[int64]int
	total int
	// over counts those beyond the bound: while there are any, every size counts
	// as expected.
	over int
}

// Expect says that the node is about to ingest a content of the size, so that
// whoever sees a new handle in the service can tell that it may be the node's
// own. The caller calls done once the handle stands in the inventory or the
// ingest has failed; calling it again does nothing.
func (v *Inventory) Expect(size int64) (done func()) {
	e := &v.expected
	e.mu.Lock()
	defer e.mu.Unlock()
	counted := e.total < maxExpected
	if counted {
		if e.sizes == nil {
			e.sizes = make(map[int64]int)
		}
		e.sizes[size]++
		e.total++
	} else {
		e.over++
	}
	return sync.OnceFunc(func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if !counted {
			e.over--
			return
		}
		e.total--
		if e.sizes[size]--; e.sizes[size] == 0 {
			delete(e.sizes, size)
		}
	})
}

// Expected reports whether a new handle for a content of the size may come from
// an ingest that is in flight; with a negative size, one that the service does
// not tell, whether any ingest is. Ask before looking the handle up with
// ByHandle: an unknown handle that was not expected then is not the node's own.
func (v *Inventory) Expected(size int64) bool {
	e := &v.expected
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over > 0 || size < 0 && e.total > 0 {
		return true
	}
	return e.sizes[size] > 0
}
