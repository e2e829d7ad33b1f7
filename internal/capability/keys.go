package capability

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"

	"github.com/cansync/cansync/transport"
)

// ErrKey says that bytes are not a usable key: of the wrong length, not in their
// canonical encoding, of small order, or the zero value.
var ErrKey = errors.New("capability: unusable key")

// LibraryID returns the id of the library that belongs to an owner key. Nobody
// else can make certificates for it.
func LibraryID(owner [32]byte) [32]byte {
	return sha256.Sum256(append([]byte("cansync/lib/v1"), owner[:]...))
}

// derive is HKDF-SHA256 (RFC 5869).
func derive(secret, salt []byte, info string, n int) []byte {
	out, err := hkdf.Key(sha256.New, secret, salt, info, n)
	if err != nil {
		// Only an output beyond 8,160 bytes or a secret below 112 bits in FIPS
		// mode fails; both lengths are constants of this package.
		panic("capability: " + err.Error())
	}
	return out
}

func random32(rand io.Reader) (b [32]byte, err error) {
	if _, err = io.ReadFull(rand, b[:]); err != nil {
		err = fmt.Errorf("capability: read randomness: %w", err)
	}
	return b, err
}

// Device is the root of one node's keys. The zero value is no device's and makes
// only zero keys.
type Device struct {
	redacted
	_ [0]func() // == would compare addresses
	h hidden[deviceData]
}

type deviceData struct {
	seed [32]byte
	key  SigningKey
}

// NewDevice makes a device from 32 bytes of randomness.
func NewDevice(rand io.Reader) (Device, error) {
	seed, err := random32(rand)
	if err != nil {
		return Device{}, err
	}
	return DeviceFromSeed(seed), nil
}

// DeviceFromSeed returns the device whose [Device.Seed] is seed.
func DeviceFromSeed(seed [32]byte) Device {
	return Device{h: hide(deviceData{seed: seed, key: SigningKeyFromSeed(seed)})}
}

// IsZero reports whether d is the zero value.
func (d Device) IsZero() bool { return d.h.get() == nil }

// Seed returns the secret itself, for the key file and the transport.
func (d Device) Seed() (seed [32]byte) {
	if p := d.h.get(); p != nil {
		seed = p.seed
	}
	return seed
}

// Key returns the device key D, which the transport authenticates, and which
// signs invites and admissions.
func (d Device) Key() SigningKey {
	p := d.h.get()
	if p == nil {
		return SigningKey{}
	}
	return p.key
}

// PeerID returns the public half of the device key.
func (d Device) PeerID() transport.PeerID { return transport.PeerID(d.Key().Public()) }

// Author returns the key that signs the device's records in a library. It differs
// from the device key, so that no signature made for the transport can pass for
// a record, and between libraries, so that an author is not recognised across
// them.
func (d Device) Author(library [32]byte) SigningKey {
	p := d.h.get()
	if p == nil {
		return SigningKey{}
	}
	return SigningKeyFromSeed([32]byte(derive(p.seed[:], library[:], "cansync/author/v1", 32)))
}

// Seal returns the key to which others seal a library's secrets for the device.
func (d Device) Seal(library [32]byte) SealKey {
	p := d.h.get()
	if p == nil {
		return SealKey{}
	}
	k, err := ecdh.X25519().NewPrivateKey(derive(p.seed[:], library[:], "cansync/seal/v1", 32))
	if err != nil { // any 32 bytes are a key
		return SealKey{}
	}
	return SealKey{h: hide(sealData{priv: k, pub: [32]byte(k.PublicKey().Bytes())})}
}

// Member returns the public keys that a member certificate of the device names.
func (d Device) Member(library [32]byte) MemberKeys {
	return MemberKeys{
		Device: d.Key().Public(),
		Author: d.Author(library).Public(),
		Seal:   d.Seal(library).Public(),
	}
}

// MemberKeys are the public keys of one device in one library.
type MemberKeys struct {
	// Device is the key the transport authenticates.
	Device [32]byte
	// Author verifies the device's records.
	Author [32]byte
	// Seal is the X25519 key to which secrets are sealed.
	Seal [32]byte
}

// SigningKey is an Ed25519 private key: an owner's, a device's, an author's or an
// invite's. The zero value signs nothing.
type SigningKey struct {
	redacted
	_ [0]func()
	h hidden[signingData]
}

