package replica_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/reconcile"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/transport"
)

// member is a replica whose sessions are calls: no network, no goroutine.
type member struct {
	w     *world
	who   int
	own   filter.Filter
	store store.Store
	check *record.Verifier
	now   func() time.Time
	r     *replica.Replica
}

func (p *member) open(t require.TestingT) {
	r, err := replica.Open(context.Background(), replica.Options{
		Library: p.w.keys.ID, Store: p.store, Verifier: p.check, ReconcileKey: p.w.keys.Lasting.ReconcileKey(),
		View: p.own, Now: p.now, Rand: rand.Reader,
	})
	check(t, err)
	p.r = r
}

// sign is a replica.Signer.
func (p *member) sign(ds []record.Draft) ([]record.Record, error) {
	for i := range ds {
		ds[i].Cert = p.w.authors[p.who].cert
	}
	return record.SignWith(p.w.authors[p.who].key, ds)
}

// traffic is what a meeting of two members took.
type traffic struct {
	rounds, messages, bytes int
	records                 int  // pushed
	equal                   bool // both sets were equal from the start
}

// meet lets a reconcile with b under the view that both share: the control set, then
// the assets. After budget records the connection is gone; a negative one lasts.
func meet(t require.TestingT, a, b *member, budget int) (total traffic, cut bool) {
	view := filter.View{a.own, b.own}.Normalize()
	total.equal = true
	for _, controlSet := range []bool{true, false} {
		p := &pairing{t: t, view: view, control: controlSet, budget: budget}
		p.run(a, b)
		budget = p.budget
		total.rounds += p.rounds
		total.messages += p.messages
		total.bytes += p.bytes
		total.records += p.records
		total.equal = total.equal && p.equal
		if budget == 0 {
			return total, true
		}
	}
	return total, false
}

// pairing is one session about one set.
type pairing struct {
	traffic
	t       require.TestingT
	view    filter.View
	control bool
	budget  int
}

// end is one side of a pairing.
type end struct {
	*member
	s    *reconcile.Session
	in   [][]byte
	done bool
	push []record.ID
	all  bool
}

func (p *pairing) run(a, b *member) {
	ctx := context.Background()
	sa, err := a.r.Snapshot(ctx, p.control, p.view)
	check(p.t, err)
	sb, err := b.r.Snapshot(ctx, p.control, p.view)
	check(p.t, err)
	x, y := &end{member: a}, &end{member: b}
	var first []byte
	x.s, first, err = reconcile.NewInitiator(sa, reconcile.Config{})
	check(p.t, err)
	y.s, err = reconcile.NewResponder(sb, reconcile.Config{})
	check(p.t, err)
	y.in = [][]byte{first}
	for len(x.in)+len(y.in) > 0 {
		to, from := y, x
		if len(y.in) == 0 {
			to, from = x, y
		}
		msg := to.in[0]
		to.in = to.in[1:]
		p.messages++
		p.bytes += len(msg)
		step, err := to.s.Handle(msg)
		check(p.t, err)
		p.follow(to, from, step)
	}
	require.True(p.t, x.done && y.done, "the session hangs")
	p.rounds, p.equal = x.s.Stats().Rounds, x.s.Stats().Equal
	p.send(x, y)
	p.send(y, x)
}

func (p *pairing) follow(e, other *end, step reconcile.Step) {
	for {
		other.in = append(other.in, step.Send...)
		for _, id := range step.Surplus {
			e.push = append(e.push, record.ID(id))
		}
		e.all = e.all || step.Bulk != nil && step.Bulk.Push
		e.done = e.done || step.Done
		if step.Scan == nil {
			return
		}
		var page []reconcile.ID
		whole := true
		for id, err := range e.r.IDs(context.Background(), p.control, p.view) {
			check(p.t, err)
			if bytes.Compare(id[:], step.Scan.From[:]) < 0 {
				continue
			}
			if len(page) == step.Scan.Limit {
				whole = false
				break
			}
			page = append(page, reconcile.ID(id))
		}
		var err error
		step, err = e.s.Supply(page, whole)
		check(p.t, err)
	}
}

// send pushes what a session found, as the peer may see it, through the codec.
func (p *pairing) send(from, to *end) {
	ctx := context.Background()
	var recs []record.Record
	if from.all {
		for r, err := range from.r.RecordsFrom(ctx, p.control, p.view, can.Digest{}) {
			check(p.t, err)
			recs = append(recs, r)
		}
	}
	for _, id := range from.push {
		r, err := from.r.Record(ctx, id, p.control)
		if errors.Is(err, replica.ErrNoRecord) {
			continue // replaced while this was under way
		}
		check(p.t, err)
		recs = append(recs, r)
	}
	if p.budget >= 0 {
		recs = recs[:min(len(recs), p.budget)]
		p.budget -= len(recs)
	}
	p.records += len(recs)
	for i, r := range recs {
		if !p.control && len(p.view) > 0 {
			e, err := from.r.Entry(ctx, can.Digest(r.Subject))
			check(p.t, err)
			if !e.In(p.view) {
				r = r.WithoutBody()
			}
		}
		recs[i] = p.carry(r)
	}
	p.deliver(to.member, from.member, recs)
	if p.control || len(p.view) == 0 {
		return
	}
	// What came of assets that lie outside is answered by the bare live record.
	var answer []record.Record
	for _, r := range recs {
		e, err := to.r.Entry(ctx, can.Digest(r.Subject))
		check(p.t, err)
		if e.Known() && !e.In(p.view) && e.ID() != r.ID() {
			answer = append(answer, p.carry(e.Live.WithoutBody()))
		}
	}
	p.deliver(from.member, to.member, answer)
}

func (p *pairing) carry(r record.Record) record.Record {
	enc := r.Encode()
	p.bytes += len(enc)
	again, err := record.Decode(enc)
	check(p.t, err)
	return again
}

func (p *pairing) deliver(to, from *member, recs []record.Record) {
	if len(recs) == 0 {
		return
	}
	res, err := to.r.Apply(context.Background(), recs, transport.PeerID{byte(from.who + 1)})
	check(p.t, err)
	require.Empty(p.t, res.Refused)
}
