package capability

import (
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

// stream is a reproducible source of bytes for keys and nonces in tests.
type stream struct {
	seed [32]byte
	n    uint64
	rest []byte
}

func newStream(name string) *stream { return &stream{seed: sha256.Sum256([]byte(name))} }

func (s *stream) Read(p []byte) (int, error) {
	for i := range p {
		if len(s.rest) == 0 {
			sum := sha256.Sum256(binary.BigEndian.AppendUint64(s.seed[:], s.n))
			s.rest = sum[:]
			s.n++
		}
		p[i], s.rest = s.rest[0], s.rest[1:]
	}
	return len(p), nil
}

// family is a library with an owner and members, each invited by an earlier one.
type family struct {
	t       testing.TB
	rand    *stream
	owner   SigningKey
	library [32]byte
	chains  map[CertID]Chain
}

// member is a device with its membership.
type member struct {
	dev   Device
	chain Chain
}

func newFamily(t testing.TB, name string) (*family, member) {
	f := &family{t: t, rand: newStream(name), chains: make(map[CertID]Chain)}
	var err error
	f.owner, err = NewSigningKey(f.rand)
	require.NoError(t, err)
	f.library = LibraryID(f.owner.Public())
	dev := f.device()
	root, err := NewRoot(f.owner, dev.Member(f.library), f.rand)
	require.NoError(t, err)
	return f, f.keep(dev, Chain{root})
}

func (f *family) device() Device {
	d, err := NewDevice(f.rand)
	require.NoError(f.t, err)
	return d
}

func (f *family) keep(dev Device, ch Chain) member {
	last := ch.Last()
	f.chains[last.ID()] = ch
	return member{dev: dev, chain: ch}
}

func (m member) id() CertID { c := m.chain.Last(); return c.ID() }

func (m member) grant(f *family) Grant {
	g, err := f.bundle(m.chain).Verify(f.library)
	require.NoError(f.t, err)
	return g
}

func (f *family) invite(by member, o InviteOptions) (Chain, SigningKey) {
	key, err := NewSigningKey(f.rand)
	require.NoError(f.t, err)
	c, err := NewInvite(by.chain, by.dev.Key(), key.Public(), o, f.rand)
	require.NoError(f.t, err)
	return by.chain.With(c), key
}

// join makes a member with the rights, invited by one and admitted by another.
func (f *family) join(by, admitter member, rights Rights) member {
	inv, key := f.invite(by, InviteOptions{Rights: rights})
	dev := f.device()
	c, err := NewMember(inv, key, dev.Member(f.library))
	require.NoError(f.t, err)
	c.Countersign(admitter.id(), admitter.dev.Key())
	return f.keep(dev, inv.With(c))
}

func (f *family) bundle(ch Chain) Bundle {
	b, err := NewBundle(ch, func(id CertID) (Chain, error) {
		if ch, ok := f.chains[id]; ok {
			return ch, nil
		}
		return nil, ErrAdmitter
	})
	require.NoError(f.t, err)
	return b
}
