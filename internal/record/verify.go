package record

import (
	"crypto/ed25519"
	"fmt"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/cansync/cansync/internal/capability"
)

// DefaultCache is the number of verified batches that a [Verifier] remembers
// unless told otherwise: 4,096 batches of 64 records in about a megabyte.
const DefaultCache = 4096

// Verifier checks that records are what their authors signed. It remembers the
// batches and keys that passed, so that the records of one batch cost one
// signature check between them. Failures are not remembered: a stranger can't
// drive out what is good. It is safe for concurrent use; nothing is locked while a
// signature is checked.
type Verifier struct {
	batches *lru.Cache[batch, struct{}]
	keys    *lru.Cache[[32]byte, struct{}]
}

type batch struct {
	author, root [32]byte
	count        uint8
	signature    [64]byte
}

// NewVerifier returns a verifier that remembers size batches and as many keys; 0
// or less means [DefaultCache].
func NewVerifier(size int) *Verifier {
	if size <= 0 {
		size = DefaultCache
	}
	// New fails only for sizes that are not positive.
	batches, _ := lru.New[batch, struct{}](size)
	keys, _ := lru.New[[32]byte, struct{}](size)
	return &Verifier{batches: batches, keys: keys}
}

// Verify checks the rules of the record's kind, its body where it has one, the
// author's key and the signature. It does not check what the author is allowed to
// do. Errors match [ErrInvalid], [ErrKey] or [ErrSignature].
func (v *Verifier) Verify(r Record) error {
	if err := r.Validate(); err != nil {
		return err
	}
	b := batch{author: r.Author, count: r.Count, signature: r.Signature}
	b.root = climb(leafHash(r.Header.ID()), int(r.Index), int(r.Count), r.Siblings)
	if _, ok := v.batches.Get(b); ok {
		return nil
	}
	if _, ok := v.keys.Get(r.Author); !ok {
		// One signature passes for many messages under a key of small order.
		if err := capability.CheckKey(r.Author); err != nil {
			return fmt.Errorf("%w: %w", ErrKey, err)
		}
	}
	if !ed25519.Verify(b.author[:], signedBytes(int(b.count), b.root), b.signature[:]) {
		return ErrSignature
	}
	v.keys.Add(r.Author, struct{}{})
	v.batches.Add(b, struct{}{})
	return nil
}
