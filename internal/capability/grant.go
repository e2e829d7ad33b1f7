package capability

import (
	"errors"
	"fmt"
	"time"

	"github.com/cansync/cansync/transport"
)

// Errors of verification, to be matched with errors.Is.
var (
	// ErrChain says that certificates do not prove what they claim. It does not
	// depend on time: what failed once fails for ever.
	ErrChain = errors.New("capability: certificate chain is not valid")
	// ErrAdmitter says that a member's admission could not be judged, because the
	// admitting member's certificate is not known here (yet).
	ErrAdmitter = errors.New("capability: admitting member is not known")
	// ErrExpired says that a membership or an invite has ended.
	ErrExpired = errors.New("capability: expired")
	// ErrOtherPeer says that a valid certificate was shown by a device it was not
	// issued to.
	ErrOtherPeer = errors.New("capability: certificate belongs to another device")
	// ErrRights says that a certificate does not include a right that is needed.
	ErrRights = errors.New("capability: right not granted")
)

// SessionTolerance is how far the clocks of two honest devices may differ when a
// membership's end is judged for a session.
const SessionTolerance = 5 * time.Minute

// Grant is what a verified chain proves. Only verification makes one; the zero
// value grants nothing.
type Grant struct {
	// Library is the id of the library.
	Library [32]byte
	// ID is the last certificate of the chain.
	ID CertID
	// Kind says whether that is an invite or a membership.
	Kind Kind
	// Subject is the device key of the member or the key of the invite.
	Subject [32]byte
	// Author and Seal are the member's other keys; zero for an invite.
	Author, Seal [32]byte
	Rights       Rights
	// RedeemBy and GrantExp are as in [Cert]. Revocation is not part of a grant:
	// see [Chain.IDs].
	RedeemBy, GrantExp int64
	// Depth is the number of certificates in the chain.
	Depth int
}

func grantOf(c *Cert, id CertID, depth int) Grant {
	return Grant{
		Library: c.Library, ID: id, Kind: c.Kind, Subject: c.Subject, Author: c.Author, Seal: c.Seal,
		Rights: c.Rights, RedeemBy: c.RedeemBy, GrantExp: c.GrantExp, Depth: depth,
	}
}

// Peer returns the member's peer id.
func (g Grant) Peer() transport.PeerID { return transport.PeerID(g.Subject) }

// ValidAt reports whether the grant has not ended at now, give or take tolerance.
// The last second named by GrantExp still counts.
func (g Grant) ValidAt(now time.Time, tolerance time.Duration) bool {
	return g.GrantExp == 0 || now.Add(-tolerance).Unix() <= g.GrantExp
}

// RedeemableAt reports whether the grant is an invite that can be redeemed at
// now: neither its own end nor that of the membership it gives has passed.
func (g Grant) RedeemableAt(now time.Time) bool {
	return g.Kind == KindInvite && g.ValidAt(now, 0) && (g.RedeemBy == 0 || now.Unix() <= g.RedeemBy)
}

// CheckSession says whether the grant lets the peer hold a session at now: it is
// a membership, of this device, not ended by more than [SessionTolerance].
// Errors match [ErrChain], [ErrOtherPeer] or [ErrExpired].
func (g Grant) CheckSession(peer transport.PeerID, now time.Time) error {
	switch {
	case g.Kind != KindMember:
		return fmt.Errorf("%w: an invite is no membership", ErrChain)
	case g.Peer() != peer:
		return ErrOtherPeer
	case !g.ValidAt(now, SessionTolerance):
		return fmt.Errorf("%w: membership ended on %s", ErrExpired, UnixTime(g.GrantExp).Format(time.RFC3339))
	}
	return nil
}

// CheckAuthor says whether the grant lets author sign records that need the
// rights. Whether the record's clock lies within the membership is for the
// caller. Errors match [ErrChain] or [ErrRights].
func (g Grant) CheckAuthor(author [32]byte, need Rights) error {
	switch {
	case g.Kind != KindMember:
		return fmt.Errorf("%w: an invite signs no records", ErrChain)
	case g.Author != author:
		return fmt.Errorf("%w: record signed by another author's key", ErrChain)
	case !g.Rights.Has(need):
		return fmt.Errorf("%w: %s needed, %s granted", ErrRights, need, g.Rights)
	}
	return nil
}
