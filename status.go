package cansync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/session"
	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/transport"
)

// Status is how a node is.
type Status struct {
	PeerID  transport.PeerID
	Addrs   []string
	Version string
	// Started is when New was called.
	Started time.Time
	// Service is how the CAN Service is.
	Service ServiceStatus
	// Libraries and Peers count the node's libraries and its connected peers.
	Libraries int
	Peers     int
	// Clock is how the clock is.
	Clock ClockStatus
	// Disk is nil when the store does not know how much room it has.
	Disk *DiskStatus
}

// ServiceStatus is how the CAN Service is, as far as the node knows.
type ServiceStatus struct {
	// Err is nil while the service answers.
	Err error
	// Since is when that began.
	Since time.Time
	// LastScan is the end of the last complete listing; zero before the first.
	LastScan time.Time
}

// DiskStatus is how much room the store has, in bytes. Below Reserve the node
// stops writing until there is room again.
type DiskStatus struct {
	Free    uint64
	Reserve uint64
}

// Status returns how the node is; after Close only PeerID and Version are set.
func (n *Node) Status() Status {
	s := Status{PeerID: n.PeerID(), Version: Version()}
	done, err := n.use()
	if err != nil {
		return s
	}
	defer done()
	s.Addrs, s.Started, s.Peers = n.tr.Addrs(), n.started, len(n.tr.Peers())
	s.Clock = n.clock()
	s.Service.Since, s.Service.LastScan, s.Service.Err = n.announcer.Health()
	n.mu.Lock()
	s.Libraries = len(n.libs)
	n.mu.Unlock()
	if sp, ok := n.store.(store.SpaceReporter); ok {
		if free, reserve, err := sp.Space(); err == nil {
			s.Disk = &DiskStatus{Free: free, Reserve: reserve}
		}
	}
	return s
}

// Peer is a connected peer.
type Peer struct {
	ID    transport.PeerID
	Addrs []string
	// Libraries are those that are shared with the peer now.
	Libraries []LibraryID
	// Relayed says that the peer is reached only through a relay.
	Relayed bool
	// Latency is the last measured round trip; 0 when unknown.
	Latency time.Duration
}

// Peers returns the peers that are connected now, ordered by id. In a public
// network many of them are strangers that help to find others.
func (n *Node) Peers() ([]Peer, error) {
	done, err := n.use()
	if err != nil {
		return nil, err
	}
	defer done()
	var out []Peer
	for _, p := range n.tr.Peers() {
		one := Peer{ID: p.ID, Addrs: p.Addrs, Relayed: p.Relayed, Latency: p.Latency}
		for _, id := range n.sessions.Shared(p.ID) {
			one.Libraries = append(one.Libraries, id)
		}
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b Peer) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return out, nil
}

// LibraryState says what a node does with a library.
type LibraryState string

// The states.
const (
	// StateJoining: no member was reached yet that redeems the ticket, or none has
	// told yet what the library holds.
	StateJoining LibraryState = "joining"
	// StateSyncing: assets are wanted that are not here yet.
	StateSyncing LibraryState = "syncing"
	// StateSynced: everything the node knows of is here.
	StateSynced LibraryState = "synced"
	// StateWaiting: what is missing can't be had now; see [LibraryStatus.Causes].
	StateWaiting LibraryState = "waiting"
	// StateEnded: this node's membership has ended (Expires); leave the library and
	// join again with a new ticket to go on.
	StateEnded LibraryState = "ended"
	// StateHeld: removals wait for the host's confirmation.
	StateHeld LibraryState = "held"
	// StatePaused: the host paused the library.
	StatePaused LibraryState = "paused"
)

