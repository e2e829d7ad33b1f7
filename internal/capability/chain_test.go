package capability

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestChainOfEveryLengthVerifies(t *testing.T) {
	f, m := newFamily(t, "lengths")
	root := m
	for {
		g, err := m.chain.Verify(f.library, nil)
		require.NoError(t, err)
		require.Equal(t, len(m.chain), g.Depth)
		require.Equal(t, m.dev.PeerID(), g.Peer())
		require.Equal(t, m.dev.Author(f.library).Public(), g.Author)
		require.NoError(t, g.CheckSession(m.dev.PeerID(), time.Unix(0, 0)))
		require.NoError(t, g.CheckAuthor(g.Author, Write))
		if len(m.chain)+2 > MaxChain {
			break
		}
		m = f.join(m, root, AllRights)
	}
	require.Len(t, m.chain, MaxChain-1)
	_, err := NewInvite(m.chain, m.dev.Key(), m.dev.Key().Public(), InviteOptions{}, f.rand)
	require.ErrorIs(t, err, ErrChain)

	long := m.chain
	for len(long) <= MaxChain {
		long = long.With(long.Last())
	}
	_, err = long.Verify(f.library, nil)
	require.ErrorIs(t, err, ErrChain)
	_, err = Chain{}.Verify(f.library, nil)
	require.ErrorIs(t, err, ErrChain)
}

// mutations changes every exported field of a certificate in turn: every bit of
// a number, every byte of an array.
func mutations(t *testing.T, c Cert, try func(name string, c Cert)) {
	t.Helper()
	typ := reflect.TypeOf(c)
	for i := range typ.NumField() {
		name, n := typ.Field(i).Name, 0
		change := func(set func(v reflect.Value)) {
			m := c
			set(reflect.ValueOf(&m).Elem().Field(i))
			try(name, m)
			n++
		}
		switch k := typ.Field(i).Type.Kind(); k {
		case reflect.Uint8, reflect.Uint16:
			for bit := range typ.Field(i).Type.Bits() {
				change(func(v reflect.Value) { v.SetUint(v.Uint() ^ 1<<bit) })
			}
		case reflect.Int64:
			for bit := range 64 {
				change(func(v reflect.Value) { v.SetInt(v.Int() ^ 1<<bit) })
			}
		case reflect.Array:
			for j := range typ.Field(i).Type.Len() {
				change(func(v reflect.Value) { e := v.Index(j); e.SetUint(e.Uint() ^ 1<<(j%8)) })
			}
			change(func(v reflect.Value) { v.SetZero() })
		case reflect.Slice:
			change(func(v reflect.Value) { v.SetBytes([]byte{0}) })
		default:
			t.Fatalf("field %s of kind %s is not mutated", name, k)
		}
		require.Positive(t, n)
	}
}

func TestEveryFieldOfEveryCertificateIsBound(t *testing.T) {
	f, root := newFamily(t, "fields")
	a := f.join(root, root, AllRights)
	b := f.join(a, root, Read|Write)
	_, err := b.chain.Verify(f.library, nil)
	require.NoError(t, err)
	for i := range b.chain {
		mutations(t, b.chain[i], func(name string, c Cert) {
			if reflect.DeepEqual(c, b.chain[i]) {
				return // zeroing what is zero
			}
			ch := append(Chain(nil), b.chain...)
			ch[i] = c
			_, err := ch.Verify(f.library, nil)
			if err == nil || !errors.Is(err, ErrChain) && !errors.Is(err, ErrAdmitter) {
				t.Errorf("certificate %d, field %s: %v", i, name, err)
			}
		})
	}
}

