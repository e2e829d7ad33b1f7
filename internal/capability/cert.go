package capability

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/cansync/cansync/internal/wire"
)

// Rights is a set of permissions in one library.
type Rights uint8

const (
	// Read allows to see the library's records and fetch its assets. Every
	// certificate includes it.
	Read Rights = 1
	// Write allows to announce, edit and remove assets.
	Write Rights = 2
	// Invite allows to issue invites and to admit those who redeem one.
	Invite Rights = 4
	// Admin allows to change the library's description, to revoke, and to rotate.
	Admin Rights = 8
	// AllRights are the rights of the owner's first device.
	AllRights = Read | Write | Invite | Admin
)

// Has reports whether r includes every right of q.
func (r Rights) Has(q Rights) bool { return r&q == q }

// valid reports whether r is a set a certificate may carry.
func (r Rights) valid() bool { return r&^AllRights == 0 && r.Has(Read) }

// String lists the rights: "read,write".
func (r Rights) String() string {
	var s []string
	for i, name := range [...]string{"read", "write", "invite", "admin"} {
		if r&(1<<i) != 0 {
			s = append(s, name)
		}
	}
	if r&^AllRights != 0 {
		s = append(s, fmt.Sprintf("unknown(%#x)", uint8(r&^AllRights)))
	}
	if len(s) == 0 {
		return "none"
	}
	return strings.Join(s, ",")
}

// Kind says what a certificate is.
type Kind uint8

const (
	// KindInvite lets the holder of the subject key ask for a membership.
	KindInvite Kind = 1
	// KindMember makes the device with the subject key a member.
	KindMember Kind = 2
)

