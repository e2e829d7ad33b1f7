package control

import (
	"fmt"
	"unicode/utf8"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/wire"
)

const bodyVersion = 1

// Replace says whose assets a writer may edit and remove.
type Replace uint8

const (
	// ReplaceAny lets every writer replace every other's records, as suits one
	// person's machines. It is the zero value.
	ReplaceAny Replace = 0
	// ReplaceOwn leaves an asset to the author who announced it first.
	ReplaceOwn Replace = 1
)

// String returns "any" or "own".
func (p Replace) String() string {
	switch p {
	case ReplaceAny:
		return "any"
	case ReplaceOwn:
		return "own"
	}
	return fmt.Sprintf("replace %d", uint8(p))
}

// Delete says what a member does with its copy of an asset that was removed.
type Delete uint8

const (
	// DeleteKeep leaves it in the member's service. It is the zero value.
	DeleteKeep Delete = 0
	// DeleteTrash trashes it there.
	DeleteTrash Delete = 1
)

// String returns "keep" or "trash".
func (p Delete) String() string {
	switch p {
	case DeleteKeep:
		return "keep"
	case DeleteTrash:
		return "trash"
	}
	return fmt.Sprintf("delete %d", uint8(p))
}

// Description is what a library says of itself.
type Description struct {
	// Name is for people, at most [MaxName] bytes of UTF-8.
	Name string
	// Filter says which assets belong to the library.
	Filter  filter.Filter
	Replace Replace
	Delete  Delete
}

// Equal reports whether the descriptions say the same.
func (d Description) Equal(o Description) bool {
	return d.Name == o.Name && d.Replace == o.Replace && d.Delete == o.Delete && d.Filter.Equal(o.Filter)
}

// Encode returns the encoding: version, the two policies, the name with a
// two-byte length, and the filter with a four-byte length. Errors match
// [ErrInvalid], and filter.ErrInvalid where the filter is at fault.
func (d Description) Encode() ([]byte, error) {
	switch {
	case len(d.Name) > MaxName:
		return nil, fmt.Errorf("%w: a name of %d bytes, at most %d", ErrInvalid, len(d.Name), MaxName)
	case !utf8.ValidString(d.Name):
		return nil, fmt.Errorf("%w: a name that is not UTF-8", ErrInvalid)
	case d.Replace > ReplaceOwn:
		return nil, fmt.Errorf("%w: unknown policy %v", ErrInvalid, d.Replace)
	case d.Delete > DeleteTrash:
		return nil, fmt.Errorf("%w: unknown policy %v", ErrInvalid, d.Delete)
	}
	f, err := d.Filter.Encode()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	dst := []byte{bodyVersion, byte(d.Replace), byte(d.Delete)}
	return wire.AppendBytes(wire.AppendString(dst, d.Name), f), nil
}

// DecodeDescription reads exactly one encoded description; errors match
// wire.ErrMalformed.
func DecodeDescription(b []byte) (Description, error) {
	r := wire.NewReader(b)
	readVersion(r)
	d := Description{Replace: Replace(r.U8()), Delete: Delete(r.U8())}
	if d.Replace > ReplaceOwn || d.Delete > DeleteTrash {
		r.Fail("unknown policy: %v, %v", d.Replace, d.Delete)
	}
	d.Name = r.String(MaxName)
	p := r.Bytes(filter.MaxEncoded)
	if err := r.End(); err != nil {
		return Description{}, fmt.Errorf("control: description: %w", err)
	}
	f, err := filter.Decode(p)
	if err != nil {
		return Description{}, fmt.Errorf("control: description: %w", err)
	}
	d.Filter = f
	return d, nil
}

// InviteBody is what members need to know of an invite.
type InviteBody struct {
	Cert capability.Cert
	// Secret is what a ticket's holder proves to know; only members learn it here.
	Secret capability.Secret
}