// The signature protects against strangers; the rules must also hold against an
// issuer who signs what the rules forbid.
func TestIssuerCannotGiveWhatRulesForbid(t *testing.T) {
	f, root := newFamily(t, "issuer")
	other, otherRoot := newFamily(t, "other library")
	writer := f.join(root, root, Read|Write|Invite)
	plain := f.join(root, root, Read|Write)
	exp := time.Unix(2_000_000_000, 0)
	inv, key := f.invite(writer, InviteOptions{Rights: Read | Write, GrantExp: exp})
	invited := f.device()
	good, err := NewMember(inv, key, invited.Member(f.library))
	require.NoError(t, err)
	admit := func(c *Cert) { c.Countersign(root.id(), root.dev.Key()) }
	admit(&good)
	_, err = inv.With(good).Verify(f.library, nil)
	require.NoError(t, err)

	resigned := func(change func(c *Cert)) Chain {
		c := good
		change(&c)
		c.sign(key)
		if !c.Admitter.IsZero() {
			admit(&c)
		}
		return inv.With(c)
	}
	reinvited := func(by member, change func(c *Cert)) Chain {
		c := inv.Last()
		c.Issuer, c.Parent = by.chain.Last().Subject, by.id()
		change(&c)
		c.sign(by.dev.Key())
		m := good
		m.Parent, m.Rights, m.GrantExp = c.ID(), c.Rights, c.GrantExp
		m.sign(key)
		admit(&m)
		return by.chain.With(c).With(m)
	}
	for name, ch := range map[string]Chain{
		"more rights than invite":       resigned(func(c *Cert) { c.Rights = AllRights }),
		"unknown right":                 resigned(func(c *Cert) { c.Rights |= 16 }),
		"no read right":                 resigned(func(c *Cert) { c.Rights = Write }),
		"no rights":                     resigned(func(c *Cert) { c.Rights = 0 }),
		"outlives invite":               resigned(func(c *Cert) { c.GrantExp++ }),
		"no end under an end":           resigned(func(c *Cert) { c.GrantExp = 0 }),
		"negative end":                  resigned(func(c *Cert) { c.GrantExp = -1 }),
		"member with redeem_by":         resigned(func(c *Cert) { c.RedeemBy = 5 }),
		"member with max_uses":          resigned(func(c *Cert) { c.MaxUses = 1 }),
		"scope":                         resigned(func(c *Cert) { c.Scope = []byte("x") }),
		"other parent":                  resigned(func(c *Cert) { c.Parent = root.id() }),
		"no parent":                     resigned(func(c *Cert) { c.Parent = CertID{} }),
		"other library":                 resigned(func(c *Cert) { c.Library = other.library }),
		"author is device":              resigned(func(c *Cert) { c.Author = c.Subject }),
		"author of small order":         resigned(func(c *Cert) { c.Author = [32]byte{1} }),
		"author zero":                   resigned(func(c *Cert) { c.Author = [32]byte{} }),
		"device of small order":         resigned(func(c *Cert) { c.Subject = [32]byte{1} }),
		"seal of small order":           resigned(func(c *Cert) { c.Seal = [32]byte{} }),
		"invite after invite":           resigned(func(c *Cert) { c.Kind = KindInvite; c.Admitter = CertID{} }),
		"unknown kind":                  resigned(func(c *Cert) { c.Kind = 3 }),
		"not admitted":                  resigned(func(c *Cert) { c.Admitter = CertID{}; c.AdmitterSignature = [64]byte{} }),
		"invited without right":         reinvited(plain, func(*Cert) {}),
		"invite with admin by writer":   reinvited(writer, func(c *Cert) { c.Rights |= Admin }),
		"invite with author":            reinvited(writer, func(c *Cert) { c.Author = good.Author }),
		"invite with seal":              reinvited(writer, func(c *Cert) { c.Seal = good.Seal }),
		"invite with unknown rights":    reinvited(writer, func(c *Cert) { c.Rights |= 128 }),
		"invite with scope":             reinvited(writer, func(c *Cert) { c.Scope = []byte{1} }),
		"invite with negative redeem":   reinvited(writer, func(c *Cert) { c.RedeemBy = -1 }),
		"counted, admitted by another":  reinvited(writer, func(c *Cert) { c.MaxUses = 3 }),
		"of another library altogether": otherRoot.chain,
		"invite first":                  Chain{inv.Last(), good},
		"member in the middle missing":  Chain{inv[0], inv[1], good},
		"two roots":                     {root.chain[0], root.chain[0]},
	} {
		_, err := ch.Verify(f.library, nil)
		require.ErrorIs(t, err, ErrChain, name)
	}
	require.NotErrorIs(t, func() error {
		_, err := reinvited(writer, func(*Cert) {}).Verify(f.library, nil)
		return err
	}(), ErrChain, "the table's own helper makes valid chains")
	// A counted invite is good with its issuer's admission.
	c := inv.Last()
	c.MaxUses = 3
	c.sign(writer.dev.Key())
	m := good
	m.Parent = c.ID()
	m.sign(key)
	m.Countersign(writer.id(), writer.dev.Key())
	_, err = writer.chain.With(c).With(m).Verify(f.library, nil)
	require.NoError(t, err)
}

