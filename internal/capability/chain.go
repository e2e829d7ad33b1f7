package capability

import (
	"fmt"

	"github.com/cansync/cansync/internal/wire"
)

// Chain is a path in the library's tree of certificates: the membership of the
// owner's first device, an invite by that device, the membership of who redeemed
// it, and so on. A decoded chain proves nothing until it is verified.
type Chain []Cert

// IDs returns the certificates' names, first to last. A chain is void when any of
// them is revoked.
func (ch Chain) IDs() []CertID {
	ids := make([]CertID, len(ch))
	for i := range ch {
		ids[i] = ch[i].ID()
	}
	return ids
}

// Last returns the chain's last certificate; of an empty chain, the zero value.
func (ch Chain) Last() Cert {
	if len(ch) == 0 {
		return Cert{}
	}
	return ch[len(ch)-1]
}

// Library returns the id of the library the chain claims to belong to.
func (ch Chain) Library() [32]byte { return ch.Last().Library }

// With returns a new chain with c at its end.
func (ch Chain) With(c Cert) Chain { return append(append(make(Chain, 0, len(ch)+1), ch...), c) }

// Encode returns the encoding of ch: a two-byte count, then the certificates.
func (ch Chain) Encode() []byte { return appendCerts(nil, ch) }

func appendCerts(dst []byte, certs []Cert) []byte {
	dst = wire.AppendU16(dst, uint16(len(certs)))
	for i := range certs {
		dst = certs[i].Append(dst)
	}
	return dst
}

func readCerts(r *wire.Reader, limit int) []Cert {
	n := r.Count(limit)
	var certs []Cert
	for range n {
		c := readCert(r)
		if r.Err() != nil {
			return nil
		}
		certs = append(certs, c)
	}
	return certs
}

// DecodeChain is the inverse of [Chain.Encode]. It takes 1 to [MaxChain]
// certificates; errors match wire.ErrMalformed.
func DecodeChain(b []byte) (Chain, error) {
	r := wire.NewReader(b)
	ch := Chain(readCerts(r, MaxChain))
	if len(ch) == 0 {
		r.Fail("a chain without certificates")
	}
	if err := r.End(); err != nil {
		return nil, err
	}
	return ch, nil
}

// Verify says what the chain proves about the library. The answer depends on the
// chain and the admitters alone, never on time.
//
// admitter returns the grant of a member certificate outside this chain that
// admitted one within it. It must answer only from what it has verified before
// this call, or from chains it verifies with every certificate now being judged
// excluded: then admissions cannot support each other in a circle. At most
// [MaxChain] calls are made. Its error is returned wrapped; a nil admitter knows
// nobody. [Bundle.Verify] needs no such function.
//
// Errors match [ErrChain] or [ErrAdmitter].
func (ch Chain) Verify(library [32]byte, admitter func(CertID) (Grant, error)) (Grant, error) {
	if len(ch) == 0 || len(ch) > MaxChain {
		return Grant{}, fmt.Errorf("%w: %d certificates", ErrChain, len(ch))
	}
	v := newVerifier(library, len(ch))
	v.outside = admitter
	return v.chain(ch)
}

// verifier judges a set of certificates, each at most once.
type verifier struct {
	library [32]byte
	nodes   map[CertID]*node
	outside func(CertID) (Grant, error)
}

type node struct {
	cert  *Cert
	state uint8 // unseen, busy, done
	grant Grant
}

const (
	unseen = iota
	busy
	done
)

func newVerifier(library [32]byte, n int) *verifier {
	return &verifier{library: library, nodes: make(map[CertID]*node, n)}
}

func (v *verifier) add(c *Cert) (CertID, error) {
	id := c.ID()
	if _, ok := v.nodes[id]; ok {
		return id, fmt.Errorf("%w: certificate occurs twice", ErrChain)
	}
	v.nodes[id] = &node{cert: c}
	return id, nil
}

// chain adds the certificates of ch and judges the last.
func (v *verifier) chain(ch Chain) (Grant, error) {
	var parent CertID
	for i := range ch {
		if ch[i].Parent != parent {
			return Grant{}, fmt.Errorf("%w: certificate %d does not follow the one before", ErrChain, i)
		}
		id, err := v.add(&ch[i])
		if err != nil {
			return Grant{}, err
		}
		parent = id
	}
	return v.judge(parent)
}

// judge verifies one certificate, after its parent and its admitter. Recursion
// ends because a certificate met again while it is being judged is refused, so
// its depth is at most the number of certificates added.
func (v *verifier) judge(id CertID) (Grant, error) {
	n := v.nodes[id]
	switch {
	case n == nil:
		return Grant{}, fmt.Errorf("%w: certificate missing", ErrChain)
	case n.state == done:
		return n.grant, nil
	case n.state == busy:
		return Grant{}, fmt.Errorf("%w: members admit each other in a circle", ErrChain)
	}
	n.state = busy
	c := n.cert
	if err := c.validate(v.library); err != nil {
		return Grant{}, err
	}
	depth := 1
	if c.Parent.IsZero() {
		if err := verifyRoot(c); err != nil {
			return Grant{}, err
		}
	} else {
		parent, err := v.judge(c.Parent)
		if err != nil {
			return Grant{}, err
		}
		if depth = parent.Depth + 1; depth > MaxChain {
			return Grant{}, fmt.Errorf("%w: longer than %d certificates", ErrChain, MaxChain)
		}
		if err := verifyLink(parent, v.nodes[c.Parent].cert, c); err != nil {
			return Grant{}, err
		}
		if c.Kind == KindMember {
			if err := v.admission(c, id, v.nodes[c.Parent].cert); err != nil {
				return Grant{}, err
			}
		}
	}
	n.state, n.grant = done, grantOf(c, id, depth)
	return n.grant, nil
}

