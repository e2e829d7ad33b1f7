package record

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"

	"github.com/cansync/cansync/can"
)

const signPrefix = "cansync/record/v1\x00"

// Draft is a record before it is signed. The fields are those of [Header]; the
// author is who signs.
type Draft struct {
	Kind    Kind
	Clock   Clock
	Library [32]byte
	Subject [32]byte
	Cert    [32]byte
	// Body is nil in a tombstone.
	Body []byte
}

// Asset makes the draft of an announcement or edit of an asset. Errors match
// [ErrInvalid] or, when the metadata does not fit, [ErrTooLarge].
func Asset(kind Kind, clock Clock, library [32]byte, asset can.Digest, cert [32]byte, body AssetBody) (Draft, error) {
	if kind != Announce && kind != Edit {
		return Draft{}, fmt.Errorf("%w: %v with metadata", ErrInvalid, kind)
	}
	b, err := body.Encode()
	if err != nil {
		return Draft{}, err
	}
	return Draft{Kind: kind, Clock: clock, Library: library, Subject: asset, Cert: cert, Body: b}, nil
}

// Removal makes the draft of an asset's tombstone.
func Removal(clock Clock, library [32]byte, asset can.Digest, cert [32]byte) Draft {
	return Draft{Kind: Tombstone, Clock: clock, Library: library, Subject: asset, Cert: cert}
}

// Signer holds an Ed25519 key that it may not want to show, such as a
// capability.SigningKey.
type Signer interface {
	// Public returns the public key.
	Public() [32]byte
	// Sign returns the signature of RFC 8032 over a message.
	Sign(message []byte) [64]byte
}

type privateKey ed25519.PrivateKey

var _ Signer = privateKey(nil)

func (k privateKey) Public() [32]byte { return [32]byte(k[ed25519.SeedSize:]) }

func (k privateKey) Sign(message []byte) [64]byte {
	return [64]byte(ed25519.Sign(ed25519.PrivateKey(k), message))
}

// Sign is [SignWith] with a plain key; a key of the wrong length is an [ErrKey].
func Sign(key ed25519.PrivateKey, drafts []Draft) ([]Record, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("%w: a private key of %d bytes", ErrKey, len(key))
	}
	return SignWith(privateKey(key), drafts)
}

// SignWith signs 1 to [MaxBatch] drafts of one library with one signature and
// returns the records in the same order. The records keep the drafts' bodies.
// Errors match [ErrInvalid]; nothing is signed then.
func SignWith(key Signer, drafts []Draft) ([]Record, error) {
	if len(drafts) < 1 || len(drafts) > MaxBatch {
		return nil, fmt.Errorf("%w: a batch of %d records, want 1 to %d", ErrInvalid, len(drafts), MaxBatch)
	}
	author := key.Public()
	records := make([]Record, len(drafts))
	leaves := make([][32]byte, len(drafts))
	paths := make([][][32]byte, len(drafts))
	room := make([][32]byte, len(drafts)*maxPath)
	for i, d := range drafts {
		h := Header{Kind: d.Kind, Clock: d.Clock, Library: d.Library, Subject: d.Subject, Author: author, Cert: d.Cert}
		if d.Library != drafts[0].Library {
			return nil, fmt.Errorf("%w: a batch of two libraries", ErrInvalid)
		}
		if len(d.Body) > 0 {
			h.BodyDigest = sha256.Sum256(d.Body)
			records[i].Body = d.Body
		}
		if !d.Kind.Valid() {
			return nil, fmt.Errorf("%w: unknown %v", ErrInvalid, d.Kind)
		}
		if err := validate(h, d.Body); err != nil {
			return nil, err
		}
		records[i].Header = h
		leaves[i] = leafHash(h.ID())
		paths[i] = room[i*maxPath : i*maxPath : (i+1)*maxPath]
	}
	root := buildTree(leaves, paths)
	sig := key.Sign(signedBytes(len(drafts), root))
	for i := range records {
		records[i].Proof = Proof{Index: uint8(i), Count: uint8(len(drafts)), Signature: sig}
		if len(paths[i]) > 0 {
			records[i].Siblings = paths[i]
		}
	}
	return records, nil
}

func signedBytes(count int, root [32]byte) []byte {
	b := make([]byte, 0, len(signPrefix)+1+32)
	b = append(b, signPrefix...)
	b = append(b, byte(count))
	return append(b, root[:]...)
}
