package record

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/cansync/cansync/internal/wire"
)

// Version is the version of the header layout. A reader refuses any other.
const Version = 1

// Kind says what a record states.
type Kind uint8

// The kinds of records. Values between those named are refused.
const (
	// Announce states that the author has an asset with this metadata.
	Announce Kind = 1
	// Edit states that the author changed an asset's metadata, or added the asset
	// again after it was removed.
	Edit Kind = 2
	// Tombstone states that the author removed an asset. It has no body.
	Tombstone Kind = 3

	// Description carries the library's name, filter and policies.
	Description Kind = 16
	// Invite carries an invite certificate.
	Invite Kind = 17
	// Member carries a member certificate.
	Member Kind = 18

	// Revocation, Epoch and InviteClose have their numbers and no meaning yet.
	// They decode, so that a set that holds them can be listed.
	Revocation  Kind = 19
	Epoch       Kind = 20
	InviteClose Kind = 21
)

// Valid reports whether the kind has a number in this version.
func (k Kind) Valid() bool {
	return k >= Announce && k <= Tombstone || k >= Description && k <= InviteClose
}

// Control reports whether records of the kind belong to the control set.
func (k Kind) Control() bool { return k >= Description && k <= InviteClose }

// String returns the kind's name.
func (k Kind) String() string {
	switch k {
	case Announce:
		return "announce"
	case Edit:
		return "edit"
	case Tombstone:
		return "tombstone"
	case Description:
		return "description"
	case Invite:
		return "invite"
	case Member:
		return "member"
	case Revocation:
		return "revocation"
	case Epoch:
		return "epoch"
	case InviteClose:
		return "invite close"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// ID names a record: the SHA-256 of its header. It covers the body through the
// body's digest, and not the signature, so that nobody makes a second id for what
// an author said once.
type ID [sha256.Size]byte

// String returns 64 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Compare orders ids as bytes.
func (id ID) Compare(o ID) int { return bytes.Compare(id[:], o[:]) }

// Header is the signed part of a record, of fixed layout and [HeaderSize].
type Header struct {
	Kind  Kind
	Clock Clock
	// Library is the library's id.
	Library [32]byte
	// Subject is the digest of the asset's content, the id of the certificate
	// that a control record carries, or zero in a description.
	Subject [32]byte
	// Author is the Ed25519 public key that signs.
	Author [32]byte
	// Cert is the id of the certificate that lets the author do so.
	Cert [32]byte
	// BodyDigest is the SHA-256 of the body, or zero where the kind has none.
	BodyDigest [32]byte
}

// Append appends the encoding, version first.
func (h Header) Append(dst []byte) []byte {
	dst = append(dst, Version, byte(h.Kind))
	dst = wire.AppendU64(dst, uint64(h.Clock))
	dst = append(dst, h.Library[:]...)
	dst = append(dst, h.Subject[:]...)
	dst = append(dst, h.Author[:]...)
	dst = append(dst, h.Cert[:]...)
	return append(dst, h.BodyDigest[:]...)
}

// DecodeHeader reads exactly one encoded header; errors match wire.ErrMalformed.
func DecodeHeader(b []byte) (Header, error) {
	r := wire.NewReader(b)
	h := readHeader(r)
	if err := r.End(); err != nil {
		return Header{}, fmt.Errorf("record: header: %w", err)
	}
	return h, nil
}

func readHeader(r *wire.Reader) (h Header) {
	if v := r.U8(); r.Err() == nil && v != Version {
		r.Fail("header version %d, want %d", v, Version)
	}
	h.Kind = Kind(r.U8())
	if r.Err() == nil && !h.Kind.Valid() {
		r.Fail("unknown %v", h.Kind)
	}
	h.Clock = Clock(r.U64())
	h.Library = r.B32()
	h.Subject = r.B32()
	h.Author = r.B32()
	h.Cert = r.B32()
	h.BodyDigest = r.B32()
	return h
}

// ID returns the SHA-256 of the encoded header.
func (h Header) ID() ID {
	var buf [HeaderSize]byte
	return sha256.Sum256(h.Append(buf[:0]))
}

// Compare orders records about one asset: the live one is the greatest among the
// valid. An edit or tombstone is above an announcement whatever their clocks, so
// that someone who comes with bytes of their own doesn't overwrite everyone's
// tags; then the later clock wins, then the greater author, then the greater id.
// It is a total order: 0 means that the headers are the same.
func Compare(a, b Header) int {
	if c := cmp.Compare(rank(a.Kind), rank(b.Kind)); c != 0 {
		return c
	}
	if c := cmp.Compare(a.Clock, b.Clock); c != 0 {
		return c
	}
	if c := bytes.Compare(a.Author[:], b.Author[:]); c != 0 {
		return c
	}
	if a == b {
		return 0
	}
	return a.ID().Compare(b.ID())
}

// Newer reports whether a replaces b where only the newest record of each author
// is kept. The order is that of [Compare].
func Newer(a, b Header) bool { return Compare(a, b) > 0 }

func rank(k Kind) int {
	if k == Edit || k == Tombstone {
		return 1
	}
	return 0
}
