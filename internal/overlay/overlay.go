// Package overlay chooses the neighbours among which a library's records are
// pushed, so that the cost of a record to a member does not grow with the number
// of members.
//
// Every pair of members has a weight, a keyed hash of both ids that both sides
// compute alike. A member links to the few reachable members with which its
// weights are least: the graph of nearest neighbours over random weights, which is
// connected with high probability from three neighbours on (C. Cooper and A.
// Frieze, On the connectivity of random k-th nearest neighbour graphs,
// Combinatorics, Probability and Computing 4, 1995). That both sides see the same
// weight also keeps the number of those who choose a member near the number that it
// chooses, where independent choices (rendezvous hashing: D. Thaler and C.
// Ravishankar, IEEE/ACM Transactions on Networking 6, 1998) leave a tail of crowded
// members. The weight of a pair changes once per [Turn], each pair at its own
// time, so that links wander one at a time, the graph stays an expander, and parts
// that lost sight of each other meet again.
//
// Everything here is a function of its arguments: no clock, goroutine or I/O. On
// each pass of its dialler a caller makes a [View] of each library: one [Peer] per
// member, whose State is Opened or Accepted if there is a link, Dialing while an
// attempt is under way, Waiting while the next is not due, and Idle otherwise. It
// then calls [View.Plan], begins an attempt at everybody in Dial, in order and as
// its slots allow, ends the links in Drop, and passes again whenever a link or an
// attempt ends, when the first in Later is due, and at least every few minutes. An
// attempt that fails raises Failures and makes the peer wait; a link sets Failures
// to zero, and its end LastSeen. Before it takes a link that a peer opens it asks
// [View.Accept]. Who is refused, or sees the peer end a link for want of room,
// waits for some minutes with Failures as they were.
//
// [Seen] remembers what the peer of a link has. A link adds the ids of records as
// soon as they are read, before they are applied, and pushes a record when Add
// tells that it is new, best just before it is written: that spares what crosses on
// the link while it waits. What a reconciliation asks for is sent regardless.
package overlay

import (
	"time"

	"github.com/cansync/cansync/transport"
)

const (
	// DefaultDegree is the degree of a [View] that states none.
	DefaultDegree = 8
	// MaxDegree is the greatest degree; a [View] that asks for more gets it.
	MaxDegree = 64
	// Turn is how long the weight of a pair of members stands.
	Turn = 4 * time.Hour
	// Stale is how long after it was last linked a member is dialled only when
	// nobody better is left, or as the one probe of a pass.
	Stale = 7 * 24 * time.Hour
)

// State says how a node stands to a peer in one library.
type State uint8

const (
	// Idle is a peer without a link that may be dialled now. It is the zero value.
	Idle State = iota
	// Waiting is a peer without a link that may not be dialled yet, since an
	// attempt failed or the peer had no room.
	Waiting
	// Dialing is a peer with which an attempt is under way.
	Dialing
	// Opened is a peer with a link that this node opened.
	Opened
	// Accepted is a peer with a link that the peer opened.
	Accepted
)

// Linked reports whether there is a link.
func (s State) Linked() bool { return s == Opened || s == Accepted }

// Peer is a member of the library and what the node knows of it. The zero value of
// all but ID is a member of which only the id is known.
type Peer struct {
	ID    transport.PeerID
	State State
	// Settled says that a link has done what it came for at least once: a
	// reconciliation of both sets has ended on it. Other links are not dropped.
	// Without a link it is ignored.
	Settled bool
	// Busy says that contents move on the link, or that it was opened to get some. It
	// is not dropped as long as there is room for guests beside it.
	Busy bool
	// Address says that an address of the peer is known.
	Address bool
	// Failures counts the attempts since the last that made a link.
	Failures int
	// LastSeen is when there was a link last. Zero is never, which is held against
	// nobody.
	LastSeen time.Time
}

// View is a library as one member sees it. It is only read, and may be used by
// several goroutines as long as nobody writes to it.
type View struct {
	// Self is the node's own id. It may be among Peers, where it is ignored.
	Self transport.PeerID
	// Seed keys the weights. It has to be the same at all members, differ from
	// library to library, and best be unknown to others.
	Seed [16]byte
	// Degree is the number of neighbours to aim at; zero is [DefaultDegree].
	Degree int
	// Now is the time. The clocks of members may differ: what they disagree on for a
	// while is the weight of the few pairs that change in between.
	Now time.Time
	// Peers are the members, each once, in any order. A peer with a link that is no
	// member any more does not belong here: its link ends for that reason.
	Peers []Peer
}

// Plan is what a node should do about its links in a library.
type Plan struct {
	// Dial are the peers to connect to now, the best first. All are Idle.
	Dial []transport.PeerID
	// Later are peers that would be in Dial if they were not Waiting, the best
	// first. The next pass is due when the first of them may be dialled, and in
	// any case within minutes, since weights change with time.
	Later []transport.PeerID
	// Drop are peers whose links to end now. All are linked and settled.
	Drop []transport.PeerID
}

// degree returns the degree within its bounds.
func (v *View) degree() int {
	if v.Degree <= 0 {
		return DefaultDegree
	}
	return min(v.Degree, MaxDegree)
}

// chosen returns how many neighbours a node chooses itself: five eighths of the
// degree. Those that chose the node without being chosen, and links that outlived
// their choice, make up the rest. Three are needed for connectivity.
func chosen(degree int) int { return max((5*degree+7)/8, min(3, degree)) }

// Limit returns how many links of a library a node ever has at a degree: twice the
// degree in the long run, a few more for guests that have not settled, and as many
// again for peers that it would choose itself.
func Limit(degree int) int {
	v := View{Degree: degree}
	d := v.degree()
	return 2*d + 2*chosen(d)
}
