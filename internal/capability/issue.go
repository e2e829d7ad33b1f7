package capability

import (
	"crypto/sha256"
	"fmt"
	"io"
	"time"
)

// NewRoot makes the first certificate of a library: the membership, with all
// rights and without end, of the owner's device. It needs no admission.
func NewRoot(owner SigningKey, keys MemberKeys, rand io.Reader) (Cert, error) {
	if owner.IsZero() {
		return Cert{}, fmt.Errorf("%w: no owner key", ErrKey)
	}
	c := Cert{
		Kind: KindMember, Library: LibraryID(owner.Public()), Issuer: owner.Public(),
		Subject: keys.Device, Author: keys.Author, Seal: keys.Seal, Rights: AllRights,
	}
	if err := c.seedNonce(rand); err != nil {
		return Cert{}, err
	}
	c.sign(owner)
	return c, c.validate(c.Library)
}

// InviteOptions say what an invite gives and until when.
type InviteOptions struct {
	// Rights of the memberships that come of it; [Read] is always included.
	Rights Rights
	// RedeemBy is when the invite ends; the zero time means never.
	RedeemBy time.Time
	// GrantExp is when the memberships end; the zero time means as late as that of
	// the inviting member.
	GrantExp time.Time
}

// NewInvite makes an invite for the holder of key, issued by the member whose
// verified chain and device key are given. Errors match [ErrRights] when the
// member may not give what is asked, [ErrChain] when the chain cannot be
// continued, [ErrKey] for a wrong key.
func NewInvite(member Chain, device SigningKey, key [32]byte, o InviteOptions, rand io.Reader) (Cert, error) {
	parent := member.Last()
	rights := o.Rights | Read
	switch {
	case len(member) == 0 || parent.Kind != KindMember:
		return Cert{}, fmt.Errorf("%w: only a member invites", ErrChain)
	case len(member)+2 > MaxChain:
		return Cert{}, fmt.Errorf("%w: no room for another generation of members in %d certificates", ErrChain, MaxChain)
	case device.Public() != parent.Subject:
		return Cert{}, fmt.Errorf("%w: not the member's device key", ErrKey)
	case !parent.Rights.Has(Invite):
		return Cert{}, fmt.Errorf("%w: invite needed, %s granted", ErrRights, parent.Rights)
	case !parent.Rights.Has(rights):
		return Cert{}, fmt.Errorf("%w: a member with %s cannot give %s", ErrRights, parent.Rights, rights)
	}
	c := Cert{
		Kind: KindInvite, Library: parent.Library, Issuer: parent.Subject, Subject: key,
		Rights: rights, GrantExp: parent.GrantExp, Parent: parent.ID(),
	}
	if !o.RedeemBy.IsZero() {
		c.RedeemBy = o.RedeemBy.Unix()
	}
	if !o.GrantExp.IsZero() {
		c.GrantExp = o.GrantExp.Unix()
		if parent.GrantExp != 0 && c.GrantExp > parent.GrantExp {
			return Cert{}, fmt.Errorf("%w: a membership cannot outlive that of who invites", ErrRights)
		}
	}
	if c.RedeemBy < 0 || c.GrantExp < 0 || !o.RedeemBy.IsZero() && c.RedeemBy == 0 || !o.GrantExp.IsZero() && c.GrantExp == 0 {
		return Cert{}, fmt.Errorf("%w: an end in or before 1970", ErrExpired)
	}
	if err := c.seedNonce(rand); err != nil {
		return Cert{}, err
	}
	c.sign(device)
	return c, c.validate(c.Library)
}

// NewMember makes the membership that redeems an invite, to be countersigned by
// who admits it. It takes all the invite gives. The same invite and keys make the
// same certificate, so that redeeming twice, even with two members, makes one
// member.
func NewMember(invite Chain, key SigningKey, keys MemberKeys) (Cert, error) {
	parent := invite.Last()
	switch {
	case len(invite) == 0 || parent.Kind != KindInvite:
		return Cert{}, fmt.Errorf("%w: not an invite", ErrChain)
	case len(invite)+1 > MaxChain:
		return Cert{}, fmt.Errorf("%w: longer than %d certificates", ErrChain, MaxChain)
	case key.Public() != parent.Subject:
		return Cert{}, fmt.Errorf("%w: not the invite's key", ErrKey)
	}
	c := Cert{
		Kind: KindMember, Library: parent.Library, Issuer: parent.Subject, Subject: keys.Device,
		Author: keys.Author, Seal: keys.Seal, Rights: parent.Rights, GrantExp: parent.GrantExp, Parent: parent.ID(),
	}
	h := sha256.New()
	h.Write([]byte("cansync/member-nonce/v1\x00"))
	h.Write(c.Parent[:])
	h.Write(c.Subject[:])
	copy(c.Nonce[:], h.Sum(nil))
	c.sign(key)
	return c, c.validate(c.Library)
}

func (c *Cert) seedNonce(rand io.Reader) error {
	if _, err := io.ReadFull(rand, c.Nonce[:]); err != nil {
		return fmt.Errorf("capability: read randomness: %w", err)
	}
	return nil
}
