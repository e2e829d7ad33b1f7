package cansync

import (
	"context"
	"fmt"
	"time"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/transport"
)

// InviteOptions say what a ticket gives. The zero value makes the ticket that one
// gives to another machine of one's own: it lets its holder read, write and
// invite others, and can be redeemed for 7 days.
type InviteOptions struct {
	// Access is what the membership allows; 0 means reading, writing and inviting,
	// as far as the node's own membership goes. Read is always part of it.
	Access Access
	// ValidFor is how long the ticket can be redeemed; 0 means 7 days. It takes
	// whole seconds.
	ValidFor time.Duration
	// MemberUntil ends the memberships that come of the ticket; the zero time means
	// as long as the node's own.
	MemberUntil time.Time
}

// DefaultInviteValidity is how long a ticket can be redeemed unless told
// otherwise.
const DefaultInviteValidity = 7 * 24 * time.Hour

// MaxInviteValidity bounds [InviteOptions.ValidFor].
const MaxInviteValidity = 10 * 365 * 24 * time.Hour

// Invite makes a ticket. Any number of devices may redeem it, at any member that
// may invite, until it ends. Errors match [ErrForbidden] where the node's own
// membership does not allow it, and [ErrNotJoined].
func (l *Library) Invite(ctx context.Context, o InviteOptions) (Ticket, error) {
	lib, done, err := l.member()
	if err != nil {
		return Ticket{}, err
	}
	defer done()
	if _, ok := lib.Description(); !ok {
		return Ticket{}, fmt.Errorf("%w: its description has not arrived", ErrNotJoined)
	}
	if o.Access == 0 {
		o.Access = (Read | Write | Invite) & accessOf(lib.Grant().Rights)
	}
	if o.ValidFor == 0 {
		o.ValidFor = DefaultInviteValidity
	}
	if o.ValidFor < time.Second || o.ValidFor > MaxInviteValidity {
		return Ticket{}, fmt.Errorf("%w: ValidFor: %s is not between a second and ten years", ErrConfig, o.ValidFor)
	}
	if o.Access&^(Read|Write|Invite|Admin) != 0 {
		return Ticket{}, fmt.Errorf("%w: Access: unknown right", ErrConfig)
	}
	t, err := lib.Invite(ctx, capability.InviteOptions{
		Rights: capability.Rights(o.Access | Read), RedeemBy: l.n.cfg.Now().Add(o.ValidFor), GrantExp: o.MemberUntil,
	}, l.n.contacts(lib))
	if err != nil {
		return Ticket{}, err
	}
	return Ticket{t}, nil
}

// contacts returns the node's own addresses and those of a few other members, for
// a ticket.
func (n *Node) contacts(lib *library.Library) []transport.PeerInfo {
	limit := func(p transport.PeerInfo) transport.PeerInfo {
		var addrs []string
		for _, a := range p.Addrs {
			if len(a) <= capability.MaxAddr && len(addrs) < capability.MaxAddrs {
				addrs = append(addrs, a)
			}
		}
		return transport.PeerInfo{ID: p.ID, Addrs: addrs}
	}
	self := n.tr.ID()
	out := []transport.PeerInfo{limit(transport.PeerInfo{ID: self, Addrs: preferred(n.tr.Addrs())})}
	seen := map[transport.PeerID]bool{self: true}
	for _, m := range lib.Members() {
		id := transport.PeerID(m.Device)
		if seen[id] || !m.Rights.Has(capability.Invite) || len(out) == capability.MaxPeers {
			continue
		}
		seen[id] = true
		if p := limit(n.sessions.Known(id)); len(p.Addrs) > 0 {
			out = append(out, p)
		}
	}
	return out
}

// Member is a device that was admitted to a library.
type Member struct {
	Peer transport.PeerID
	// Access is what it may do: by all its memberships that are in force, or by the
	// last one when all have ended.
	Access Access
	// Until ends its membership; the zero time means no end.
	Until time.Time
	// Owner says that it came in by the library's owner key and no ticket.
	Owner bool
	// Self says that it is this node.
	Self bool
	// Connected says that the library is shared with it now; this node always is.
	Connected bool
	// Ended says that its membership has ended, by this node's clock: what it says
	// counts no more.
	Ended bool
	// Joined is when it was admitted, by the clock of who admitted it.
	Joined time.Time
}

// Members returns the devices of the library in the order in which they were
// admitted, those whose membership has ended too.
func (l *Library) Members() ([]Member, error) {
	lib, done, err := l.member()
	if err != nil {
		return nil, err
	}
	defer done()
	up := make(map[transport.PeerID]bool)
	for _, p := range l.n.sessions.Peers(l.id) {
		up[p.ID] = true
	}
	now := l.n.cfg.Now()
	var out []Member
	at := make(map[transport.PeerID]int)
	for _, m := range lib.Members() {
		id := transport.PeerID(m.Device)
		one := Member{
			Peer: id, Access: accessOf(m.Rights), Joined: m.Clock.Time(), Until: capability.UnixTime(m.GrantExp),
			Owner: m.Admitter == (capability.CertID{}), Self: id == l.n.tr.ID(),
		}
		one.Connected = up[id] || one.Self
		one.Ended = !one.Until.IsZero() && now.After(one.Until)
		if i, ok := at[id]; ok { // it redeemed a second ticket
			out[i].join(one)
			continue
		}
		at[id] = len(out)
		out = append(out, one)
	}
	return out, nil
}

// join adds a further membership of the same device: the rights of those in force add
// up.
func (m *Member) join(o Member) {
	later := o.Until.IsZero() || !m.Until.IsZero() && o.Until.After(m.Until)
	m.Owner = m.Owner || o.Owner
	switch {
	case !m.Ended && !o.Ended:
		m.Access |= o.Access
	case m.Ended && later: // also where both have ended
		m.Access = o.Access
	}
	if later {
		m.Until, m.Ended = o.Until, o.Ended
	}
}
