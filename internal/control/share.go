package control

import (
	"bytes"
	"cmp"
	"container/heap"
	"slices"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/record"
)

// What a set keeps when there is more than its [Limits] allow must follow from the
// records, not from the order in which they came, or two members would differ for good.
// So whatever has to give way is found by admitting all of them anew, in an order
// that each of them finds alike: at each step, of the records that rest on nothing
// still to come,
//
//   - those for which an admin answers come first, the one with the smallest clock,
//     then id;
//   - then that of the group which has got the fewest so far; of groups that have
//     as many, and within a group, the one with the smallest clock, then id.
//
// A record that finds its group or the set full is left out, and so is what rests on it
// alone. Where several groups may account for a record, that one does which has got the
// fewest. What comes early is told by a clock that its author can choose: whoever
// backdates displaces what its own group said, never what another's did beyond an
// equal share, nor an admin's.
//
// Where two sets differ, the first step at which they do shows a record that the one with
// the later choice has to take, since everything before is the same there. A set
// that takes it is ahead of what it was in an order without end points but the common one:
// members that hand each other their records end with the same, and then are silent.

// Limits bound a set. They are the same for all members of a library; a zero field takes
// the default.
type Limits struct {
	// Records bounds the records that count, beside one description of each admin:
	// [MaxRecords].
	Records int
	// Share bounds those that one group without the admin right accounts for:
	// [MaxShare].
	Share int
	// Shared bounds those of all such groups: [MaxShared].
	Shared int
}

func (l Limits) withDefaults() Limits {
	return Limits{cmp.Or(l.Records, MaxRecords), cmp.Or(l.Share, MaxShare), cmp.Or(l.Shared, MaxShared)}
}

// maxSponsors bounds the groups that may account for one member, which are several
// when several let it in.
const maxSponsors = 32

// payer returns the certificate whose group accounts for a record: of who speaks; or,
// where an admin admits one who came by another's invite, of who issued that. It is
// zero where an admin answers for it. The record rests on that certificate.
func (s *State) payer(r record.Record, in *cert) (id capability.CertID) {
	by := capability.CertID(r.Cert)
	if in != nil && in.grant.ID == by {
		return id // the owner's own device introduces itself
	}
	if !s.admin(by) {
		return by
	}
	if in != nil && in.Kind == capability.KindMember && !in.Parent.IsZero() {
		if issuer := s.certs[in.Parent].Parent; !s.admin(issuer) {
			return issuer
		}
	}
	return id
}

func (s *State) admin(id capability.CertID) bool {
	c := s.certs[id]
	return c != nil && c.grant.Rights.Has(capability.Admin)
}

// group is what one sponsor accounts for.
type group struct {
	sponsor capability.CertID
	count   int
	ready   queue
	place   int // among the groups that have something ready, or -1
}

// standing is a certificate that counts in the order of admission.
type standing struct {
	sponsors []*group    // any of which may account for what its holder says
	claims   []*entry    // for which they may
	guests   []*standing // whose sponsors these are as well
}

// admission finds what a set keeps.
type admission struct {
	*State
	admins  queue
	groups  map[capability.CertID]*group
	open    groups
	certs   map[capability.CertID]*standing
	blocked map[capability.CertID][]*entry // by what they rest on
	shared  int
	order   []*entry
}

// choose returns the records that the set keeps, descriptions aside, each behind those it
// rests on, out of those that it has.
func (s *State) choose() []*entry {
	n := len(s.order)
	a := &admission{
		State: s, groups: map[capability.CertID]*group{}, certs: make(map[capability.CertID]*standing, len(s.certs)),
		blocked: make(map[capability.CertID][]*entry, len(s.certs)), order: make([]*entry, 0, n),
	}
	for _, e := range s.order {
		if e.Kind == record.Description {
			continue
		}
		e.needs, e.done = 0, false
		for _, id := range e.rests() {
			if !id.IsZero() {
				a.blocked[id] = append(a.blocked[id], e)
				e.needs++
			}
		}
		if e.needs == 0 {
			a.enqueue(e)
		}
	}
	for len(a.order) < s.limits.Records {
		switch {
		case len(a.admins) > 0:
			a.admit(heap.Pop(&a.admins).(*entry))
		case len(a.open) > 0 && a.shared < s.limits.Shared:
			a.take(a.open[0])
		default:
			return a.order
		}
	}
	return a.order
}