// LibraryStatus is how a node is with a library. It is read off the queue of what
// the node still has to do, so that "synced" is never a guess; what other members
// have that this node was not told of, no status can know.
type LibraryStatus struct {
	State LibraryState
	// Assets are in the library, with Bytes in all.
	Assets int64
	Bytes  int64
	// Synced of them are as they should be in the local CAN Service; Trashed were
	// trashed here, those whose removal is held included, and are not fetched again;
	// Pending wait for the node, Failed of those after an attempt that failed.
	Synced  int64
	Trashed int64
	Pending int64
	Failed  int64
	// Causes counts what keeps the failed ones and, where the mode fetches nothing,
	// under [ByMode] those that would be fetched.
	Causes map[Cause]int64
	// Removed counts the tombstones that the library keeps.
	Removed int64
	// Held is the number of removals that wait for [Library.ConfirmRemovals].
	Held int
	// Peers are the members with whom the library is shared now.
	Peers int
	// Expires is when the node's membership ends; the zero time means never.
	Expires time.Time
	// Refused is why a ticket was refused last, while joining; it matches
	// [ErrTicketExpired] when the ticket ended before a member redeemed it.
	Refused error
}

// Status returns how the node is with the library.
func (l *Library) Status(ctx context.Context) (LibraryStatus, error) {
	lib, done, err := l.member()
	if errors.Is(err, ErrNotJoined) {
		l.n.mu.Lock()
		s, end := LibraryStatus{State: StateJoining, Refused: l.refused}, l.ticket.Expires()
		l.n.mu.Unlock()
		if !end.IsZero() && l.n.cfg.Now().After(end) { // members do not even answer to it
			s.Refused = fmt.Errorf("%w on %s; ask for a new one", ErrTicketExpired, end.Format("2006-01-02 15:04 MST"))
		}
		return s, nil
	}
	if err != nil {
		return LibraryStatus{}, err
	}
	defer done()
	c := lib.Counts()
	s := LibraryStatus{
		Assets: c.Live, Bytes: c.LiveBytes, Pending: c.Queued, Removed: c.Tombstones,
		Held: l.n.announcer.Held(l.id), Peers: len(l.n.sessions.Peers(l.id)),
	}
	s.Expires = capability.UnixTime(lib.Grant().GrantExp)
	if c.Queued > 0 {
		if err := l.tally(ctx, lib, &s); err != nil {
			return LibraryStatus{}, err
		}
	}
	s.Trashed = c.Trashed + int64(s.Held)
	s.Synced = max(0, c.Live-s.Pending-s.Trashed)
	switch {
	case lib.Paused():
		s.State = StatePaused
	case !s.Expires.IsZero() && l.n.cfg.Now().After(s.Expires):
		s.State = StateEnded
	case s.Held > 0:
		s.State = StateHeld
	case s.Pending == 0 && !lib.Described():
		s.State = StateJoining
	case s.Pending == 0:
		s.State = StateSynced
	case s.Failed+s.Causes[ByMode] == s.Pending:
		s.State = StateWaiting
	default:
		s.State = StateSyncing
	}
	return s, nil
}

// maxTally bounds how many rows of the queue a status looks at; beyond, the counts
// of failures are those of the first rows.
const maxTally = 10_000

// tally counts what failed in the queue.
func (l *Library) tally(ctx context.Context, lib *library.Library, s *LibraryStatus) error {
	s.Causes = make(map[Cause]int64)
	if !lib.Fetches() { // what is asked for by name is a matter of moments
		s.Causes[ByMode] = s.Pending
		return nil
	}
	seen := 0
	for w, err := range lib.Queue(ctx) {
		if err != nil {
			return err
		}
		if c, ok := causes[w.Cause]; ok {
			s.Failed++
			s.Causes[c]++
		}
		if seen++; seen == maxTally {
			break
		}
	}
	return nil
}

// Wait returns when everything that the node knows of in the library is in the
// local CAN Service as it should be, or when ctx ends. What was trashed here is not
// waited for; in a mode that does not fetch, what is missing is waited for all the
// same. Errors are those of ctx, or match [ErrClosed] or [ErrNoLibrary].
func (l *Library) Wait(ctx context.Context) error {
	check := func() (bool, error) {
		lib, done, err := l.member()
		if errors.Is(err, ErrNotJoined) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		defer done()
		return lib.Described() && lib.Counts().Queued == 0, nil
	}
	ok, err := check()
	if ok || err != nil {
		return err
	}
	tick := time.NewTicker(waitEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-l.n.ctx.Done():
			return ErrClosed
		}
		if ok, err := check(); ok || err != nil {
			return err
		}
	}
}

