package capability

import (
	"errors"
	"fmt"
	"time"

	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/transport"
)

// ErrJoin says that a request to join, or the reply to one, is not genuine: not
// made for this connection, this device or this invite.
var ErrJoin = errors.New("capability: join message is not genuine")

// Refusal is why a member did not admit a joiner. It is an error, and travels in
// the reply; 0 means not refused.
type Refusal uint8

const (
	// RefusedInvalid says that the request or its invite did not verify.
	RefusedInvalid Refusal = 1
	// RefusedExpired says that the invite or the membership it gives has ended.
	RefusedExpired Refusal = 2
	// RefusedCounted says that the invite counts its uses, which this member does
	// not do.
	RefusedCounted Refusal = 3
	// RefusedClosed says that the invite was revoked or closed. The caller of
	// [Admit] decides this.
	RefusedClosed Refusal = 4
	// RefusedRights says that this member may not admit anyone: ask another.
	RefusedRights Refusal = 5
	// RefusedBusy says that this member could not admit anyone just now, for a
	// cause of its own: ask again or another.
	RefusedBusy Refusal = 6

	maxRefusal = RefusedBusy
)

// Error says why, and what to do.
func (r Refusal) Error() string {
	switch r {
	case RefusedInvalid:
		return "capability: join refused: the invite is not valid here"
	case RefusedExpired:
		return "capability: join refused: the ticket has expired; ask for a new one"
	case RefusedCounted:
		return "capability: join refused: invites with a limited number of uses are not supported; ask for one without"
	case RefusedClosed:
		return "capability: join refused: the ticket was revoked; ask for a new one"
	case RefusedRights:
		return "capability: join refused: this member may not admit others; it takes one with the invite right"
	case RefusedBusy:
		return "capability: join refused: the member cannot admit anyone now; try again"
	}
	return fmt.Sprintf("capability: join refused: reason %d", uint8(r))
}

// JoinRequest is what the holder of a ticket sends after a hello under the
// ticket's secret.
type JoinRequest struct {
	// Invite is the ticket's.
	Invite Bundle
	// Member is the membership asked for, signed with the invite's key and not yet
	// admitted.
	Member Cert
	// Signature is the invite key's, over the connection's binding and Member.
	Signature [64]byte
}

// joinMessage is what a joiner signs. The member's id covers its three keys and
// the invite; the binding makes the signature worthless on any other connection.
func joinMessage(binding [32]byte, member CertID) []byte {
	b := append(make([]byte, 0, 96), "cansync/join/v1\x00"...)
	return append(append(b, binding[:]...), member[:]...)
}

// NewJoinRequest makes the request of a device that holds a ticket, for the
// connection whose hello had this binding.
func NewJoinRequest(t Ticket, dev Device, binding [32]byte) (JoinRequest, error) {
	m, err := NewMember(t.Invite.Chain, t.Key, dev.Member(t.Library()))
	if err != nil {
		return JoinRequest{}, err
	}
	return JoinRequest{Invite: t.Invite, Member: m, Signature: t.Key.Sign(joinMessage(binding, m.ID()))}, nil
}

// Encode returns the encoding of q: the invite with a four-byte length, the
// member certificate, the signature.
func (q JoinRequest) Encode() []byte {
	b := q.Member.Append(wire.AppendBytes(nil, q.Invite.Encode()))
	return append(b, q.Signature[:]...)
}

// DecodeJoinRequest is the inverse of [JoinRequest.Encode]. It verifies nothing;
// errors match wire.ErrMalformed.
func DecodeJoinRequest(p []byte) (q JoinRequest, err error) {
	r := wire.NewReader(p)
	bundle := r.Bytes(MaxBundle)
	q.Member = readCert(r)
	q.Signature = r.B64()
	if err := r.End(); err != nil {
		return JoinRequest{}, err
	}
	if q.Invite, err = DecodeBundle(bundle); err != nil {
		return JoinRequest{}, err
	}
	return q, nil
}

// Admission is what a member knows when it judges a request.
type Admission struct {
	// Library is the one whose invite secret the hello matched.
	Library [32]byte
	// Peer is the joiner as the transport authenticated it, and Binding that of
	// the hello on this connection.
	Peer    transport.PeerID
	Binding [32]byte
	// Now judges the ends, without tolerance.
	Now time.Time
	// Self is the admitting member's verified grant, Device its device.
	Self   Grant
	Device Device
	// Keys are handed to the new member.
	Keys EpochKeys
	// Existing is the stored, verified certificate with the id of the request's
	// member, nil if there is none. It is handed out again as it is, also after
	// the invite has ended: the reply to an earlier request may have been lost. A
	// second admission could make it hang on a member below itself.
	Existing *Cert
}