// admission verifies who let the member in, through which invite.
func (v *verifier) admission(c *Cert, id CertID, invite *Cert) error {
	if invite.MaxUses > 0 && c.Admitter != invite.Parent {
		return fmt.Errorf("%w: a counted invite redeemed with another than its issuer", ErrChain)
	}
	var g Grant
	var err error
	switch {
	case c.Admitter.IsZero():
		return fmt.Errorf("%w: member was not admitted", ErrChain)
	case v.nodes[c.Admitter] != nil:
		g, err = v.judge(c.Admitter)
	case v.outside == nil:
		return fmt.Errorf("%w: %s", ErrAdmitter, c.Admitter)
	default:
		if g, err = v.outside(c.Admitter); err != nil {
			err = fmt.Errorf("%w: %s: %w", ErrAdmitter, c.Admitter, err)
		}
	}
	if err != nil {
		return err
	}
	if g.ID != c.Admitter || g.Library != v.library || g.Kind != KindMember {
		return fmt.Errorf("%w: admitter is no member", ErrChain)
	}
	if !g.Rights.Has(Invite) {
		return fmt.Errorf("%w: admitter has no invite right", ErrChain)
	}
	if !verify(g.Subject, admitMessage(id, c.Admitter), &c.AdmitterSignature) {
		return fmt.Errorf("%w: admission not signed by admitter", ErrChain)
	}
	return nil
}

// validate applies the rules that concern one certificate by itself.
func (c *Cert) validate(library [32]byte) error {
	bad := func(what string) error { return fmt.Errorf("%w: %s", ErrChain, what) }
	switch {
	case c.Kind != KindInvite && c.Kind != KindMember:
		return bad("unknown kind")
	case c.Library != library:
		return bad("certificate of another library")
	case !c.Rights.valid():
		return bad("unknown rights, or no right to read")
	case len(c.Scope) > 0:
		return bad("scopes are not known to this version")
	case c.RedeemBy < 0 || c.GrantExp < 0:
		return bad("a date before 1970")
	}
	if err := CheckKey(c.Subject); err != nil {
		return fmt.Errorf("%w: subject: %w", ErrChain, err)
	}
	var zero [32]byte
	if c.Kind == KindInvite {
		switch {
		case c.Author != zero || c.Seal != zero:
			return bad("invite with a member's keys")
		case !c.Admitter.IsZero() || c.AdmitterSignature != [64]byte{}:
			return bad("invite with an admission")
		}
		return nil
	}
	switch {
	case c.RedeemBy != 0 || c.MaxUses != 0:
		return bad("membership with an invite's limits")
	case c.Author == c.Subject:
		return bad("device key used as author key")
	}
	if err := CheckKey(c.Author); err != nil {
		return fmt.Errorf("%w: author: %w", ErrChain, err)
	}
	if err := checkSealKey(c.Seal); err != nil {
		return fmt.Errorf("%w: seal: %w", ErrChain, err)
	}
	return nil
}

// verifyRoot applies the rules of a chain's first certificate.
func verifyRoot(c *Cert) error {
	switch {
	case c.Kind != KindMember:
		return fmt.Errorf("%w: first certificate is no membership", ErrChain)
	case !c.Admitter.IsZero() || c.AdmitterSignature != [64]byte{}:
		return fmt.Errorf("%w: first certificate with an admission", ErrChain)
	case LibraryID(c.Issuer) != c.Library:
		return fmt.Errorf("%w: not issued by the library's owner", ErrChain)
	}
	if err := CheckKey(c.Issuer); err != nil {
		return fmt.Errorf("%w: owner: %w", ErrChain, err)
	}
	if !verify(c.Issuer, c.signed(), &c.Signature) {
		return fmt.Errorf("%w: owner's signature", ErrChain)
	}
	return nil
}

// verifyLink applies the rules that bind a certificate to the one before.
func verifyLink(g Grant, parent, c *Cert) error {
	bad := func(what string) error { return fmt.Errorf("%w: %s", ErrChain, what) }
	switch {
	case c.Kind == parent.Kind:
		return bad("invites and memberships must alternate")
	case c.Issuer != parent.Subject:
		return bad("not issued by the subject of the certificate before")
	case !g.Rights.Has(c.Rights):
		return bad("more rights than the certificate before")
	case c.Kind == KindInvite && !g.Rights.Has(Invite):
		return bad("invited by a member without the invite right")
	case g.GrantExp != 0 && (c.GrantExp == 0 || c.GrantExp > g.GrantExp):
		return bad("outlives the certificate before")
	case !verify(c.Issuer, c.signed(), &c.Signature):
		return bad("issuer's signature")
	}
	return nil
}