// Holders asks the connected members which of the contents their CAN Services hold
// and returns who said so, in the order of the digests; the node itself is among
// them. In a library of more members than a node has neighbours others may hold them
// as well; [Library.WaitHolders] reaches out to those. A member that does not answer
// for 10 seconds, and one that takes longer than some 10 seconds and half a
// millisecond for each content, counts as holding only what it has said by then.
//
// A member with a narrower view than the library is asked about what lies in that view
// and what it announced itself, since it asked not to be told of anything else.
// What it holds beside, such as what it fetched under a wider view, is not
// found.
func (l *Library) Holders(ctx context.Context, digests ...can.Digest) ([][]transport.PeerID, error) {
	_, done, err := l.member()
	if err != nil {
		return nil, err
	}
	defer done()
	who, err := l.n.sessions.Have(ctx, l.id, digests)
	if err != nil {
		return nil, err
	}
	return l.withSelf(ctx, who, digests)
}

// withSelf adds the node itself to those who hold contents.
func (l *Library) withSelf(ctx context.Context, who [][]transport.PeerID, digests []can.Digest) ([][]transport.PeerID, error) {
	for i, d := range digests {
		_, ok, err := l.n.inv.Present(ctx, d)
		if err != nil {
			return nil, err
		}
		if ok {
			who[i] = append(who[i], l.n.PeerID())
		}
	}
	return who, ctx.Err()
}

// WaitHolders returns when at least n members, the node itself among them, said
// that they hold each of the contents, or when ctx ends. When the connected members
// are not enough it visits others, a few at a time. What a member said counts for ten
// minutes, unless it says otherwise meanwhile: up to 256 contents are asked about
// every second, more of them the more slowly the more there are. A member is asked about
// some 4,000 contents a second, so that 100,000 take it half a minute; one that does
// not answer delays the others by nothing. The limit that [Library.Holders] states
// about members with a narrower view holds here too.
func (l *Library) WaitHolders(ctx context.Context, n int, digests ...can.Digest) error {
	q, err := l.inquire(n, digests)
	if err != nil {
		return err
	}
	defer q.Close()
	for {
		lacking, err := l.turn(ctx, q)
		if err != nil {
			return err
		}
		if lacking == 0 {
			return nil
		}
		select {
		case <-time.After(askEvery):
		case <-q.News():
		case <-ctx.Done():
			return ctx.Err()
		case <-l.n.ctx.Done():
			return ErrClosed
		}
	}
}

func (l *Library) inquire(n int, digests []can.Digest) (*session.Inquiry, error) {
	_, done, err := l.member()
	if err != nil {
		return nil, err
	}
	defer done()
	q, err := l.n.sessions.Inquire(l.id, n, digests)
	if err != nil { // left meanwhile
		return nil, fmt.Errorf("%w: %s", ErrNoLibrary, l.id)
	}
	return q, nil
}

// turn goes on with an inquiry and returns of how many contents there are too few
// holders.
func (l *Library) turn(ctx context.Context, q *session.Inquiry) (lacking int, err error) {
	_, done, err := l.member()
	if err != nil {
		return 0, err
	}
	defer done()
	return q.Turn(ctx, func(ctx context.Context, d can.Digest) (bool, error) {
		_, ok, err := l.n.inv.Present(ctx, d)
		return ok, err
	})
}

// askEvery is how often WaitHolders looks again.
const askEvery = time.Second

// waitEvery is how often Wait looks. A count is read, not the queue.
const waitEvery = 20 * time.Millisecond

// preferred orders addresses so that those a stranger can use come first: public
// and private ones before those of this machine alone.
func preferred(addrs []string) []string {
	out := slices.Clone(addrs)
	rank := func(a string) int {
		switch {
		case strings.HasPrefix(a, "/ip4/127."), strings.HasPrefix(a, "/ip6/::1/"):
			return 1
		}
		return 0
	}
	slices.SortStableFunc(out, func(a, b string) int { return rank(a) - rank(b) })
	return out
}
