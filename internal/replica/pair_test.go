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

// view is the member's own in normal form.
func (p *member) view() filter.View { return filter.View{p.own}.Normalize() }

// sees is what lies in a view by what the member knows: the live records. Who sees
// everything goes by what is there whole.
func (p *member) sees(t require.TestingT, v filter.View) map[can.Digest]record.ID {
	out := map[can.Digest]record.ID{}
	for e, err := range p.r.Entries(context.Background()) {
		check(t, err)
		if e.Live.HasBody() && (len(v) == 0 || e.Ahead == nil) && v.Match(e.Asset, e.Body.Metadata()) {
			out[e.Asset] = e.ID()
		}
	}
	return out
}

// traffic is what a meeting of two members took.
type traffic struct {
	rounds, messages, bytes int
	records                 int  // pushed
	offers                  int  // of owed records
	equal                   bool // both sets were equal from the start
}

// meet lets a reconcile with b under the view that both share: the control set, then
// the assets, then what they owe. After budget records the connection is gone; a
// negative one lasts.
func meet(t require.TestingT, a, b *member, budget int) (total traffic, cut bool) {
	total.equal = true
	for _, controlSet := range []bool{true, false} {
		p := &pairing{t: t, view: replica.NewSight(a.view(), b.view()).Link(), control: controlSet, budget: budget}
		p.run(a, b)
		budget = p.budget
		total.rounds += p.rounds
		total.messages += p.messages
		total.bytes += p.bytes
		total.records += p.records
		total.offers += p.offers
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
	if !p.control {
		// The answer to what is owed, as a tombstone, may be owed itself.
		for i := 0; p.hand(a, b) || p.hand(b, a); i++ {
			require.Less(p.t, i, 8, "what is owed comes back")
		}
	}
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
	sight := replica.NewSight(from.view(), to.view())
	for i, r := range recs {
		if !p.control {
			e, err := from.r.Entry(ctx, can.Digest(r.Subject))
			check(p.t, err)
			recs[i] = sight.Show(r, e)
		}
	}
	p.deliver(to.member, from.member, recs)
}

// hand offers what one side owes, and sends what the other has not. It reports
// whether there was something to offer.
func (p *pairing) hand(from, to *member) bool {
	ctx := context.Background()
	sight := replica.NewSight(from.view(), to.view())
	var ids []record.ID
	for id, err := range from.r.Owed(ctx, sight.Theirs(), record.ID{}) {
		check(p.t, err)
		_, err = from.r.Record(ctx, id, false)
		require.NoError(p.t, err, "what is owed is there")
		ids = append(ids, id)
	}
	if len(ids) == 0 || p.budget == 0 {
		return false
	}
	p.offers++
	kept, err := to.r.Keeps(ctx, ids)
	check(p.t, err)
	var recs []record.Record
	for i, id := range ids {
		if !kept[i] {
			r, err := from.r.Record(ctx, id, false)
			check(p.t, err)
			e, err := from.r.Entry(ctx, can.Digest(r.Subject))
			check(p.t, err)
			recs = append(recs, sight.Hand(r, e)...)
		}
	}
	taken := map[record.ID]bool{}
	for _, r := range p.deliver(to, from, recs) {
		taken[r.ID()] = r.HasBody() || r.Kind == record.Tombstone
	}
	kept, err = to.r.Keeps(ctx, ids)
	check(p.t, err)
	var paid []record.ID
	for i, id := range ids {
		if kept[i] || taken[id] {
			paid = append(paid, id)
		}
	}
	check(p.t, from.r.Paid(ctx, paid))
	return true
}

// deliver carries records to a member as far as the budget goes, and its answer back.
// It returns what came.
func (p *pairing) deliver(to, from *member, recs []record.Record) []record.Record {
	if p.budget >= 0 {
		recs = recs[:min(len(recs), p.budget)]
		p.budget -= len(recs)
	}
	if len(recs) == 0 {
		return nil
	}
	p.records += len(recs)
	p.bytes += carry(p.t, from, to, recs, p.control)
	res, err := to.r.Apply(context.Background(), recs, transport.PeerID{byte(from.who + 1)})
	check(p.t, err)
	require.Empty(p.t, res.Refused)
	answer, err := replica.NewSight(to.view(), from.view()).Answer(recs, res.Touched, func(d can.Digest) (replica.Entry, error) {
		return to.r.Entry(context.Background(), d)
	})
	check(p.t, err)
	p.deliver(from, to, answer)
	return recs
}

// carry takes records through the codec, and checks that no metadata goes to a member
// in whose view its sender does not see the asset.
func carry(t require.TestingT, from, to *member, recs []record.Record, control bool) (size int) {
	var sees map[can.Digest]record.ID
	if !control && !to.own.IsZero() {
		sees = from.sees(t, to.view())
	}
	for i, r := range recs {
		if sees != nil && r.HasBody() {
			require.Contains(t, sees, can.Digest(r.Subject), "metadata outside of the peer's view")
		}
		enc := r.Encode()
		size += len(enc)
		again, err := record.Decode(enc)
		check(t, err)
		recs[i] = again
	}
	return size
}
