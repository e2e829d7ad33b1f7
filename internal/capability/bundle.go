package capability

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/transport"
)

// Bundle is a chain with every other certificate that its verification needs:
// the chains of those who admitted its members. Two peers that meet for the first
// time show each other one, as neither holds the library's control set yet.
type Bundle struct {
	Chain Chain
	// Support are the certificates of admitters outside Chain, by ascending id,
	// none twice, none unneeded.
	Support []Cert
}

// NewBundle gathers the certificates that the verification of chain needs. find
// returns the verified chain that ends with a certificate. It fails when find
// does, and when the limits of a bundle are exceeded.
func NewBundle(chain Chain, find func(CertID) (Chain, error)) (Bundle, error) {
	have := make(map[CertID]bool)
	queue := slices.Clone(chain)
	for _, id := range chain.IDs() {
		have[id] = true
	}
	support := make(map[CertID]Cert)
	for len(queue) > 0 {
		c := queue[0]
		queue = queue[1:]
		if c.Admitter.IsZero() || have[c.Admitter] {
			continue
		}
		more, err := find(c.Admitter)
		if err != nil {
			return Bundle{}, fmt.Errorf("%w: %s: %w", ErrAdmitter, c.Admitter, err)
		}
		for i, id := range more.IDs() {
			if !have[id] {
				have[id] = true
				support[id] = more[i]
				queue = append(queue, more[i])
			}
		}
		if !have[c.Admitter] {
			return Bundle{}, fmt.Errorf("%w: %s: chain ends elsewhere", ErrAdmitter, c.Admitter)
		}
		if len(have) > MaxBundleCerts {
			return Bundle{}, fmt.Errorf("%w: more than %d certificates needed", ErrChain, MaxBundleCerts)
		}
	}
	b := Bundle{Chain: chain}
	ids := make([]CertID, 0, len(support))
	for id := range support {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(x, y CertID) int { return bytes.Compare(x[:], y[:]) })
	for _, id := range ids {
		b.Support = append(b.Support, support[id])
	}
	return b, nil
}

// Library returns the id of the library the bundle claims to belong to.
func (b Bundle) Library() [32]byte { return b.Chain.Library() }

// Verify says what the bundle proves about the library; see [Chain.Verify]. After
// success every certificate in it is verified, those of Support as well. Errors
// match [ErrChain] or [ErrAdmitter].
func (b Bundle) Verify(library [32]byte) (Grant, error) {
	n := len(b.Chain) + len(b.Support)
	if len(b.Chain) == 0 || len(b.Chain) > MaxChain || n > MaxBundleCerts {
		return Grant{}, fmt.Errorf("%w: %d certificates, %d in support", ErrChain, len(b.Chain), len(b.Support))
	}
	v := newVerifier(library, n)
	var last CertID
	for i := range b.Support {
		id, err := v.add(&b.Support[i])
		if err != nil {
			return Grant{}, err
		}
		if i > 0 && bytes.Compare(last[:], id[:]) >= 0 {
			return Grant{}, fmt.Errorf("%w: support not in order", ErrChain)
		}
		last = id
	}
	g, err := v.chain(b.Chain)
	if err != nil {
		return Grant{}, err
	}
	for _, n := range v.nodes {
		if n.state != done {
			return Grant{}, fmt.Errorf("%w: support that supports nothing", ErrChain)
		}
	}
	return g, nil
}

// VerifyPeer verifies the bundle and that it lets the peer, as the transport
// authenticated it, hold a session at now. Errors match [ErrChain],
// [ErrAdmitter], [ErrOtherPeer] or [ErrExpired]. Revocation is for the caller.
func (b Bundle) VerifyPeer(library [32]byte, peer transport.PeerID, now time.Time) (Grant, error) {
	g, err := b.Verify(library)
	if err == nil {
		err = g.CheckSession(peer, now)
	}
	if err != nil {
		return Grant{}, err
	}
	return g, nil
}

// Chains returns the path from the root to each certificate of a verified bundle,
// parents and admitters before those they support: the order in which a control
// set can take them in.
func (b Bundle) Chains() []Chain {
	byID := make(map[CertID]*Cert)
	for _, certs := range [...][]Cert{b.Support, b.Chain} {
		for i := range certs {
			byID[certs[i].ID()] = &certs[i]
		}
	}
	var out []Chain
	paths := make(map[CertID]Chain)
	// A path is recorded before the admitter is visited, so that even a bundle
	// nobody verified is walked once.
	var visit func(id CertID) Chain
	visit = func(id CertID) Chain {
		c := byID[id]
		if path, ok := paths[id]; ok || c == nil {
			return path
		}
		var up Chain
		if !c.Parent.IsZero() {
			up = visit(c.Parent)
		}
		path := up.With(*c)
		paths[id] = path
		if !c.Admitter.IsZero() {
			visit(c.Admitter)
		}
		out = append(out, path)
		return path
	}
	last := b.Chain.Last()
	visit(last.ID())
	return out
}

// Encode returns the encoding of b: the chain, then the support, each a two-byte
// count and the certificates.
func (b Bundle) Encode() []byte { return b.Append(nil) }

// Append appends the encoding of b to dst.
func (b Bundle) Append(dst []byte) []byte { return appendCerts(appendCerts(dst, b.Chain), b.Support) }

// DecodeBundle is the inverse of [Bundle.Encode]. It bounds counts and bytes and
// verifies nothing; errors match wire.ErrMalformed.
func DecodeBundle(p []byte) (Bundle, error) {
	if len(p) > MaxBundle {
		return Bundle{}, fmt.Errorf("%w: bundle of %d bytes exceeds %d", wire.ErrMalformed, len(p), MaxBundle)
	}
	r := wire.NewReader(p)
	b := Bundle{Chain: readCerts(r, MaxChain)}
	if len(b.Chain) == 0 {
		r.Fail("a chain without certificates")
	}
	b.Support = readCerts(r, MaxBundleCerts)
	if err := r.End(); err != nil {
		return Bundle{}, err
	}
	return b, nil
}
