package capability

import (
	"crypto/ecdh"
	"crypto/hpke"
	"errors"
	"fmt"
	"io"

	"github.com/cansync/cansync/internal/wire"
)

// ErrSealed says that sealed secrets could not be opened: made for another
// device, certificate or library, or altered.
var ErrSealed = errors.New("capability: sealed secrets do not open")

// EpochKeys are the secrets a member holds. An epoch lasts until the members'
// secret is changed to shut somebody out.
type EpochKeys struct {
	// Epoch counts from 0.
	Epoch uint32
	// Secret is the epoch's.
	Secret Secret
	// Lasting is the same in every epoch; see [Secret.Lasting].
	Lasting Secret
}

// NewEpochKeys makes the secrets of a new library.
func NewEpochKeys(rand io.Reader) (EpochKeys, error) {
	s, err := NewSecret(rand)
	if err != nil {
		return EpochKeys{}, err
	}
	return EpochKeys{Secret: s, Lasting: s.Lasting()}, nil
}

// Next returns the keys of the epoch after, with a new secret.
func (k EpochKeys) Next(rand io.Reader) (EpochKeys, error) {
	s, err := NewSecret(rand)
	if err != nil {
		return EpochKeys{}, err
	}
	return EpochKeys{Epoch: k.Epoch + 1, Secret: s, Lasting: k.Lasting}, nil
}

const (
	epochVersion = 1
	epochPlain   = 1 + 4 + 32 + 32
	// SealedEpochSize is the size of sealed [EpochKeys] in bytes: the encapsulated
	// key, the text and the authenticator.
	SealedEpochSize = 32 + epochPlain + 16
)

func sealSuite() (hpke.KDF, hpke.AEAD) { return hpke.HKDFSHA256(), hpke.ChaCha20Poly1305() }

// sealInfo binds sealed secrets to the library and to the certificate of whom
// they are for, so that they open nowhere else.
func sealInfo(library [32]byte, member CertID) []byte {
	b := append(make([]byte, 0, 96), "cansync/epoch/v1\x00"...)
	return append(append(b, library[:]...), member[:]...)
}

// SealEpoch seals the keys to a member's seal key, by HPKE (RFC 9180) in base mode
// with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and ChaCha20-Poly1305. It does not
// say who sealed them; that is for what carries them to prove.
func SealEpoch(keys EpochKeys, library [32]byte, member CertID, to [32]byte) ([]byte, error) {
	if keys.Secret.IsZero() || keys.Lasting.IsZero() {
		return nil, fmt.Errorf("%w: no secrets to seal", ErrKey)
	}
	if err := checkSealKey(to); err != nil {
		return nil, err
	}
	pub, err := ecdh.X25519().NewPublicKey(to[:])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	pk, err := hpke.NewDHKEMPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	secret, lasting := keys.Secret.Bytes(), keys.Lasting.Bytes()
	plain := wire.AppendU32([]byte{epochVersion}, keys.Epoch)
	plain = append(append(plain, secret[:]...), lasting[:]...)
	kdf, aead := sealSuite()
	sealed, err := hpke.Seal(pk, kdf, aead, sealInfo(library, member), plain)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return sealed, nil
}

// OpenEpoch is the inverse of [SealEpoch]. Errors match [ErrSealed].
func OpenEpoch(key SealKey, library [32]byte, member CertID, sealed []byte) (EpochKeys, error) {
	if key.IsZero() || len(sealed) != SealedEpochSize {
		return EpochKeys{}, fmt.Errorf("%w: %d bytes", ErrSealed, len(sealed))
	}
	sk, err := hpke.NewDHKEMPrivateKey(key.h.get().priv)
	if err != nil {
		return EpochKeys{}, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	kdf, aead := sealSuite()
	plain, err := hpke.Open(sk, kdf, aead, sealInfo(library, member), sealed)
	if err != nil {
		return EpochKeys{}, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	r := wire.NewReader(plain)
	if v := r.U8(); v != epochVersion {
		return EpochKeys{}, fmt.Errorf("%w: version %d", ErrSealed, v)
	}
	keys := EpochKeys{Epoch: r.U32(), Secret: SecretFromBytes(r.B32()), Lasting: SecretFromBytes(r.B32())}
	if r.End() != nil || keys.Secret.IsZero() || keys.Lasting.IsZero() {
		return EpochKeys{}, fmt.Errorf("%w: malformed", ErrSealed)
	}
	return keys, nil
}