func TestRootRules(t *testing.T) {
	f, root := newFamily(t, "root rules")
	good := root.chain[0]
	resign := func(change func(c *Cert), key SigningKey) Chain {
		c := good
		change(&c)
		c.sign(key)
		return Chain{c}
	}
	stranger, err := NewSigningKey(f.rand)
	require.NoError(t, err)
	for name, ch := range map[string]Chain{
		"signed by another":   resign(func(*Cert) {}, stranger),
		"issued by another":   resign(func(c *Cert) { c.Issuer = stranger.Public() }, stranger),
		"an invite":           resign(func(c *Cert) { c.Kind = KindInvite; c.Author = [32]byte{}; c.Seal = [32]byte{} }, f.owner),
		"with an admitter":    resign(func(c *Cert) { c.Admitter = CertID{1} }, f.owner),
		"with an admission":   resign(func(c *Cert) { c.AdmitterSignature[0] = 1 }, f.owner),
		"with a parent":       resign(func(c *Cert) { c.Parent = CertID{1} }, f.owner),
		"without read":        resign(func(c *Cert) { c.Rights = Write }, f.owner),
		"small-order subject": resign(func(c *Cert) { c.Subject = [32]byte{1} }, f.owner),
	} {
		_, err := ch.Verify(f.library, nil)
		require.ErrorIs(t, err, ErrChain, name)
	}
}

func TestAdmission(t *testing.T) {
	f, root := newFamily(t, "admission")
	inviter := f.join(root, root, Read|Invite)
	reader := f.join(root, root, Read)
	outsider := f.join(root, root, Read|Invite)

	known := func(ms ...member) func(CertID) (Grant, error) {
		return func(id CertID) (Grant, error) {
			for _, m := range ms {
				if m.id() == id {
					return m.grant(f), nil
				}
			}
			return Grant{}, errors.New("not in the control set")
		}
	}
	m := f.join(inviter, outsider, Read)
	_, err := m.chain.Verify(f.library, known(outsider))
	require.NoError(t, err)
	_, err = m.chain.Verify(f.library, known(reader))
	require.ErrorIs(t, err, ErrAdmitter)
	require.ErrorContains(t, err, "not in the control set")
	_, err = m.chain.Verify(f.library, nil)
	require.ErrorIs(t, err, ErrAdmitter)
	_, err = m.chain.Verify(f.library, func(CertID) (Grant, error) { return root.grant(f), nil })
	require.ErrorIs(t, err, ErrChain, "the grant of another certificate")

	byReader := f.join(inviter, reader, Read)
	_, err = byReader.chain.Verify(f.library, known(reader))
	require.ErrorIs(t, err, ErrChain, "admitter without the invite right")

	// A ticket's holder cannot mint members: not by admitting itself, nor a pair
	// that admits each other, nor by one further down.
	inv, key := f.invite(inviter, InviteOptions{Rights: Read | Invite})
	mint := func() (Device, Cert) {
		d := f.device()
		c, err := NewMember(inv, key, d.Member(f.library))
		require.NoError(t, err)
		return d, c
	}
	d1, c1 := mint()
	d2, c2 := mint()
	self := c1
	self.Countersign(c1.ID(), d1.Key())
	_, err = inv.With(self).Verify(f.library, known())
	require.ErrorIs(t, err, ErrChain)
	c1.Countersign(c2.ID(), d2.Key())
	c2.Countersign(c1.ID(), d1.Key())
	_, err = Bundle{Chain: inv.With(c1), Support: []Cert{c2}}.Verify(f.library)
	require.ErrorIs(t, err, ErrChain)
	below := f.join(member{d1, inv.With(c1)}, root, Read|Invite)
	ch := append(Chain(nil), below.chain...)
	ch[len(inv)].Countersign(below.id(), below.dev.Key())
	_, err = ch.Verify(f.library, known())
	require.ErrorIs(t, err, ErrChain)
}