type signingData struct {
	priv ed25519.PrivateKey
	pub  [32]byte
}

// NewSigningKey makes a key from 32 bytes of randomness.
func NewSigningKey(rand io.Reader) (SigningKey, error) {
	seed, err := random32(rand)
	if err != nil {
		return SigningKey{}, err
	}
	return SigningKeyFromSeed(seed), nil
}

// SigningKeyFromSeed returns the key of RFC 8032 for a seed.
func SigningKeyFromSeed(seed [32]byte) SigningKey {
	priv := ed25519.NewKeyFromSeed(seed[:])
	return SigningKey{h: hide(signingData{priv: priv, pub: [32]byte(priv[32:])})}
}

// IsZero reports whether k is the zero value.
func (k SigningKey) IsZero() bool { return k.h.get() == nil }

// Public returns the public key; of the zero value, zero.
func (k SigningKey) Public() (pub [32]byte) {
	if p := k.h.get(); p != nil {
		pub = p.pub
	}
	return pub
}

// Seed returns the secret itself, for a key file or a ticket.
func (k SigningKey) Seed() (seed [32]byte) {
	if p := k.h.get(); p != nil {
		copy(seed[:], p.priv.Seed())
	}
	return seed
}

// Sign signs message. The zero value returns a signature that verifies under no
// key.
func (k SigningKey) Sign(message []byte) (sig [64]byte) {
	if p := k.h.get(); p != nil {
		copy(sig[:], ed25519.Sign(p.priv, message))
	}
	return sig
}

// SealKey is an X25519 private key. The zero value opens nothing.
type SealKey struct {
	redacted
	_ [0]func()
	h hidden[sealData]
}

type sealData struct {
	priv *ecdh.PrivateKey
	pub  [32]byte
}

// IsZero reports whether k is the zero value.
func (k SealKey) IsZero() bool { return k.h.get() == nil }

// Public returns the public key; of the zero value, zero.
func (k SealKey) Public() (pub [32]byte) {
	if p := k.h.get(); p != nil {
		pub = p.pub
	}
	return pub
}

// Secret is a library's epoch secret, an invite's secret, or the library's
// lasting secret: 32 bytes that nobody guesses. The zero value is no secret, and
// is refused wherever one is needed.
type Secret struct {
	redacted
	_ [0]func()
	h hidden[secretData]
}

type secretData struct {
	raw  [32]byte
	auth [32]byte // the child that makes hello tags, kept because hellos are many
}

// NewSecret makes a secret from 32 bytes of randomness.
func NewSecret(rand io.Reader) (Secret, error) {
	raw, err := random32(rand)
	if err != nil {
		return Secret{}, err
	}
	return SecretFromBytes(raw), nil
}

// SecretFromBytes returns the secret whose [Secret.Bytes] are raw; for 32 zero
// bytes, the zero value.
func SecretFromBytes(raw [32]byte) Secret {
	if raw == [32]byte{} {
		return Secret{}
	}
	return Secret{h: hide(secretData{raw: raw, auth: [32]byte(derive(raw[:], nil, "cansync/auth/v1", 32))})}
}

// IsZero reports whether s is the zero value.
func (s Secret) IsZero() bool { return s.h.get() == nil }

// Bytes returns the secret itself, for the state file or a ticket.
func (s Secret) Bytes() (raw [32]byte) {
	if p := s.h.get(); p != nil {
		raw = p.raw
	}
	return raw
}

// Equal compares two secrets in constant time.
func (s Secret) Equal(t Secret) bool {
	a, b := s.Bytes(), t.Bytes()
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// Lasting returns the secret of the library that outlives rotation. It is the
// child of the first epoch's secret; members who join in a later epoch receive it
// with that epoch's secret, see [EpochKeys].
func (s Secret) Lasting() Secret {
	p := s.h.get()
	if p == nil {
		return Secret{}
	}
	return SecretFromBytes([32]byte(derive(p.raw[:], nil, "cansync/lasting/v1", 32)))
}

// ReconcileKey returns the key under which the library's members code their sets,
// a child of the lasting secret s: coded symbols are kept across rotations.
func (s Secret) ReconcileKey() (key [16]byte) {
	if p := s.h.get(); p != nil {
		copy(key[:], derive(p.raw[:], nil, "cansync/fp/v1", 16))
	}
	return key
}
