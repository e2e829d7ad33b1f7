package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/cansync/cansync/internal/overlay"
	"github.com/cansync/cansync/transport"
)

// How the simulated dialler waits.
const (
	retryFirst  = time.Second
	retryMost   = 5 * time.Minute
	refusedWait = 5 * time.Minute
	planners    = 2
)

// link is a member's side of a link.
type link struct{ opened, settled bool }

// try is what a member knows of another that it did not reach.
type try struct {
	failures int
	until    time.Time
}

// network is the members of a library and their links, as the overlay's plans make
// them. Its time passes in [network.tick] alone.
type network struct {
	rng    *rand.Rand
	seed   [16]byte
	degree int
	now    time.Time
	ids    []transport.PeerID
	down   []bool
	links  []map[int]link
	tries  []map[int]try
	// known are those whose address a member knows; nil is all.
	known []map[int]bool

	dialled, failed, refused, dropped int
}

// newNetwork returns a network of members without links that know every address.
func newNetwork(members, degree int, seed uint64) *network {
	w := &network{
		rng: rand.New(rand.NewPCG(seed, 1)), degree: degree,
		now: time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	binary.LittleEndian.PutUint64(w.seed[:], seed)
	for range members {
		w.add()
	}
	return w
}

// add adds a member and returns its number.
func (w *network) add() int {
	n := len(w.ids)
	w.ids = append(w.ids, sha256.Sum256(binary.LittleEndian.AppendUint64(w.seed[:], uint64(n))))
	w.down = append(w.down, false)
	w.links = append(w.links, make(map[int]link))
	w.tries = append(w.tries, make(map[int]try))
	if w.known != nil {
		w.known = append(w.known, make(map[int]bool))
	}
	return n
}

// strangers makes the members know no address but those of their links, and learn
// from neighbours from now on.
func (w *network) strangers() {
	w.known = make([]map[int]bool, len(w.ids))
	for i := range w.known {
		w.known[i] = make(map[int]bool)
	}
}

func (w *network) up() []int {
	var out []int
	for i, down := range w.down {
		if !down {
			out = append(out, i)
		}
	}
	return out
}

// viewer makes the views of members, reusing one slice of peers.
type viewer struct {
	w     *network
	peers []overlay.Peer
}

func (w *network) viewer() *viewer {
	v := &viewer{w: w, peers: make([]overlay.Peer, len(w.ids))}
	for i := range v.peers {
		v.clear(i)
	}
	return v
}

func (v *viewer) clear(i int) {
	v.peers[i] = overlay.Peer{ID: v.w.ids[i], Address: v.w.known == nil}
}

// with calls f with the view of a member.
func (v *viewer) with(i int, f func(*overlay.View)) {
	w := v.w
	mark := func(j int, change func(*overlay.Peer)) { change(&v.peers[j]) }
	if w.known != nil {
		for j := range w.known[i] {
			mark(j, func(p *overlay.Peer) { p.Address = true })
		}
	}
	for j, t := range w.tries[i] {
		mark(j, func(p *overlay.Peer) {
			p.Failures = t.failures
			if t.until.After(w.now) {
				p.State = overlay.Waiting
			}
		})
	}
	for j, l := range w.links[i] {
		mark(j, func(p *overlay.Peer) {
			p.State, p.Settled = overlay.Accepted, l.settled
			if l.opened {
				p.State = overlay.Opened
			}
		})
	}
	f(&overlay.View{Self: w.ids[i], Seed: w.seed, Degree: w.degree, Now: w.now, Peers: v.peers})
	if w.known != nil {
		for j := range w.known[i] {
			v.clear(j)
		}
	}
	for j := range w.tries[i] {
		v.clear(j)
	}
	for j := range w.links[i] {
		v.clear(j)
	}
}

// pass lets members plan, all from the same state, and act, one after the other in
// random order. It returns those that have something left to do, in order.
func (w *network) pass(members []int) []int {
	plans := make([]overlay.Plan, len(members))
	var wg sync.WaitGroup
	for k := range planners {
		wg.Go(func() {
			v := w.viewer()
			for at := k; at < len(members); at += planners {
				v.with(members[at], func(view *overlay.View) { plans[at] = view.Plan() })
			}
		})
	}
	wg.Wait()
	numbers := make(map[transport.PeerID]int, len(w.ids))
	for i, id := range w.ids {
		numbers[id] = i
	}
	v := w.viewer()
	again := make(map[int]bool)
	for _, at := range w.rng.Perm(len(members)) {
		i := members[at]
		for _, id := range plans[at].Drop {
			w.drop(i, numbers[id])
		}
		for _, id := range plans[at].Dial {
			if !w.dial(v, i, numbers[id]) {
				again[i] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(again))
}

// drop ends a link at the wish of one side; the other waits before it asks again.
func (w *network) drop(i, j int) {
	if _, ok := w.links[i][j]; !ok {
		return // the other side was faster
	}
	w.dropped++
	delete(w.links[i], j)
	delete(w.links[j], i)
	w.tries[j][i] = try{until: w.now.Add(refusedWait)}
}

func (w *network) dial(v *viewer, i, j int) (linked bool) {
	if _, ok := w.links[i][j]; ok {
		return true
	}
	w.dialled++
	if w.down[j] {
		w.failed++
		n := w.tries[i][j].failures
		w.tries[i][j] = try{failures: n + 1, until: w.now.Add(min(retryFirst<<min(n, 20), retryMost))}
		return false
	}
	room := len(w.links[j]) < 2*w.degree // saves asking where the answer is plain
	if !room {
		v.with(j, func(view *overlay.View) { room = view.Accept(w.ids[i]) })
	}
	if !room {
		w.refused++
		w.tries[i][j] = try{until: w.now.Add(refusedWait)}
		return false
	}
	w.links[i][j], w.links[j][i] = link{opened: true}, link{}
	delete(w.tries[i], j)
	delete(w.tries[j], i)
	return true
}

// settle lets members plan and act, without time passing, until none of them dials
// in vain, and then marks every link as reconciled.
func (w *network) settle(members []int) {
	for len(members) > 0 {
		members = w.pass(members)
	}
	w.reconciled()
}

// tick lets time pass: links break whose other end is down, members learn
// addresses, and everybody plans and acts until nobody dials in vain.
func (w *network) tick(d time.Duration) {
	w.now = w.now.Add(d)
	w.notice()
	w.settle(w.up())
	if w.known != nil {
		w.gossip()
	}
}

// notice breaks the links with members that are down and returns whom it concerns.
func (w *network) notice() (hurt []int) {
	for i := range w.links {
		before := len(w.links[i])
		maps.DeleteFunc(w.links[i], func(j int, _ link) bool { return w.down[i] || w.down[j] })
		if len(w.links[i]) < before && !w.down[i] {
			hurt = append(hurt, i)
		}
	}
	return hurt
}

func (w *network) reconciled() {
	for i := range w.links {
		for j, l := range w.links[i] {
			l.settled = true
			w.links[i][j] = l
		}
	}
}

// gossip lets every member tell its neighbours a few of the addresses it knows.
func (w *network) gossip() {
	const told = 16
	for _, i := range w.up() {
		know := slices.Sorted(maps.Keys(w.known[i]))
		neighbours := slices.Sorted(maps.Keys(w.links[i]))
		w.rng.Shuffle(len(know), func(a, b int) { know[a], know[b] = know[b], know[a] })
		for _, j := range neighbours {
			w.known[i][j], w.known[j][i] = true, true
			for _, k := range know[:min(told, len(know))] {
				w.known[j][k] = true
			}
		}
	}
}

// parts returns the sizes of the connected parts of the members that are up, the
// largest first.
func (w *network) parts() []int {
	seen := slices.Clone(w.down)
	var out []int
	for i := range seen {
		if seen[i] {
			continue
		}
		size, todo := 0, []int{i}
		seen[i] = true
		for len(todo) > 0 {
			at := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			size++
			for j := range w.links[at] {
				if !seen[j] {
					seen[j] = true
					todo = append(todo, j)
				}
			}
		}
		out = append(out, size)
	}
	slices.SortFunc(out, func(a, b int) int { return cmp.Compare(b, a) })
	return out
}

// degrees returns the mean, the least and the greatest number of links of a member
// that is up.
func (w *network) degrees() (mean float64, least, most int) {
	up := w.up()
	least = len(w.ids)
	for _, i := range up {
		n := len(w.links[i])
		mean += float64(n)
		least, most = min(least, n), max(most, n)
	}
	return mean / float64(max(1, len(up))), least, most
}