// String returns "invite" or "member".
func (k Kind) String() string {
	switch k {
	case KindInvite:
		return "invite"
	case KindMember:
		return "member"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// CertID names a certificate: the SHA-256 of its signed bytes. Neither the
// signature nor the admission is part of it, so that no one can give a
// certificate a second name.
type CertID [32]byte

// IsZero reports whether id names nothing.
func (id CertID) IsZero() bool { return id == CertID{} }

// String returns the id in hexadecimal.
func (id CertID) String() string { return hex.EncodeToString(id[:]) }

// Cert is one certificate of a chain. It holds no secret. Its bytes are a fixed
// layout rather than a self-describing one, because what is signed must have one
// encoding only; integers are big-endian:
//
//	"CSC1" version:u8(=1) kind:u8 library[32] issuer[32] subject[32] author[32]
//	seal[32] rights:u8 redeem_by:i64 grant_exp:i64 max_uses:u16 nonce[16]
//	parent[32] scope_len:u16 scope[scope_len] signature[64]
//	and for a member: admitter[32] admitter_signature[64]
type Cert struct {
	Kind Kind
	// Library is the id of the library; see [LibraryID].
	Library [32]byte
	// Issuer is the key that signed: the owner key in the first certificate of a
	// chain, else the subject of the one before.
	Issuer [32]byte
	// Subject is the device key of a member or the key of an invite.
	Subject [32]byte
	// Author and Seal are a member's other keys; an invite has none (zero).
	Author, Seal [32]byte
	// Rights never exceed those of the certificate before.
	Rights Rights
	// RedeemBy is the last Unix second in which an invite can be redeemed; 0 means
	// no end. It does not end the memberships that came of it, and a member
	// certificate has none.
	RedeemBy int64
	// GrantExp is the last Unix second of the membership, never later than that of
	// the certificate before; 0 means no end.
	GrantExp int64
	// MaxUses is how often an invite can be redeemed; 0 means without limit. Only
	// the issuer may admit those who redeem a counted invite.
	MaxUses uint16
	// Nonce makes certificates with equal fields differ.
	Nonce [16]byte
	// Parent is the certificate before; zero in the first.
	Parent CertID
	// Scope narrows what the subject may see. This version knows no scopes and
	// refuses every certificate that has one.
	Scope []byte
	// Signature is the issuer's.
	Signature [64]byte
	// Admitter is the member certificate of who admitted this member, and
	// AdmitterSignature that member's device signature. Both are zero in an invite
	// and in the first certificate of a chain.
	Admitter          CertID
	AdmitterSignature [64]byte
}

const (
	certMagic   = "CSC1"
	certVersion = 1
	certDomain  = "cansync/cert/v1\x00"
	admitDomain = "cansync/admit/v1\x00"
	// certMax is the size of the largest certificate.
	certMax = 4 + 1 + 1 + 5*32 + 1 + 8 + 8 + 2 + 16 + 32 + 2 + MaxScope + 64 + 32 + 64
)

// appendBody appends everything before the signature.
func (c *Cert) appendBody(dst []byte) []byte {
	dst = append(dst, certMagic...)
	dst = append(dst, certVersion, byte(c.Kind))
	for _, f := range [...]*[32]byte{&c.Library, &c.Issuer, &c.Subject, &c.Author, &c.Seal} {
		dst = append(dst, f[:]...)
	}
	dst = append(dst, byte(c.Rights))
	dst = wire.AppendU64(dst, uint64(c.RedeemBy))
	dst = wire.AppendU64(dst, uint64(c.GrantExp))
	dst = wire.AppendU16(dst, c.MaxUses)
	dst = append(dst, c.Nonce[:]...)
	dst = append(dst, c.Parent[:]...)
	dst = wire.AppendU16(dst, uint16(len(c.Scope)))
	return append(dst, c.Scope...)
}

// signed returns the bytes the issuer signs.
func (c *Cert) signed() []byte {
	return c.appendBody(append(make([]byte, 0, 320+len(c.Scope)), certDomain...))
}

// ID returns the certificate's name.
func (c *Cert) ID() CertID { return sha256.Sum256(c.signed()) }

// Append appends the encoding of c to dst.
func (c *Cert) Append(dst []byte) []byte {
	dst = append(c.appendBody(dst), c.Signature[:]...)
	if c.Kind == KindMember {
		dst = append(dst, c.Admitter[:]...)
		dst = append(dst, c.AdmitterSignature[:]...)
	}
	return dst
}

// Encode returns the encoding of c.
func (c *Cert) Encode() []byte { return c.Append(make([]byte, 0, 400+len(c.Scope))) }

// readCert reads one certificate; failures stick to r.
func readCert(r *wire.Reader) (c Cert) {
	if magic := r.Take(len(certMagic)); r.Err() == nil && string(magic) != certMagic {
		r.Fail("not a certificate")
	}
	if v := r.U8(); r.Err() == nil && v != certVersion {
		r.Fail("certificate of version %d; this node reads version %d", v, certVersion)
	}
	c.Kind = Kind(r.U8())
	if r.Err() == nil && c.Kind != KindInvite && c.Kind != KindMember {
		r.Fail("certificate of unknown kind %d", c.Kind)
	}
	for _, f := range [...]*[32]byte{&c.Library, &c.Issuer, &c.Subject, &c.Author, &c.Seal} {
		*f = r.B32()
	}
	c.Rights = Rights(r.U8())
	if r.Err() == nil && !c.Rights.valid() {
		r.Fail("certificate with rights %s", c.Rights)
	}
	c.RedeemBy, c.GrantExp = r.I64(), r.I64()
	c.MaxUses = r.U16()
	copy(c.Nonce[:], r.Take(len(c.Nonce)))
	c.Parent = r.B32()
	if n := int(r.U16()); n > MaxScope {
		r.Fail("scope of %d bytes exceeds %d", n, MaxScope)
	} else if n > 0 {
		c.Scope = append([]byte(nil), r.Take(n)...)
	}
	c.Signature = r.B64()
	if c.Kind == KindMember {
		c.Admitter = r.B32()
		c.AdmitterSignature = r.B64()
	}
	return c
}

// DecodeCert is the inverse of [Cert.Encode]. It refuses versions, kinds and
// rights it does not know and trailing bytes; errors match wire.ErrMalformed. It
// verifies nothing. The result does not alias b.
func DecodeCert(b []byte) (Cert, error) {
	if len(b) > certMax {
		return Cert{}, fmt.Errorf("%w: certificate of %d bytes", wire.ErrMalformed, len(b))
	}
	r := wire.NewReader(b)
	c := readCert(r)
	if err := r.End(); err != nil {
		return Cert{}, err
	}
	return c, nil
}

// sign sets the issuer's signature.
func (c *Cert) sign(issuer SigningKey) { c.Signature = issuer.Sign(c.signed()) }

// Countersign admits the member of certificate c: admitter is the certificate,
// device the device key, of a member with the invite right. Whether they fit is
// seen when the chain is verified.
func (c *Cert) Countersign(admitter CertID, device SigningKey) {
	c.Admitter = admitter
	c.AdmitterSignature = device.Sign(admitMessage(c.ID(), admitter))
}

func admitMessage(id, admitter CertID) []byte {
	b := append(make([]byte, 0, len(admitDomain)+64), admitDomain...)
	return append(append(b, id[:]...), admitter[:]...)
}

func verify(key [32]byte, message []byte, sig *[64]byte) bool {
	return ed25519.Verify(key[:], message, sig[:])
}