// Admit judges a request to join and makes the membership, countersigned, and the
// library's secrets sealed to it. It changes nothing: before it sends the reply
// the caller stores the membership, and before it calls, it checks that no
// certificate of the invite is revoked and the invite is open. Admitting the same
// device twice under one invite makes the same certificate. It returns the chain
// of the new member and the sealed [EpochKeys].
//
// Every error has a [Refusal] to send; errors.As finds it.
func Admit(q JoinRequest, a Admission) (Chain, []byte, error) {
	refuse := func(r Refusal, err error) (Chain, []byte, error) {
		return nil, nil, fmt.Errorf("%w: %w", r, err)
	}
	if a.Self.Library != a.Library || a.Self.Kind != KindMember || a.Self.Peer() != a.Device.PeerID() ||
		!a.Self.Rights.Has(Invite) || !a.Self.ValidAt(a.Now, 0) {
		return refuse(RefusedRights, ErrRights)
	}
	g, err := q.Invite.Verify(a.Library)
	if err != nil {
		return refuse(RefusedInvalid, err)
	}
	m := q.Member
	switch {
	case g.Kind != KindInvite:
		return refuse(RefusedInvalid, fmt.Errorf("%w: not an invite", ErrJoin))
	case m.Subject != a.Peer:
		return refuse(RefusedInvalid, fmt.Errorf("%w: %w", ErrJoin, ErrOtherPeer))
	case !verify(g.Subject, joinMessage(a.Binding, m.ID()), &q.Signature):
		return refuse(RefusedInvalid, fmt.Errorf("%w: not signed for this connection", ErrJoin))
	case !m.Admitter.IsZero() || m.AdmitterSignature != [64]byte{}:
		return refuse(RefusedInvalid, fmt.Errorf("%w: already admitted", ErrJoin))
	case q.Invite.Chain.Last().MaxUses > 0:
		return refuse(RefusedCounted, ErrJoin)
	case a.Existing == nil && !g.RedeemableAt(a.Now), !g.ValidAt(a.Now, 0):
		return refuse(RefusedExpired, ErrExpired)
	case a.Existing != nil && a.Existing.ID() != m.ID():
		return refuse(RefusedBusy, errors.New("another certificate than the request's is on file"))
	}
	// Nothing leaves this function unless the whole chain verifies.
	m.Countersign(a.Self.ID, a.Device.Key())
	chain := q.Invite.Chain.With(m)
	full := Bundle{Chain: chain, Support: q.Invite.Support}
	if err := full.verifyAdmittedBy(a.Self); err != nil {
		return refuse(RefusedInvalid, err)
	}
	if a.Existing != nil {
		m = *a.Existing
		chain = q.Invite.Chain.With(m)
	}
	sealed, err := SealEpoch(a.Keys, a.Library, m.ID(), m.Seal)
	if err != nil {
		return refuse(RefusedBusy, err)
	}
	return chain, sealed, nil
}

// verifyAdmittedBy verifies a bundle whose last member was admitted by self, whose
// own chain need not be in it.
func (b Bundle) verifyAdmittedBy(self Grant) error {
	v := newVerifier(self.Library, len(b.Chain)+len(b.Support))
	v.outside = func(id CertID) (Grant, error) {
		if id != self.ID {
			return Grant{}, errors.New("not in the bundle")
		}
		return self, nil
	}
	for i := range b.Support {
		if _, err := v.add(&b.Support[i]); err != nil {
			return err
		}
	}
	_, err := v.chain(b.Chain)
	return err
}

// JoinReply answers a request: a refusal, or the membership and the secrets.
type JoinReply struct {
	// Refusal is why not; with it, the rest is empty.
	Refusal Refusal
	// Member is the new membership with what its verification needs.
	Member Bundle
	// Sealed are the library's secrets; see [OpenEpoch].
	Sealed []byte
}

// Encode returns the encoding of p: the refusal in one byte; then, if that is 0,
// the bundle and the sealed secrets, each with a four-byte length.
func (p JoinReply) Encode() []byte {
	b := []byte{byte(p.Refusal)}
	if p.Refusal != 0 {
		return b
	}
	return wire.AppendBytes(wire.AppendBytes(b, p.Member.Encode()), p.Sealed)
}

// DecodeJoinReply is the inverse of [JoinReply.Encode]. It verifies nothing;
// errors match wire.ErrMalformed.
func DecodeJoinReply(b []byte) (p JoinReply, err error) {
	r := wire.NewReader(b)
	if p.Refusal = Refusal(r.U8()); p.Refusal > maxRefusal {
		r.Fail("unknown refusal %d", p.Refusal)
	}
	if r.Err() != nil || p.Refusal != 0 {
		return JoinReply{Refusal: p.Refusal}, r.End()
	}
	bundle := r.Bytes(MaxBundle)
	p.Sealed = append([]byte(nil), r.Bytes(SealedEpochSize)...)
	if err := r.End(); err != nil {
		return JoinReply{}, err
	}
	if p.Member, err = DecodeBundle(bundle); err != nil {
		return JoinReply{}, err
	}
	return p, nil
}

// Open verifies, at the joiner, that the reply admits exactly what q asked for,
// and opens the secrets. Errors match [Refusal] by errors.As, [ErrJoin],
// [ErrChain], [ErrAdmitter] or [ErrSealed].
func (p JoinReply) Open(q JoinRequest, dev Device) (Grant, EpochKeys, error) {
	if p.Refusal != 0 {
		return Grant{}, EpochKeys{}, p.Refusal
	}
	library := q.Invite.Library()
	last := p.Member.Chain.Last()
	if len(p.Member.Chain) == 0 || last.ID() != q.Member.ID() || last.Subject != dev.Key().Public() {
		return Grant{}, EpochKeys{}, fmt.Errorf("%w: another membership than asked for", ErrJoin)
	}
	g, err := p.Member.Verify(library)
	if err != nil {
		return Grant{}, EpochKeys{}, err
	}
	keys, err := OpenEpoch(dev.Seal(library), library, g.ID, p.Sealed)
	if err != nil {
		return Grant{}, EpochKeys{}, err
	}
	return g, keys, nil
}
