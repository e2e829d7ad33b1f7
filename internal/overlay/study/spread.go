package main

import (
	"container/heap"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// What the study assumes of the world.
const (
	latencyMin = 5 * time.Millisecond
	latencyMax = 300 * time.Millisecond
	applyMin   = time.Millisecond // from a record's arrival to its leaving for the neighbours
	applyMax   = 10 * time.Millisecond

	reconcileEvery = time.Minute
	noticeAfter    = 90 * time.Second // the silence after which a link is given up
	giveUp         = time.Hour
)

// fault is what goes wrong, or is left out on purpose to see that it is missed.
type fault struct {
	loss        float64 // of pushes
	noForward   bool
	noSuppress  bool
	noReconcile bool
}

// edges are the links of a network in one array, both directions of a link apart.
type edges struct {
	first   []int32 // the edges of member i are first[i] to first[i+1]
	to      []int32
	back    []int32 // the same link seen from the other end
	latency []time.Duration
}

// newEdges draws the latency of every link, log-uniform, the same both ways.
func newEdges(w *network, rng *rand.Rand) edges {
	e := edges{first: make([]int32, 1, len(w.ids)+1)}
	at := make(map[[2]int]int32)
	for i := range w.ids {
		for _, j := range slices.Sorted(maps.Keys(w.links[i])) {
			n := int32(len(e.to))
			e.to = append(e.to, int32(j))
			if b, ok := at[[2]int{j, i}]; ok {
				e.back = append(e.back, b)
				e.back[b] = n
				e.latency = append(e.latency, e.latency[b])
			} else {
				at[[2]int{i, j}] = n
				e.back = append(e.back, -1)
				e.latency = append(e.latency, logUniform(rng, latencyMin, latencyMax))
			}
		}
		e.first = append(e.first, int32(len(e.to)))
	}
	return e
}

func logUniform(rng *rand.Rand, low, high time.Duration) time.Duration {
	return time.Duration(float64(low) * math.Pow(float64(high)/float64(low), rng.Float64()))
}

func between(rng *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(rng.Int64N(int64(high-low)))
}

// event is something that happens to a member.
type event struct {
	at   time.Duration
	seq  uint64 // tells apart what happens at once
	kind kind
	who  int32
	via  int32 // the edge, from the member, to whom it came from; -1 is none
	hops int32
	gen  uint8 // whether the edge is of the links before or after the repair
}

type kind uint8

const (
	arrive    kind = iota // a push reaches the member
	forward               // the member applied the record and pushes it on
	reconcile             // the member's minute is over
	repaired              // a reconciliation brought the record
)

type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

// outcome is how one record spread.
type outcome struct {
	up, reached  int
	pushed       int // pushes sent
	mostPushed   int // by one member
	lost         int // pushes that did not arrive, of those sent to members that are up
	arrived      int // pushes that arrived
	duplicates   int // of them, at members that had the record
	repairs      int // members that got the record by a reconciliation
	hopSum, hops int // sum, and most
	times        []time.Duration
}

// spread lets one record spread from its author over the links until every member
// that is up has it or an hour passed. Members that are down take no part; pushes to
// them are sent until, after a silence, the links of the second generation are in
// force.
func spread(gens [2]edges, down []bool, author int, f fault, rng *rand.Rand) outcome {
	var out outcome
	n := len(down)
	had := make([]bool, n)
	hops := make([]int32, n)
	var told [2][]bool // what Seen knows of the links' other ends
	for g, e := range gens {
		told[g] = make([]bool, len(e.to))
	}
	var q queue
	var seq uint64
	add := func(ev event) {
		ev.seq = seq
		seq++
		heap.Push(&q, ev)
	}
	for i := range n {
		if down[i] {
			continue
		}
		out.up++
		if !f.noReconcile {
			add(event{at: between(rng, 0, reconcileEvery), kind: reconcile, who: int32(i)})
		}
	}
	got := func(ev event) {
		had[ev.who], hops[ev.who] = true, ev.hops
		out.reached++
		out.hopSum += int(ev.hops)
		out.hops = max(out.hops, int(ev.hops))
		out.times = append(out.times, ev.at)
		if !f.noForward || ev.via < 0 {
			ev.at += between(rng, applyMin, applyMax)
			ev.kind = forward
			add(ev)
		}
	}
	got(event{who: int32(author), via: -1})
	for q.Len() > 0 {
		ev := heap.Pop(&q).(event)
		if out.reached == out.up && ev.kind == reconcile || ev.at > giveUp {
			continue // let pushes under way arrive, and be counted
		}
		gen := uint8(0)
		if ev.at >= noticeAfter {
			gen = 1
		}
		e, told := gens[gen], told[gen]
		if gen == ev.gen && ev.via >= 0 && (ev.kind == arrive || ev.kind == repaired) {
			told[ev.via] = true
		}
		from, to := e.first[ev.who], e.first[ev.who+1]
		switch ev.kind {
		case arrive:
			out.arrived++
			if had[ev.who] {
				out.duplicates++
				break
			}
			got(ev)
		case repaired:
			if !had[ev.who] {
				out.repairs++
				got(ev)
			}
		case forward:
			sent := 0
			for k := from; k < to; k++ {
				if told[k] && !f.noSuppress {
					continue
				}
				told[k] = true
				sent++
				peer := e.to[k]
				switch {
				case down[peer]:
				case rng.Float64() < f.loss:
					out.lost++
				default:
					add(event{
						at: ev.at + e.latency[k] + between(rng, 0, e.latency[k]/10+1), kind: arrive,
						who: peer, via: e.back[k], hops: ev.hops + 1, gen: gen,
					})
				}
			}
			out.pushed += sent
			out.mostPushed = max(out.mostPushed, sent)
		case reconcile:
			again := ev
			again.at += between(rng, reconcileEvery*9/10, reconcileEvery*11/10)
			add(again)
			if from == to {
				break
			}
			k := from + rng.Int32N(to-from)
			peer := e.to[k]
			if down[peer] || had[ev.who] == had[peer] {
				break
			}
			// Symbols, what is missing, the record: one to three ways, counted as three.
			r := event{at: ev.at + 3*e.latency[k], kind: repaired, who: ev.who, via: k, hops: hops[peer] + 1, gen: gen}
			if had[ev.who] {
				r.who, r.via, r.hops = peer, e.back[k], hops[ev.who]+1
			}
			add(r)
		}
	}
	return out
}
