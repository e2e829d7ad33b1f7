package capability

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/wire"
)

func TestDecodeCertRefuses(t *testing.T) {
	f, root := newFamily(t, "decode")
	m := f.join(root, root, Write)
	for _, c := range m.chain {
		good := c.Encode()
		back, err := DecodeCert(good)
		require.NoError(t, err)
		require.Equal(t, c, back)
		for n := range good {
			_, err := DecodeCert(good[:n])
			require.ErrorIs(t, err, wire.ErrMalformed, "cut at %d", n)
		}
		_, err = DecodeCert(append(bytes.Clone(good), 0))
		require.ErrorIs(t, err, wire.ErrMalformed)
		scope := len(good) - 64 - 2
		if c.Kind == KindMember {
			scope -= 96
		}
		for name, at := range map[string]struct {
			pos int
			b   byte
		}{
			"magic": {0, 'X'}, "version": {4, 2}, "kind 0": {5, 0}, "kind 3": {5, 3},
			"unknown right": {166, 0x11}, "no read": {166, 2}, "no rights": {166, 0}, "scope beyond limit": {scope, 5},
		} {
			b := bytes.Clone(good)
			b[at.pos] = at.b
			_, err := DecodeCert(b)
			require.ErrorIs(t, err, wire.ErrMalformed, name)
		}
	}
	_, err := DecodeCert(make([]byte, certMax+1))
	require.ErrorIs(t, err, wire.ErrMalformed)
	c := m.chain.Last()
	c.Scope = bytes.Repeat([]byte{7}, MaxScope)
	require.Len(t, c.Encode(), certMax)
	back, err := DecodeCert(c.Encode())
	require.NoError(t, err, "the field is read, so that a scope is refused for what it is")
	require.Equal(t, c, back)
	_, err = m.chain[:2].With(c).Verify(f.library, nil)
	require.ErrorIs(t, err, ErrChain)
}

func TestDecodersBoundCounts(t *testing.T) {
	_, root := newFamily(t, "counts")
	one := root.chain[0]
	many := make([]Cert, MaxBundleCerts+1)
	for i := range many {
		many[i] = one
	}
	_, err := DecodeChain(appendCerts(nil, many[:MaxChain+1]))
	require.ErrorIs(t, err, wire.ErrMalformed)
	_, err = DecodeChain(appendCerts(nil, nil))
	require.ErrorIs(t, err, wire.ErrMalformed)
	_, err = DecodeChain(appendCerts(nil, many[:MaxChain]))
	require.NoError(t, err)
	_, err = DecodeBundle(Bundle{Chain: many[:1], Support: many}.Encode())
	require.ErrorIs(t, err, wire.ErrMalformed)
	_, err = DecodeBundle(Bundle{Support: many[:1]}.Encode())
	require.ErrorIs(t, err, wire.ErrMalformed)
	_, err = DecodeBundle(make([]byte, MaxBundle+1))
	require.ErrorIs(t, err, wire.ErrMalformed)
	_, err = (Bundle{Chain: many[:1], Support: many}).Verify(one.Library)
	require.ErrorIs(t, err, ErrChain)
	_, err = (Bundle{Chain: many[:1], Support: many[:1]}).Verify(one.Library)
	require.ErrorIs(t, err, ErrChain)
}

func FuzzCert(f *testing.F) {
	fam, root := newFamily(f, "fuzz cert")
	m := fam.join(root, root, Write)
	for _, c := range m.chain {
		f.Add(c.Encode())
		f.Add(c.Encode()[:200])
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		c, err := DecodeCert(p)
		if err != nil {
			require.ErrorIs(t, err, wire.ErrMalformed)
			return
		}
		require.Equal(t, p, c.Encode())
	})
}

func FuzzChain(f *testing.F) {
	fam, root := newFamily(f, "fuzz chain")
	m := fam.join(root, root, Write)
	good := m.chain.Encode()
	ids := m.chain.IDs()
	f.Add(good)
	f.Add(root.chain.Encode())
	f.Add([]byte{0, 0})
	f.Fuzz(func(t *testing.T, p []byte) {
		ch, err := DecodeChain(p)
		if err != nil {
			require.ErrorIs(t, err, wire.ErrMalformed)
			return
		}
		require.Equal(t, p, ch.Encode())
		// Whatever verifies is a certificate the fixture signed.
		if g, err := ch.Verify(fam.library, nil); err == nil {
			require.Contains(t, ids, g.ID)
		}
	})
}

func FuzzBundle(f *testing.F) {
	fam, root := newFamily(f, "fuzz bundle")
	a := fam.join(root, root, AllRights)
	b := fam.join(root, a, Read)
	f.Add(fam.bundle(b.chain).Encode())
	f.Add(fam.bundle(root.chain).Encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		bun, err := DecodeBundle(p)
		if err != nil {
			require.ErrorIs(t, err, wire.ErrMalformed)
			return
		}
		require.Equal(t, p, bun.Encode())
		bun.Chains()
		if g, err := bun.Verify(fam.library); err == nil {
			require.Contains(t, []CertID{root.id(), a.id(), b.id(), b.chain[1].ID(), a.chain[1].ID()}, g.ID)
		}
	})
}

func FuzzCredential(f *testing.F) {
	fam, root := newFamily(f, "fuzz credential")
	f.Add(Credential{Handle: 7, Bundle: fam.bundle(root.chain)}.Encode())
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, p []byte) {
		c, err := DecodeCredential(p)
		if err != nil {
			require.ErrorIs(t, err, wire.ErrMalformed)
			return
		}
		require.Equal(t, p, c.Encode())
	})
}

func FuzzJoinRequest(f *testing.F) {
	fam, root := newFamily(f, "fuzz join")
	q, err := NewJoinRequest(fam.ticket(root, InviteOptions{}), fam.device(), [32]byte{1})
	require.NoError(f, err)
	f.Add(q.Encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		q, err := DecodeJoinRequest(p)
		if err != nil {
			require.ErrorIs(t, err, wire.ErrMalformed)
			return
		}
		require.Equal(t, p, q.Encode())
	})
}

func FuzzJoinReply(f *testing.F) {
	fam, root := newFamily(f, "fuzz reply")
	m := fam.join(root, root, Read)
	f.Add(JoinReply{Member: fam.bundle(m.chain), Sealed: make([]byte, SealedEpochSize)}.Encode())
	f.Add(JoinReply{Refusal: RefusedExpired}.Encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		r, err := DecodeJoinReply(p)
		if err != nil {
			require.ErrorIs(t, err, wire.ErrMalformed)
			return
		}
		require.Equal(t, p, r.Encode())
		_, _, err = r.Open(JoinRequest{}, m.dev)
		require.Error(t, err)
	})
}
