// Package record holds the signed statements that a library is made of: their
// layout, their signatures, and the order in which they overrule each other.
//
// A [Record] is a [Header] of fixed layout, a [Proof] that its author signed it,
// and a body. [Sign] makes records from [Draft]s, up to [MaxBatch] under one
// signature; [Decode] takes them off the wire and a [Verifier] says whether they
// are what their author signed. Whether the author was allowed to is the matter of
// package control. Everything here is pure: the time comes as an argument.
package record

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/cansync/cansync/internal/wire"
)

// Errors of records, to be matched with errors.Is. Bytes that are no record at
// all match wire.ErrMalformed.
var (
	// ErrInvalid says that a record breaks the rules of its kind: whoever signed
	// it is at fault.
	ErrInvalid = errors.New("record: invalid")
	// ErrSignature says that the author did not sign the record as it stands.
	ErrSignature = errors.New("record: signature does not verify")
	// ErrKey says that a public key has no canonical encoding or small order.
	ErrKey = errors.New("record: unusable public key")
	// ErrTooLarge says that something does not fit into a record.
	ErrTooLarge = errors.New("record: too large")
)

// Proof shows that the author signed a record, alone or in a batch.
type Proof struct {
	// Index is the record's place in the batch, from 0, and Count the number of
	// records in it, from 1 to [MaxBatch].
	Index, Count uint8
	// Siblings is the path from the record to the root of the batch's Merkle
	// tree; its length follows from Index and Count.
	Siblings [][32]byte
	// Signature is the author's Ed25519 signature over count and root.
	Signature [64]byte
}

// Record is a signed statement. A decoded record is not yet a true one: see
// [Verifier].
type Record struct {
	Header
	Proof
	// Body is nil in a tombstone, and in an asset record sent without its
	// metadata to a peer whose view it left.
	Body []byte
}

// HasBody reports whether the record carries its body.
func (r Record) HasBody() bool { return len(r.Body) > 0 }

// WithoutBody returns the record as it is sent to a peer that may not or need not
// see the body. Id and proof stay as they are.
func (r Record) WithoutBody() Record {
	r.Body = nil
	return r
}

// Size returns the length of the encoding in bytes.
func (r Record) Size() int {
	n := 1 + HeaderSize + proofSize + len(r.Siblings)*32
	if r.HasBody() {
		n += 4 + len(r.Body)
	}
	return n
}

// Append appends the encoding: a flag that is 1 when there is a body, the header,
// index, count, signature, siblings, and the body with its length in four bytes.
func (r Record) Append(dst []byte) []byte {
	dst = slices.Grow(dst, r.Size())
	dst = wire.AppendBool(dst, r.HasBody())
	dst = r.Header.Append(dst)
	dst = append(dst, r.Index, r.Count)
	dst = append(dst, r.Signature[:]...)
	for i := range r.Siblings {
		dst = append(dst, r.Siblings[i][:]...)
	}
	if r.HasBody() {
		dst = wire.AppendBytes(dst, r.Body)
	}
	return dst
}

// Encode returns the encoding.
func (r Record) Encode() []byte { return r.Append(nil) }

// Decode reads exactly one encoded record. It copies what it keeps. Errors match
// wire.ErrMalformed.
func Decode(b []byte) (Record, error) {
	rd := wire.NewReader(b)
	r := Read(rd)
	if err := rd.End(); err != nil {
		return Record{}, fmt.Errorf("record: %w", err)
	}
	return r, nil
}

// Read reads one encoded record off a reader that may hold more, and copies what
// it keeps. A failure is left in the reader.
func Read(rd *wire.Reader) (r Record) {
	body := rd.Bool()
	r.Header = readHeader(rd)
	r.Index, r.Count = rd.U8(), rd.U8()
	if rd.Err() == nil && (r.Count < 1 || r.Count > MaxBatch || r.Index >= r.Count) {
		rd.Fail("record %d of a batch of %d", r.Index, r.Count)
	}
	r.Signature = rd.B64()
	if rd.Err() != nil {
		return Record{}
	}
	if n := pathLen(int(r.Index), int(r.Count)); n > 0 && rd.Len() >= n*32 {
		r.Siblings = make([][32]byte, n)
		for i := range r.Siblings {
			r.Siblings[i] = rd.B32()
		}
	} else if n > 0 {
		rd.Fail("want %d siblings, have %d bytes", n, rd.Len())
	}
	if body {
		p := rd.Bytes(MaxBody)
		if rd.Err() == nil && len(p) == 0 {
			rd.Fail("an empty body")
		}
		r.Body = bytes.Clone(p)
	}
	if rd.Err() != nil {
		return Record{}
	}
	return r
}

// Validate checks what needs no key: which fields the kind requires or forbids,
// that the proof has the right shape, and that the body is the one of the header
// and well formed. A body that is left out counts as valid in asset records. The
// bodies of control records are the matter of package control. Errors match
// [ErrInvalid].
func (r Record) Validate() error {
	if !r.Kind.Valid() {
		return fmt.Errorf("%w: unknown %v", ErrInvalid, r.Kind)
	}
	if r.Count < 1 || r.Count > MaxBatch || r.Index >= r.Count || len(r.Siblings) != pathLen(int(r.Index), int(r.Count)) {
		return fmt.Errorf("%w: record %d of a batch of %d with %d siblings", ErrInvalid, r.Index, r.Count, len(r.Siblings))
	}
	return validate(r.Header, r.Body)
}

func validate(h Header, body []byte) error {
	var zero [32]byte
	switch {
	case h.Library == zero:
		return fmt.Errorf("%w: %v without a library", ErrInvalid, h.Kind)
	case h.Cert == zero:
		return fmt.Errorf("%w: %v without a certificate", ErrInvalid, h.Kind)
	case h.Kind == Description && h.Subject != zero:
		return fmt.Errorf("%w: %v with a subject", ErrInvalid, h.Kind)
	case h.Kind <= Tombstone && h.Subject == zero:
		return fmt.Errorf("%w: %v without an asset", ErrInvalid, h.Kind)
	case (h.Kind == Invite || h.Kind == Member) && h.Subject == zero:
		return fmt.Errorf("%w: %v without the certificate it is about", ErrInvalid, h.Kind)
	case len(body) > MaxBody:
		return fmt.Errorf("%w: %v with a body of %d bytes, more than %d", ErrInvalid, h.Kind, len(body), MaxBody)
	}
	if h.Kind == Tombstone {
		if h.BodyDigest != zero || len(body) > 0 {
			return fmt.Errorf("%w: %v with a body", ErrInvalid, h.Kind)
		}
		return nil
	}
	if h.BodyDigest == zero {
		return fmt.Errorf("%w: %v without a body", ErrInvalid, h.Kind)
	}
	if len(body) == 0 {
		if h.Kind.Control() {
			return fmt.Errorf("%w: %v without its body", ErrInvalid, h.Kind)
		}
		return nil
	}
	if sha256.Sum256(body) != h.BodyDigest {
		return fmt.Errorf("%w: %v with another body than the one signed", ErrInvalid, h.Kind)
	}
	if !h.Kind.Control() {
		if err := checkAsset(body); err != nil {
			return fmt.Errorf("%w: %v: %w", ErrInvalid, h.Kind, err)
		}
	}
	return nil
}