// enqueue makes a record ready whose support counts.
func (a *admission) enqueue(e *entry) {
	if e.payer.IsZero() {
		heap.Push(&a.admins, e)
		return
	}
	st := a.certs[e.payer]
	st.claims = append(st.claims, e)
	for _, g := range st.sponsors {
		a.ready(g, e)
	}
}

// ready puts a record among those that a group may account for, unless it is full.
func (a *admission) ready(g *group, e *entry) {
	if g.count < a.limits.Share && !e.done {
		heap.Push(&g.ready, e)
		a.moved(g)
	}
}

// take admits the next record of a group, if another has not accounted for it.
func (a *admission) take(g *group) {
	e := heap.Pop(&g.ready).(*entry)
	if e.done {
		a.moved(g)
		return
	}
	g.count++
	if g.count >= a.limits.Share {
		g.ready = nil
	}
	a.moved(g)
	a.shared++
	e.done = true
	a.admit(e)
}

// moved puts a group where it belongs now.
func (a *admission) moved(g *group) {
	switch {
	case len(g.ready) == 0:
		if g.place >= 0 {
			heap.Remove(&a.open, g.place)
		}
	case g.place < 0:
		heap.Push(&a.open, g)
	default:
		heap.Fix(&a.open, g.place)
	}
}

func (a *admission) admit(e *entry) {
	a.order = append(a.order, e)
	if e.in == nil {
		return
	}
	id := e.in.grant.ID
	st := a.certs[id]
	first := st == nil
	if first {
		st = &standing{}
		a.certs[id] = st
	}
	if e.in.Kind == capability.KindMember && !e.in.grant.Rights.Has(capability.Admin) {
		a.admitted(st, e)
	}
	if !first {
		return
	}
	for _, w := range a.blocked[id] {
		if w.needs--; w.needs == 0 {
			a.enqueue(w)
		}
	}
	delete(a.blocked, id)
}

// admitted adds those who account for what a member says, as this admission has it: for
// whom admins answered, itself; else who may account for the admission.
func (a *admission) admitted(st *standing, e *entry) {
	if e.payer.IsZero() {
		id := e.in.grant.ID
		if a.groups[id] == nil {
			a.groups[id] = &group{sponsor: id, place: -1}
		}
		a.sponsor(st, a.groups[id])
		return
	}
	by := a.certs[e.payer]
	by.guests = append(by.guests, st)
	for _, g := range by.sponsors {
		a.sponsor(st, g)
	}
}

func (a *admission) sponsor(st *standing, g *group) {
	if len(st.sponsors) >= maxSponsors || slices.Contains(st.sponsors, g) {
		return
	}
	st.sponsors = append(st.sponsors, g)
	for _, e := range st.claims {
		a.ready(g, e)
	}
	for _, guest := range st.guests {
		a.sponsor(guest, g)
	}
}

// before is the order of records within a group.
func before(a, b *entry) bool {
	if a.Clock != b.Clock {
		return a.Clock < b.Clock
	}
	return a.id.Compare(b.id) < 0
}

// queue is a heap of records that are ready.
type queue []*entry

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return before(q[i], q[j]) }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)        { *q = append(*q, x.(*entry)) }
func (q *queue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

// groups is a heap of groups that have something ready.
type groups []*group

func (q groups) Len() int { return len(q) }
func (q groups) Less(i, j int) bool {
	if q[i].count != q[j].count {
		return q[i].count < q[j].count
	}
	if a, b := q[i].ready[0], q[j].ready[0]; a != b {
		return before(a, b)
	}
	return bytes.Compare(q[i].sponsor[:], q[j].sponsor[:]) < 0
}
func (q groups) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}
func (q *groups) Push(x any) {
	g := x.(*group)
	g.place = len(*q)
	*q = append(*q, g)
}
func (q *groups) Pop() any {
	old := *q
	g := old[len(old)-1]
	g.place = -1
	*q = old[:len(old)-1]
	return g
}