// Encode returns the encoding: version, secret, certificate. Errors match
// [ErrInvalid].
func (i InviteBody) Encode() ([]byte, error) {
	if i.Cert.Kind != capability.KindInvite {
		return nil, fmt.Errorf("%w: %v certificate in an invite", ErrInvalid, i.Cert.Kind)
	}
	if i.Secret.IsZero() {
		return nil, fmt.Errorf("%w: an invite without a secret", ErrInvalid)
	}
	raw := i.Secret.Bytes()
	return i.Cert.Append(append([]byte{bodyVersion}, raw[:]...)), nil
}

// DecodeInvite reads exactly one encoded invite and verifies nothing; errors match
// wire.ErrMalformed.
func DecodeInvite(b []byte) (InviteBody, error) {
	r := wire.NewReader(b)
	readVersion(r)
	out := InviteBody{Secret: capability.SecretFromBytes(r.B32())}
	if r.Err() == nil && out.Secret.IsZero() {
		r.Fail("an invite without a secret")
	}
	var err error
	if out.Cert, err = restCert(r, capability.KindInvite); err != nil {
		return InviteBody{}, fmt.Errorf("control: invite: %w", err)
	}
	return out, nil
}

// EncodeMember returns the encoding of a member record's body: version and
// certificate, which includes who admitted the member. Errors match [ErrInvalid].
func EncodeMember(c capability.Cert) ([]byte, error) {
	if c.Kind != capability.KindMember {
		return nil, fmt.Errorf("%w: %v certificate in a membership", ErrInvalid, c.Kind)
	}
	return c.Append([]byte{bodyVersion}), nil
}

// DecodeMember reads exactly one body of a member record and verifies nothing;
// errors match wire.ErrMalformed.
func DecodeMember(b []byte) (capability.Cert, error) {
	r := wire.NewReader(b)
	readVersion(r)
	c, err := restCert(r, capability.KindMember)
	if err != nil {
		return capability.Cert{}, fmt.Errorf("control: member: %w", err)
	}
	return c, nil
}

func readVersion(r *wire.Reader) {
	if v := r.U8(); r.Err() == nil && v != bodyVersion {
		r.Fail("body version %d, want %d", v, bodyVersion)
	}
}

func restCert(r *wire.Reader, kind capability.Kind) (capability.Cert, error) {
	p := r.Rest()
	if err := r.Err(); err != nil {
		return capability.Cert{}, err
	}
	c, err := capability.DecodeCert(p)
	if err != nil {
		return capability.Cert{}, err
	}
	if c.Kind != kind {
		return capability.Cert{}, fmt.Errorf("%w: %v certificate, want %v", wire.ErrMalformed, c.Kind, kind)
	}
	return c, nil
}

// NewDescription makes the draft of a description by the holder of certificate
// cert, who needs the admin right.
func NewDescription(clock record.Clock, library [32]byte, cert capability.CertID, d Description) (record.Draft, error) {
	b, err := d.Encode()
	if err != nil {
		return record.Draft{}, err
	}
	return record.Draft{Kind: record.Description, Clock: clock, Library: library, Cert: cert, Body: b}, nil
}

// NewInvite makes the draft that makes an invite known to all members. Who signs
// it is the member that issued the invite: the subject of the certificate before.
func NewInvite(clock record.Clock, cert capability.Cert, secret capability.Secret) (record.Draft, error) {
	b, err := InviteBody{Cert: cert, Secret: secret}.Encode()
	if err != nil {
		return record.Draft{}, err
	}
	return record.Draft{
		Kind: record.Invite, Clock: clock, Library: cert.Library, Subject: cert.ID(), Cert: cert.Parent, Body: b,
	}, nil
}

// NewMember makes the draft that makes a membership known to all members. Who
// signs it is the member that admitted the new one or, for the owner's first
// device, that device.
func NewMember(clock record.Clock, cert capability.Cert) (record.Draft, error) {
	b, err := EncodeMember(cert)
	if err != nil {
		return record.Draft{}, err
	}
	by := cert.Admitter
	if by.IsZero() {
		by = cert.ID()
	}
	return record.Draft{
		Kind: record.Member, Clock: clock, Library: cert.Library, Subject: cert.ID(), Cert: by, Body: b,
	}, nil
}
