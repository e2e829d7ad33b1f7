package overlay

import (
	"slices"

	"github.com/cansync/cansync/transport"
)

// Plan says which peers to dial and which links to drop. Equal views, whatever the
// order of their peers, have equal plans; one takes some tens of nanoseconds per
// member.
//
// A node with no more peers than its degree links to all of them. Otherwise it
// chooses the best five eighths of a degree of those that it has no reason to
// doubt, and dials whom of them it has no link to; an idle peer is in doubt without a known
// address, after a failure, or [Stale] after it was last seen. Peers in doubt fill
// up when there are too few others, and one at a time is probed if it would be
// chosen. A node without any link, to which some did not answer, tries a whole
// degree at once.
//
// Links outlive the choice that made them: what a node opened it drops once the
// peer is not among the best full degree, would not choose the node, and all
// chosen are linked. Of more than twice the degree, the worst go, whoever opened
// them. Only settled links are dropped, and busy ones only if others opened them and
// there is no room left for guests.
func (v *View) Plan() Plan {
	c := v.classify()
	if c.mesh {
		return v.meshPlan(c)
	}
	want := chosen(c.degree)
	if c.links == 0 && c.failed {
		want = c.degree
	}
	picks := c.good.list[:min(want, len(c.good.list))]
	var p Plan
	met := true // all chosen are linked
	for _, r := range picks {
		switch peer := &v.Peers[r.at]; {
		case peer.State == Idle:
			p.Dial = append(p.Dial, peer.ID)
			met = false
		case !peer.State.Linked():
			met = false
		}
	}
	// Whoever is in doubt fills up, or is probed alone.
	fill := max(want-len(picks), 1) - c.probing
	for _, r := range c.doubt.list {
		if fill <= 0 || len(picks) == want && v.order(r, picks[want-1]) > 0 {
			break
		}
		fill--
		p.Dial = append(p.Dial, v.Peers[r.at].ID)
	}
	for _, r := range c.waiting.list {
		if len(picks) == want && v.order(r, picks[want-1]) > 0 {
			break
		}
		p.Later = append(p.Later, v.Peers[r.at].ID)
	}
	p.Drop = v.drops(c, met && len(picks) == want)
	return p
}

// meshPlan links to everybody.
func (v *View) meshPlan(c classes) Plan {
	var p Plan
	for _, list := range [][]ranked{c.good.list, c.doubt.list} {
		for _, r := range list {
			if v.Peers[r.at].State == Idle {
				p.Dial = append(p.Dial, v.Peers[r.at].ID)
			}
		}
	}
	for _, r := range c.waiting.list {
		p.Later = append(p.Later, v.Peers[r.at].ID)
	}
	return p
}

// drops returns the links to end, the worst first; met says that the node is
// linked to all that it chose.
func (v *View) drops(c classes, met bool) []transport.PeerID {
	near := make(map[int]bool, len(c.good.list))
	for _, r := range c.good.list {
		near[r.at] = true
	}
	var out []transport.PeerID
	left := c.links
	slices.SortFunc(c.far, func(a, b ranked) int { return v.order(b, a) })
	for _, r := range c.far {
		peer := &v.Peers[r.at]
		if near[r.at] || !peer.Settled {
			continue
		}
		if peer.Busy && (peer.State == Opened || left <= 2*c.degree+chosen(c.degree)) {
			continue
		}
		over := left > 2*c.degree
		if over || met && peer.State == Opened && !v.choosesSelf(r, chosen(c.degree)) {
			out = append(out, peer.ID)
			left--
		}
	}
	return out
}

// Near reports whether the peer is among the best degree of those linked or free to
// be: whether a link to it is worth keeping for its own sake.
func (v *View) Near(peer transport.PeerID) bool {
	c := v.classify()
	if c.mesh {
		return true
	}
	for _, r := range c.good.list {
		if v.Peers[r.at].ID == peer {
			return true
		}
	}
	return false
}

// Accept reports whether to take a link that a peer asks to open. The peer need
// not be in the view, as one that is just being admitted is not.
//
// There is room up to twice the degree; a little more is for guests, which
// stay at least until they settled, so that a joiner finds a door open even at a
// crowded member. Peers that the node would choose itself are always let in. Who is
// not should be told so, and wait some minutes before it asks again: it finds
// others meanwhile.
func (v *View) Accept(peer transport.PeerID) bool {
	if peer == v.Self {
		return false
	}
	others, links, known := 0, 0, false
	for i := range v.Peers {
		switch p := &v.Peers[i]; {
		case p.ID == v.Self:
		case p.ID == peer:
			known = true // a newer link takes the place of an older
		default:
			others++
			if p.State.Linked() {
				links++
			}
		}
	}
	d := v.degree()
	k := chosen(d)
	if others < d || links < 2*d+k {
		return true
	}
	// Only a peer in view can be one to choose; its state is no matter here, since
	// it is reachable evidently.
	if !known || links >= Limit(d) {
		return false
	}
	c := v.classify()
	rank := newRanker(v.Seed, v.Now)
	weight := rank.weight(rank.point(&v.Self), rank.point(&peer))
	better := 0
	for _, r := range c.good.list {
		if r.weight < weight && v.Peers[r.at].ID != peer {
			better++
		}
	}
	return better < k
}

// classes are the peers of a view by what may be done about them.
type classes struct {
	degree  int
	mesh    bool // few enough to link to all
	links   int
	failed  bool // some peer did not answer last
	probing int  // attempts under way at peers in doubt
	good    best
	doubt   best
	waiting best
	far     []ranked // all links
}

func (v *View) classify() classes {
	c := classes{degree: v.degree()}
	c.good, c.doubt, c.waiting = best{v: v, most: c.degree}, best{v: v, most: c.degree}, best{v: v, most: c.degree}
	rank := newRanker(v.Seed, v.Now)
	self := rank.point(&v.Self)
	others := 0
	for i := range v.Peers {
		p := &v.Peers[i]
		if p.ID == v.Self {
			continue
		}
		others++
		c.failed = c.failed || p.Failures > 0
		r := ranked{rank.weight(self, rank.point(&p.ID)), i}
		switch {
		case p.State.Linked():
			c.links++
			c.far = append(c.far, r)
			c.good.add(r)
		case p.State == Waiting:
			c.waiting.add(r)
		case p.State == Dialing && v.doubted(p):
			c.probing++
		case v.doubted(p):
			c.doubt.add(r)
		default:
			c.good.add(r)
		}
	}
	c.mesh = others <= c.degree
	return c
}

// doubted reports whether there is a reason not to count on a peer without a link.
func (v *View) doubted(p *Peer) bool {
	return !p.Address || p.Failures > 0 || !p.LastSeen.IsZero() && v.Now.Sub(p.LastSeen) > Stale
}

// choosesSelf reports whether a peer presumably chooses the node: fewer than k of
// those reachable, as far as the node knows, are better for the peer.
func (v *View) choosesSelf(r ranked, k int) bool {
	rank := newRanker(v.Seed, v.Now)
	peer := rank.point(&v.Peers[r.at].ID)
	better := 0
	for i := range v.Peers {
		p := &v.Peers[i]
		if i == r.at || p.ID == v.Self || !p.State.Linked() && (p.State == Waiting || v.doubted(p)) {
			continue
		}
		if rank.weight(peer, rank.point(&p.ID)) < r.weight {
			if better++; better == k {
				return false
			}
		}
	}
	return true
}
