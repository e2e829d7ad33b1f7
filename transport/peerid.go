package transport

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/mr-tron/base58"
)

// PeerID is the Ed25519 public key of a peer's device. The zero value is no
// peer's.
type PeerID [ed25519.PublicKeySize]byte

// ErrPeerID says that a text is not a peer id.
var ErrPeerID = errors.New("transport: invalid peer id")

// peerIDPrefix begins every libp2p peer id of an Ed25519 key: an identity
// multihash of 36 bytes, holding a protobuf of key type 1 and 32 bytes of key.
// See https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md.
var peerIDPrefix = [6]byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}

// String returns the peer id as libp2p prints it: 12D3KooW….
func (p PeerID) String() string {
	b := make([]byte, 0, len(peerIDPrefix)+len(p))
	b = append(b, peerIDPrefix[:]...)
	return base58.Encode(append(b, p[:]...))
}

// Short returns the last eight characters of the id, for logs.
func (p PeerID) Short() string {
	s := p.String()
	return s[len(s)-8:]
}

// IsZero reports whether p is the zero value.
func (p PeerID) IsZero() bool { return p == PeerID{} }

// ParsePeerID is the inverse of [PeerID.String]. It takes only ids of Ed25519
// keys; errors match [ErrPeerID].
func ParsePeerID(s string) (PeerID, error) {
	var p PeerID
	if len(s) > 64 {
		return p, fmt.Errorf("%w: too long", ErrPeerID)
	}
	b, err := base58.Decode(s)
	if err != nil || len(b) != len(peerIDPrefix)+len(p) || [6]byte(b[:6]) != peerIDPrefix {
		return p, fmt.Errorf("%w: not an Ed25519 peer id", ErrPeerID)
	}
	copy(p[:], b[6:])
	return p, nil
}

// MarshalText implements encoding.TextMarshaler.
func (p PeerID) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *PeerID) UnmarshalText(b []byte) error {
	q, err := ParsePeerID(string(b))
	if err == nil {
		*p = q
	}
	return err
}
