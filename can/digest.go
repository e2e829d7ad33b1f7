package can

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// Digest is the SHA-256 of an asset's content: its identity everywhere in
// cansync. The zero value stands for no content.
type Digest [sha256.Size]byte

// ErrDigest says that a text is not a digest.
var ErrDigest = errors.New("can: invalid digest")

// ParseDigest reads 64 lower-case hexadecimal digits; errors match [ErrDigest].
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if len(s) != 2*len(d) {
		return d, fmt.Errorf("%w: want %d hexadecimal digits, got %d characters", ErrDigest, 2*len(d), len(s))
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return Digest{}, fmt.Errorf("%w: character %d is not a lower-case hexadecimal digit", ErrDigest, i+1)
		}
	}
	_, err := hex.Decode(d[:], []byte(s))
	return d, err
}

// String returns 64 lower-case hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// IsZero reports whether d is the zero value.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Digest) UnmarshalText(b []byte) error {
	p, err := ParseDigest(string(b))
	if err == nil {
		*d = p
	}
	return err
}