func TestTimeIsJudgedOnlyWhereAsked(t *testing.T) {
	f, root := newFamily(t, "time")
	end := time.Unix(1_900_000_000, 0)
	inv, key := f.invite(root, InviteOptions{Rights: Write, RedeemBy: end.Add(-time.Hour), GrantExp: end})
	dev := f.device()
	c, err := NewMember(inv, key, dev.Member(f.library))
	require.NoError(t, err)
	c.Countersign(root.id(), root.dev.Key())
	g, err := inv.With(c).Verify(f.library, nil)
	require.NoError(t, err)
	require.Equal(t, end.Unix(), g.GrantExp)
	require.True(t, g.ValidAt(end, 0))
	require.False(t, g.ValidAt(end.Add(time.Second), 0))
	require.NoError(t, g.CheckSession(dev.PeerID(), end.Add(SessionTolerance)))
	require.ErrorIs(t, g.CheckSession(dev.PeerID(), end.Add(SessionTolerance+time.Second)), ErrExpired)
	require.ErrorIs(t, g.CheckSession(root.dev.PeerID(), end), ErrOtherPeer)
	require.ErrorIs(t, g.CheckAuthor(g.Author, Admin), ErrRights)
	require.ErrorIs(t, g.CheckAuthor(g.Subject, Read), ErrChain)

	gi, err := inv.Verify(f.library, nil)
	require.NoError(t, err)
	require.ErrorIs(t, gi.CheckSession(dev.PeerID(), end), ErrChain)
	require.ErrorIs(t, gi.CheckAuthor([32]byte{}, Read), ErrChain)
	require.True(t, gi.RedeemableAt(end.Add(-time.Hour)))
	require.False(t, gi.RedeemableAt(end.Add(-time.Hour+time.Second)))
	require.False(t, g.RedeemableAt(end.Add(-time.Hour)))
}

func TestBundleCarriesAdmittersOfAdmitters(t *testing.T) {
	f, root := newFamily(t, "bundle")
	a := f.join(root, root, AllRights)
	b := f.join(root, a, AllRights)
	c := f.join(b, b, AllRights)
	d := f.join(a, c, Read)
	bun := f.bundle(d.chain)
	g, err := bun.Verify(f.library)
	require.NoError(t, err)
	require.Equal(t, d.id(), g.ID)
	require.Len(t, bun.Support, 4, "two certificates of b, two of c")
	_, err = bun.VerifyPeer(f.library, d.dev.PeerID(), time.Unix(1, 0))
	require.NoError(t, err)
	_, err = bun.VerifyPeer(f.library, c.dev.PeerID(), time.Unix(1, 0))
	require.ErrorIs(t, err, ErrOtherPeer)

	back, err := DecodeBundle(bun.Encode())
	require.NoError(t, err)
	require.Equal(t, bun, back)

	// Taken in the order of Chains, every chain verifies from what came before.
	known := make(map[CertID]Grant)
	chains := bun.Chains()
	require.Len(t, chains, len(bun.Chain)+len(bun.Support))
	for _, ch := range chains {
		g, err := ch.Verify(f.library, func(id CertID) (Grant, error) {
			if g, ok := known[id]; ok {
				return g, nil
			}
			return Grant{}, errors.New("unknown")
		})
		require.NoError(t, err)
		known[g.ID] = g
	}
	for i := range bun.Support {
		less := Bundle{Chain: bun.Chain}
		less.Support = append(append(less.Support, bun.Support[:i]...), bun.Support[i+1:]...)
		_, err := less.Verify(f.library)
		require.Error(t, err)
	}
	swapped := Bundle{Chain: bun.Chain, Support: append([]Cert(nil), bun.Support...)}
	swapped.Support[0], swapped.Support[1] = swapped.Support[1], swapped.Support[0]
	_, err = swapped.Verify(f.library)
	require.ErrorIs(t, err, ErrChain)
	more := Bundle{Chain: root.chain, Support: bun.Support[:1]}
	_, err = more.Verify(f.library)
	require.ErrorIs(t, err, ErrChain)
}
