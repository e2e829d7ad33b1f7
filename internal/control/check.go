package control

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/record"
)

// Check says whether the author of a record of any kind was allowed to make it:
// whether the certificate it names counts, is a membership of this author with
// the right that the kind needs, and had not ended by the record's own clock. For
// an asset record that is all; what a control record carries is judged when it is
// added. Errors match [ErrUnknownCert], [ErrForbidden], [ErrExpired] or [ErrKind].
func (s *State) Check(h record.Header) error {
	g, err := s.Grant(h.Cert)
	if err != nil {
		return err
	}
	return s.checkGrant(h, g)
}

// checkGrant is Check with the grant of the certificate that the record names.
func (s *State) checkGrant(h record.Header, g capability.Grant) error {
	if h.Library != s.library {
		return fmt.Errorf("%w: record of another library", ErrForbidden)
	}
	need, err := needed(h)
	if err != nil {
		return err
	}
	if err := g.CheckAuthor(h.Author, need); err != nil {
		return fmt.Errorf("%w: %v: %w", ErrForbidden, h.Kind, err)
	}
	if !g.ValidAt(h.Clock.Time(), 0) {
		return fmt.Errorf("%w: %v of %s, after the membership's end", ErrExpired, h.Kind, h.Clock)
	}
	return nil
}

// needed returns the right that a record of this kind needs.
func needed(h record.Header) (capability.Rights, error) {
	switch h.Kind {
	case record.Announce, record.Edit, record.Tombstone:
		return capability.Write, nil
	case record.Description:
		return capability.Admin, nil
	case record.Invite:
		return capability.Invite, nil
	case record.Member:
		if h.Subject == h.Cert {
			// The owner's own device introduces itself; its certificate is the
			// owner's word, whatever rights it gives.
			return capability.Read, nil
		}
		return capability.Invite, nil
	}
	return 0, fmt.Errorf("%w: %v", ErrKind, h.Kind)
}

// judge decides about a control record. It returns the certificate that the
// record carries, if any, once it is verified; or the id of a certificate without
// which nothing can be said yet; or why the record is void for ever.
func (s *State) judge(r record.Record) (in *cert, missing capability.CertID, err error) {
	if !r.Kind.Control() {
		return nil, missing, fmt.Errorf("%w: %v in the control set", ErrKind, r.Kind)
	}
	if r.Library != s.library {
		return nil, missing, fmt.Errorf("%w: record of another library", ErrForbidden)
	}
	if in, err = carried(r); err != nil {
		return nil, missing, err
	}
	by := capability.CertID(r.Cert)
	if in != nil {
		// Parents and admitters are needed to verify what the record carries; they
		// are asked for first, as the record's own certificate is one of them.
		for _, id := range [...]capability.CertID{in.Parent, in.Admitter} {
			if !id.IsZero() && s.certs[id] == nil {
				return nil, id, nil
			}
		}
		if err := s.prove(in); err != nil {
			return nil, missing, err
		}
	}
	var g capability.Grant
	switch known := s.certs[by]; {
	case in != nil && in.grant.ID == by:
		g = in.grant
	case known != nil:
		g = known.grant
	default:
		return nil, by, nil
	}
	if err := s.checkGrant(r.Header, g); err != nil {
		return nil, missing, err
	}
	if in != nil && in.Kind == capability.KindMember && !in.Parent.IsZero() {
		if err := redeemed(r.Clock.Time(), s.certs[in.Parent].grant); err != nil {
			return nil, missing, err
		}
	}
	return in, missing, nil
}

// redeemed says whether a membership that claims to have begun at t may come of an
// invite. The author's clock may rightly be ahead by as much as readers accept.
func redeemed(t time.Time, invite capability.Grant) error {
	if invite.RedeemBy != 0 && t.Add(-record.MaxFuture).Unix() > invite.RedeemBy {
		return fmt.Errorf("%w: redeemed on %s, after the invite's end", ErrExpired, t.Format(time.RFC3339))
	}
	return nil
}

// carried reads the body of a record, with what can be said about it alone.
func carried(r record.Record) (*cert, error) {
	c := &cert{}
	var by capability.CertID
	switch r.Kind {
	case record.Description:
		if _, err := DecodeDescription(r.Body); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		return nil, nil
	case record.Invite:
		body, err := DecodeInvite(r.Body)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		// Only who issued an invite speaks of it, or others could spoil its secret.
		c.Cert, by = body.Cert, body.Cert.Parent
	case record.Member:
		var err error
		if c.Cert, err = DecodeMember(r.Body); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if by = c.Admitter; by.IsZero() {
			by = c.ID()
		}
	default:
		return nil, fmt.Errorf("%w: %v", ErrKind, r.Kind)
	}
	id := c.ID()
	switch {
	case c.Library != r.Library:
		return nil, fmt.Errorf("%w: %v with a certificate of another library", ErrInvalid, r.Kind)
	case [32]byte(id) != r.Subject:
		return nil, fmt.Errorf("%w: %v about another certificate than the one it carries", ErrInvalid, r.Kind)
	case [32]byte(by) != r.Cert:
		return nil, fmt.Errorf("%w: %v by another member than the certificate names", ErrForbidden, r.Kind)
	case c.Parent == id || c.Admitter == id:
		return nil, fmt.Errorf("%w: a certificate that rests on itself", ErrInvalid)
	}
	return c, nil
}

// prove verifies a certificate whose parent and admitter count.
func (s *State) prove(in *cert) error {
	if have := s.certs[in.ID()]; have != nil && bytes.Equal(have.Encode(), in.Encode()) {
		in.grant = have.grant
		return nil
	}
	ch := capability.Chain{in.Cert}
	if !in.Parent.IsZero() {
		up, err := s.Chain(in.Parent)
		if err != nil {
			return err
		}
		ch = up.With(in.Cert)
	}
	g, err := s.verify(ch, s.library, s.Grant)
	if errors.Is(err, capability.ErrAdmitter) {
		// All admitters count already, so this is not for want of knowledge.
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrForbidden, err)
	}
	in.grant = g
	return nil
}
