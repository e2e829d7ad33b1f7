package control

import (
	"container/list"
	"slices"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/record"
)

// item is a record with its id.
type item struct {
	id  record.ID
	rec record.Record
}

// waiting holds at most [MaxWaiting] records, each under the certificate it waits
// for, and lets the oldest go for a new one.
type waiting struct {
	queue *list.List // of *waiter, oldest first
	byID  map[record.ID]*list.Element
	by    map[capability.CertID]map[record.ID]*list.Element
}

type waiter struct {
	item
	missing capability.CertID
}

func newWaiting() waiting {
	return waiting{
		queue: list.New(),
		byID:  map[record.ID]*list.Element{},
		by:    map[capability.CertID]map[record.ID]*list.Element{},
	}
}

func (w *waiting) len() int { return w.queue.Len() }

func (w *waiting) has(id record.ID) bool { return w.byID[id] != nil }

func (w *waiting) put(it item, missing capability.CertID) {
	if w.queue.Len() >= MaxWaiting {
		w.remove(w.queue.Front())
	}
	e := w.queue.PushBack(&waiter{it, missing})
	w.byID[it.id] = e
	if w.by[missing] == nil {
		w.by[missing] = map[record.ID]*list.Element{}
	}
	w.by[missing][it.id] = e
}

func (w *waiting) remove(e *list.Element) {
	x := w.queue.Remove(e).(*waiter)
	delete(w.byID, x.id)
	delete(w.by[x.missing], x.id)
	if len(w.by[x.missing]) == 0 {
		delete(w.by, x.missing)
	}
}

// take removes and returns what waits for a certificate, by id.
func (w *waiting) take(id capability.CertID) (out []item) {
	for _, e := range w.by[id] {
		out = append(out, e.Value.(*waiter).item)
		w.remove(e)
	}
	slices.SortFunc(out, func(a, b item) int { return a.id.Compare(b.id) })
	return out
}
