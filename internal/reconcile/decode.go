package reconcile

import (
	"errors"
	"math"
)

var (
	// errCorrupt: no pair of sets has these symbols.
	errCorrupt = errors.New("reconcile: symbols contradict each other")
	// errWork: decoding took more operations than allowed.
	errWork = errors.New("reconcile: decoding exceeds its budget of operations")
)

// decoder peels the difference of two sets off the difference of their symbols.
// Symbols may come in any number of portions. Its memory is bounded by the
// symbols given to it, its work by maxOps.
type decoder struct {
	h      hasher
	cells  []symbol // theirs minus ours, minus what is decoded
	items  []item
	seen   map[ID]struct{}
	queue  []uint32 // cells that may hold a single id
	ops    int
	maxOps int

	delta    float64 // their size minus ours
	variance float64 // sum over cells of the squared, normalised deviation of the count
}

// item is a decoded id and where its mapping goes on.
type item struct {
	words [4]uint64
	check uint64
	sign  int64 // +1: only they have it; -1: only we have it
	m     mapping
}

func newDecoder(h hasher, maxOps int) *decoder {
	return &decoder{h: h, seen: make(map[ID]struct{}), maxOps: maxOps}
}

// add takes the next symbols of both sides, equally many, and peels on.
func (d *decoder) add(theirs, ours []symbol) error {
	from := len(d.cells)
	for i := range theirs {
		c := theirs[i]
		c.apply(&ours[i].sum, ours[i].check, -ours[i].count)
		d.observe(from+i, c.count)
		d.cells = append(d.cells, c)
	}
	d.ops += len(theirs) + len(d.items)
	for i := range d.items {
		if err := d.peel(&d.items[i]); err != nil {
			return err
		}
	}
	for i := from; i < len(d.cells); i++ {
		d.offer(uint64(i))
	}
	for len(d.queue) > 0 {
		i := d.queue[len(d.queue)-1]
		d.queue = d.queue[:len(d.queue)-1]
		if err := d.take(i); err != nil {
			return err
		}
	}
	return nil
}

// offer queues a cell that may hold a single id.
func (d *decoder) offer(i uint64) {
	if n := d.cells[i].count; n == 1 || n == -1 {
		d.queue = append(d.queue, uint32(i))
	}
}

// take decodes cell i if it holds a single id.
func (d *decoder) take(i uint32) error {
	c := d.cells[i]
	if c.count != 1 && c.count != -1 {
		return nil
	}
	id := c.id()
	check, m := d.h.hash(&id)
	d.ops += 4 // a hash costs about as much as four updates
	if check != c.check {
		return nil
	}
	// Honest symbols yield an id once, and never more ids than symbols. Crafted
	// ones could yield it for ever.
	if _, again := d.seen[id]; again || len(d.items) >= len(d.cells) {
		return errCorrupt
	}
	d.seen[id] = struct{}{}
	d.items = append(d.items, item{words: c.sum, check: check, sign: c.count, m: m})
	if err := d.peel(&d.items[len(d.items)-1]); err != nil {
		return err
	}
	if !d.cells[i].isZero() { // the id is not even mapped to this cell
		return errCorrupt
	}
	return nil
}

// peel takes a decoded id off the cells it has not been taken off yet.
func (d *decoder) peel(it *item) error {
	for it.m.index < uint64(len(d.cells)) {
		d.cells[it.m.index].apply(&it.words, it.check, -it.sign)
		d.offer(it.m.index)
		it.m.next()
		d.ops++
	}
	if d.ops > d.maxOps {
		return errWork
	}
	return nil
}

// done reports whether everything is decoded. The first cell holds every id, so it
// tells; if then another one is left over, the symbols are not of two sets.
func (d *decoder) done() (bool, error) {
	if len(d.cells) == 0 || !d.cells[0].isZero() {
		return false, nil
	}
	for i := range d.cells {
		if !d.cells[i].isZero() {
			return false, errCorrupt
		}
	}
	return true, nil
}

// differences returns the decoded ids, in no order: those only they have, those only we have.
func (d *decoder) differences() (missing, surplus []ID) {
	for i := range d.items {
		s := symbol{sum: d.items[i].words}
		if d.items[i].sign > 0 {
			missing = append(missing, s.id())
		} else {
			surplus = append(surplus, s.id())
		}
	}
	return missing, surplus
}

func (d *decoder) observe(i int, count int64) {
	if i == 0 {
		d.delta = float64(count)
		return
	}
	d.variance += deviation(i, float64(count), d.delta)
}

// estimate returns about how many differences there are.
func (d *decoder) estimate() float64 {
	e := math.Abs(d.delta)
	if n := len(d.cells) - 1; n > 0 {
		e = max(e, d.variance/float64(n))
	}
	return max(e, float64(len(d.items)), 1)
}
