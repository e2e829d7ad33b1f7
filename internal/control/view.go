package control

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/record"
)

// Description returns the library's description, which is the greatest by
// record.Compare, and the id of its record; false while there is none.
func (s *State) Description() (Description, record.ID, bool) {
	var best record.ID
	found := false
	for _, id := range s.newest {
		if !found || record.Newer(s.valid[id].Header, s.valid[best].Header) {
			best, found = id, true
		}
	}
	if !found {
		return Description{}, record.ID{}, false
	}
	d, err := DecodeDescription(s.valid[best].Body)
	return d, best, err == nil // it decoded when it was added
}

// Invite is an invite of which all members know.
type Invite struct {
	ID     capability.CertID
	Cert   capability.Cert
	Grant  capability.Grant
	Secret capability.Secret
	// Clock is when the inviting member made it known.
	Clock record.Clock
	// Record is the record that does.
	Record record.ID
}

// OpenInvites returns the invites that can still be redeemed at a moment in Unix
// seconds, newest first, at most [MaxOpenInvites]. Of more than that those are left out
// that have most newer ones of the same sponsor, all admins taken together: nobody makes
// the invites of others useless by making many.
func (s *State) OpenInvites(nowUnix int64) []Invite {
	now := time.Unix(nowUnix, 0)
	var heads []record.Header
	for _, c := range s.certs {
		if c.grant.RedeemableAt(now) {
			heads = append(heads, s.speaks(c, false))
		}
	}
	newest := func(a, b record.Header) int { return record.Compare(b, a) }
	slices.SortFunc(heads, newest)
	if len(heads) > MaxOpenInvites {
		newer := make(map[record.ID]int, len(heads)) // of the same sponsor
		count := make(map[capability.CertID]int)
		for _, h := range heads {
			// Only who issued an invite speaks of it.
			by := s.certs[capability.CertID(h.Cert)].sponsor
			newer[h.ID()] = count[by]
			count[by]++
		}
		slices.SortStableFunc(heads, func(a, b record.Header) int { return cmp.Compare(newer[a.ID()], newer[b.ID()]) })
		heads = heads[:MaxOpenInvites]
		slices.SortFunc(heads, newest)
	}
	var out []Invite
	for _, h := range heads {
		id := h.ID()
		body, err := DecodeInvite(s.valid[id].Body)
		if err != nil {
			continue // it decoded when it was added
		}
		c := s.certs[h.Subject]
		out = append(out, Invite{
			ID: c.grant.ID, Cert: c.Cert, Grant: c.grant, Secret: body.Secret, Clock: h.Clock, Record: id,
		})
	}
	return out
}

// Member is a device that was admitted to the library.
type Member struct {
	// ID is the member certificate's.
	ID capability.CertID
	// Device is the key under which the transport authenticates the member, Author
	// the one that signs its records, Seal the one to which secrets are sealed.
	Device, Author, Seal [32]byte
	Rights               capability.Rights
	// GrantExp is the last Unix second of the membership; 0 means no end.
	GrantExp int64
	// Admitter is the certificate of the member who admitted this one, and Invite
	// that of the invite; both are zero for the owner's devices.
	Admitter, Invite capability.CertID
	// Clock is when the admission was made known.
	Clock record.Clock
	// Record is the record that does.
	Record record.ID
}

// Members returns all members, those whose membership has ended too, in the order
// in which they came in. A device that redeemed two invites is there twice.
func (s *State) Members() []Member {
	var out []Member
	for id, c := range s.certs {
		if c.Kind != capability.KindMember {
			continue
		}
		h := s.speaks(c, true)
		// Whom two members admitted at once came in by the one who was first.
		body, err := DecodeMember(s.valid[h.ID()].Body)
		if err != nil {
			continue // it decoded when it was added
		}
		out = append(out, Member{
			ID: id, Device: c.Subject, Author: c.Author, Seal: c.Seal, Rights: c.Rights, GrantExp: c.GrantExp,
			Admitter: body.Admitter, Invite: c.Parent, Clock: h.Clock, Record: h.ID(),
		})
	}
	slices.SortFunc(out, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Clock, b.Clock), bytes.Compare(a.ID[:], b.ID[:]))
	})
	return out
}

// speaks returns the header of the first or last of the records that carry a
// certificate, in an order that all members share.
func (s *State) speaks(c *cert, first bool) record.Header {
	best := s.valid[c.carriers[0]].Header
	for _, id := range c.carriers[1:] {
		h := s.valid[id].Header
		if record.Newer(h, best) != first {
			best = h
		}
	}
	return best
}
