package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cansync/cansync/internal/overlay"
)

// result is a number of records spreading in one scenario.
type result struct {
	members, degree, records int
	down                     int
	noticed                  bool // the overlay replaced links with those that are down
	fault                    fault
	parts                    []int
	meanLinks                float64
	mostLinks                int
	total                    outcome         // sums, and most of mosts, of all records
	half, most, all          []time.Duration // per record, till so many had it
}

// study runs the scenarios of one size: everybody up with no push lost and with one
// of twenty lost; then a tenth down, before and after the others noticed.
func study(members, degree, records int, seed uint64) []result {
	w := newNetwork(members, degree, seed)
	w.settle(w.up())
	// Age the links by one turn, since those of the first minute are the fewest.
	for range 2 {
		w.tick(overlay.Turn / 2)
		w.tick(0) // to drop what is not needed any more
	}
	const loss = 0.05
	whole := view(w, seed)
	out := []result{whole.measure(whole, fault{}, records, seed), whole.measure(whole, fault{loss: loss}, records, seed)}
	w.fail(max(1, members/10))
	hurt := view(w, seed)
	w.settle(w.notice())
	healed := view(w, seed)
	out = append(out, hurt.measure(healed, fault{loss: loss}, records, seed), healed.measure(healed, fault{loss: loss}, records, seed))
	out[3].noticed = true
	return out
}

// scene is a network at one moment.
type scene struct {
	edges  edges
	up     []int
	down   []bool
	result result
}

func view(w *network, seed uint64) scene {
	s := scene{edges: newEdges(w, rand.New(rand.NewPCG(seed, 2))), up: w.up(), down: slices.Clone(w.down)}
	s.result = result{members: len(w.ids), degree: w.degree, down: len(w.ids) - len(s.up), parts: w.parts()}
	s.result.meanLinks, _, s.result.mostLinks = w.degrees()
	return s
}

// fail takes a number of random members down.
func (w *network) fail(n int) {
	up := w.up()
	w.rng.Shuffle(len(up), func(i, j int) { up[i], up[j] = up[j], up[i] })
	for _, i := range up[:n] {
		w.down[i] = true
	}
}

// measure lets records of random authors spread, one after the other; healed
// is the scene after the members noticed who is down.
func (s scene) measure(healed scene, f fault, records int, seed uint64) result {
	rng := rand.New(rand.NewPCG(seed, 3))
	r := s.result
	r.fault, r.records = f, records
	for range records {
		r.add(spread([2]edges{s.edges, healed.edges}, s.down, s.up[rng.IntN(len(s.up))], f, rng))
	}
	return r
}

// add adds the outcome of one record.
func (r *result) add(o outcome) {
	t := &r.total
	t.up += o.up
	t.reached += o.reached
	t.pushed += o.pushed
	t.mostPushed = max(t.mostPushed, o.mostPushed)
	t.lost += o.lost
	t.arrived += o.arrived
	t.duplicates += o.duplicates
	t.repairs += o.repairs
	t.hopSum += o.hopSum
	t.hops = max(t.hops, o.hops)
	at := func(share float64) time.Duration {
		n := int(math.Ceil(share * float64(o.up)))
		if n > len(o.times) {
			return giveUp
		}
		return o.times[n-1]
	}
	r.half = append(r.half, at(0.5))
	r.most = append(r.most, at(0.99))
	r.all = append(r.all, at(1))
}

// check returns what a scenario owes and does not deliver.
func (r result) check() error {
	// Random graphs of this degree have shortest paths of about the logarithm of
	// their size to the base of the degree less two. The fastest path, which a
	// record takes, has up to three times as many hops; repairs add detours.
	bound := 2 + 3*int(math.Ceil(math.Log(float64(r.members))/math.Log(float64(max(3, r.degree-2)))))
	if r.fault.loss > 0 || r.down > 0 {
		bound *= 2
	}
	t := r.total
	switch {
	case len(r.parts) != 1:
		return fmt.Errorf("the graph is in %d parts", len(r.parts))
	case t.reached != t.up:
		return fmt.Errorf("%d of %d members not reached", t.up-t.reached, t.up)
	case t.hops > bound:
		return fmt.Errorf("%d hops, more than %d", t.hops, bound)
	case t.pushed > t.up*r.degree:
		return fmt.Errorf("%.1f pushes for a member and record, more than %d", float64(t.pushed)/float64(t.up), r.degree)
	case r.mostLinks > overlay.Limit(r.degree):
		return fmt.Errorf("%d links at a member", r.mostLinks)
	case t.mostPushed > r.mostLinks:
		return fmt.Errorf("%d pushes of one record by a member", t.mostPushed)
	case t.arrived != t.reached-t.repairs-r.records+t.duplicates:
		return fmt.Errorf("%d pushes arrived: they do not add up", t.arrived)
	case r.fault.loss == 0 && r.down == 0 && t.repairs > 0:
		return fmt.Errorf("%d members missed by pushes that were not lost", t.repairs)
	case r.fault.loss > 0 && t.lost == 0 && t.pushed > 200:
		return fmt.Errorf("no push was lost of %d", t.pushed)
	case slices.Max(r.all) > 5*reconcileEvery:
		return fmt.Errorf("the last member had to wait for %v", slices.Max(r.all))
	}
	return nil
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}
