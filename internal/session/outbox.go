package session

import (
	"sync"

	"github.com/cansync/cansync/internal/reconcile"
	"github.com/cansync/cansync/internal/record"
)

// Bounds of what waits to be written to one peer.
const (
	maxFrames    = 1024      // frames of the protocol itself
	maxFrameSum  = 8 << 20   // their bytes: a run of symbols or pages in a row has half a megabyte
	maxPushBytes = 4 << 20   // records pushed live; beyond, the link reconciles instead
	maxOrders    = 256       // requests that wait for their turn; beyond, the link reconciles once more
	maxOrderIDs  = 1 << 19   // the ids that they have together
	batchBytes   = 192 << 10 // records that share a frame
)

// order is a wish for records: those with the ids, or all of the set.
type order struct {
	control bool
	ids     []reconcile.ID
	all     bool
	from    [32]byte // the asset from which all are sent
	// hand says that the records are owed, and go to the peer if they lie in its view.
	hand bool
	// round, when not 0, closes the surplus of a reconciliation in a caught frame; then
	// is a frame that goes behind the records. With again the link reconciles once more
	// when all is sent.
	round uint32
	again bool
	ping  bool // a ping goes behind it
	then  []byte
}

// pushed is a live record. A sure one is sent even if the peer had it once.
type pushed struct {
	record.Record
	sure bool
}

// outbox holds what the writer of a link sends next: protocol frames first, then
// live records, then what was ordered. Adding never blocks.
type outbox struct {
	wake chan struct{}

	mu     sync.Mutex
	frames [][]byte
	sum    int // bytes of frames
	push   []pushed
	bytes  int // of push
	orders []order
	ids    int // of orders
}

func newOutbox() *outbox { return &outbox{wake: make(chan struct{}, 1)} }

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// frame adds a protocol frame; it reports false when the peer lets too many pile
// up, which only one that does not read does.
func (o *outbox) frame(b []byte) bool {
	o.mu.Lock()
	ok := len(o.frames) < maxFrames && o.sum+len(b) <= maxFrameSum
	if ok {
		o.frames = append(o.frames, b)
		o.sum += len(b)
	}
	o.mu.Unlock()
	o.signal()
	return ok
}

// live adds records to be pushed; it reports false when they do not fit and were
// dropped, so that the link has to reconcile.
func (o *outbox) live(recs []record.Record, sure bool) bool {
	n := 0
	for i := range recs {
		n += recs[i].Size()
	}
	o.mu.Lock()
	ok := o.bytes+n <= maxPushBytes
	if ok {
		for i := range recs {
			o.push = append(o.push, pushed{recs[i], sure})
		}
		o.bytes += n
	}
	o.mu.Unlock()
	o.signal()
	return ok
}

// surplus orders records that a reconciliation found the peer to lack. It reports false
// when they do not fit and were left out, so that the link has to reconcile once more:
// finding differences is faster than sending them, and the peer is not to blame for it.
func (o *outbox) surplus(w order) bool {
	// One alone may have any number: a difference that was decoded at once.
	return o.add(w, func() bool {
		return len(o.orders) < maxOrders && (len(o.orders) == 0 || o.ids+len(w.ids) <= maxOrderIDs)
	})
}

// order adds an order of which there are few in each round. It reports false when the
// peer begins rounds and does not read what it asked for.
func (o *outbox) order(w order) bool {
	return o.add(w, func() bool { return len(o.orders) < 2*maxOrders })
}

func (o *outbox) add(w order, fits func() bool) bool {
	o.mu.Lock()
	ok := fits()
	if ok {
		o.orders = append(o.orders, w)
		o.ids += len(w.ids)
	}
	o.mu.Unlock()
	o.signal()
	return ok
}

// urgent takes the frames and a batch of live records.
func (o *outbox) urgent() (frames [][]byte, recs []pushed) {
	o.mu.Lock()
	defer o.mu.Unlock()
	frames, o.frames, o.sum = o.frames, nil, 0
	n := 0
	for n < len(o.push) && n < 4*record.MaxBatch {
		o.bytes -= o.push[n].Size()
		n++
	}
	recs, o.push = o.push[:n:n], o.push[n:]
	if len(o.push) == 0 {
		o.push = nil
	}
	return frames, recs
}

func (o *outbox) next() (order, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.orders) == 0 {
		return order{}, false
	}
	w := o.orders[0]
	o.orders[0] = order{} // its ids need not wait for the others
	o.orders = o.orders[1:]
	o.ids -= len(w.ids)
	return w, true
}

// idle reports whether nothing waits.
func (o *outbox) idle() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.frames) == 0 && len(o.push) == 0 && len(o.orders) == 0
}
