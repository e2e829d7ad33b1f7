package control

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/record"
)

var start = time.UnixMilli(1_700_000_000_000)

// world is a library with an owner and as many members as a test likes, each of
// which has the keys to do right and wrong. All of it follows from fixed seeds.
type world struct {
	t     require.TestingT
	rand  *rand.ChaCha8
	lib   [32]byte
	owner *actor
	clock record.Clock
}

// actor is a member with its keys and chain.
type actor struct {
	w      *world
	device capability.Device
	chain  capability.Chain
	// joined are the records that let it in: of the invite, if any, and of the
	// membership.
	joined []record.Record
}

func newWorld(t require.TestingT) *world {
	w := &world{t: t, rand: rand.NewChaCha8([32]byte{1}), clock: record.ClockAt(start)}
	key, err := capability.NewSigningKey(w.rand)
	require.NoError(t, err)
	w.lib = capability.LibraryID(key.Public())
	a := w.actor()
	root, err := capability.NewRoot(key, a.device.Member(w.lib), w.rand)
	require.NoError(t, err)
	a.chain = capability.Chain{root}
	d, err := NewMember(w.tick(), root)
	require.NoError(t, err)
	a.joined = []record.Record{a.sign(d)}
	w.owner = a
	return w
}

func (w *world) actor() *actor {
	d, err := capability.NewDevice(w.rand)
	require.NoError(w.t, err)
	return &actor{w: w, device: d}
}

func (w *world) tick() record.Clock {
	w.clock++
	return w.clock
}

func (a *actor) cert() capability.CertID {
	c := a.chain.Last()
	return c.ID()
}

func (a *actor) sign(d record.Draft) record.Record {
	rs, err := record.SignWith(a.device.Author(a.w.lib), []record.Draft{d})
	require.NoError(a.w.t, err)
	return rs[0]
}

func (a *actor) describe(name string, clock record.Clock) record.Record {
	d, err := NewDescription(clock, a.w.lib, a.cert(), Description{Name: name})
	require.NoError(a.w.t, err)
	return a.sign(d)
}

func (a *actor) secret() capability.Secret {
	s, err := capability.NewSecret(a.w.rand)
	require.NoError(a.w.t, err)
	return s
}

// invite returns an invite certificate with its key and the record about it.
func (a *actor) invite(o capability.InviteOptions) (capability.Chain, capability.SigningKey, record.Record) {
	key, err := capability.NewSigningKey(a.w.rand)
	require.NoError(a.w.t, err)
	c, err := capability.NewInvite(a.chain, a.device.Key(), key.Public(), o, a.w.rand)
	require.NoError(a.w.t, err)
	d, err := NewInvite(a.w.tick(), c, a.secret())
	require.NoError(a.w.t, err)
	return a.chain.With(c), key, a.sign(d)
}

// admit lets a new actor in by a's own invite.
func (a *actor) admit(rights capability.Rights) *actor {
	return a.admitBy(a, capability.InviteOptions{Rights: rights}, 0)
}

func (a *actor) admitBy(door *actor, o capability.InviteOptions, clock record.Clock) *actor {
	invite, key, rec := a.invite(o)
	b := a.w.actor()
	c, err := capability.NewMember(invite, key, b.device.Member(a.w.lib))
	require.NoError(a.w.t, err)
	if clock == 0 {
		clock = a.w.tick()
	}
	member := door.countersign(&c, clock)
	b.chain = invite.With(c)
	b.joined = []record.Record{rec, member}
	return b
}

func (a *actor) countersign(c *capability.Cert, clock record.Clock) record.Record {
	c.Countersign(a.cert(), a.device.Key())
	d, err := NewMember(clock, *c)
	require.NoError(a.w.t, err)
	return a.sign(d)
}

func (a *actor) announce(name string, kind record.Kind, clock record.Clock) record.Header {
	asset := can.Digest(sha256.Sum256([]byte(name)))
	d := record.Removal(clock, a.w.lib, asset, a.cert())
	if kind != record.Tombstone {
		var err error
		d, err = record.Asset(kind, clock, a.w.lib, asset, a.cert(), record.AssetBody{Filename: name})
		require.NoError(a.w.t, err)
	}
	return a.sign(d).Header
}

func addAll(t require.TestingT, s *State, rs ...record.Record) {
	for _, r := range rs {
		_, err := s.Add(r)
		require.NoError(t, err, r.Kind)
	}
}

// requireSame compares everything that a state shows.
func requireSame(t require.TestingT, a, b *State) {
	require.Equal(t, a.Digest(), b.Digest())
	require.Equal(t, a.Len(), b.Len())
	require.Equal(t, a.Members(), b.Members())
	da, ia, oka := a.Description()
	db, ib, okb := b.Description()
	require.Equal(t, oka, okb)
	require.Equal(t, ia, ib)
	require.True(t, da.Equal(db))
	ia2, ib2 := a.OpenInvites(start.Unix()), b.OpenInvites(start.Unix())
	require.Len(t, ib2, len(ia2))
	for i := range ia2 {
		require.True(t, ia2[i].Secret.Equal(ib2[i].Secret))
		require.Equal(t, ia2[i].Record, ib2[i].Record)
	}
}

func TestALibraryFromNothing(t *testing.T) {
	w := newWorld(t)
	s := New(w.lib)
	_, _, ok := s.Description()
	require.False(t, ok)
	empty := s.Digest()
	require.ErrorIs(t, s.Check(w.owner.announce("a", record.Announce, w.tick())), ErrUnknownCert)
	_, err := s.Grant(w.owner.cert())
	require.ErrorIs(t, err, ErrUnknownCert)
	_, err = s.Chain(w.owner.cert())
	require.ErrorIs(t, err, ErrUnknownCert)

	writer := w.owner.admit(capability.Write | capability.Invite)
	deep := writer.admit(capability.Write)
	addAll(t, s, w.owner.joined...)
	addAll(t, s, w.owner.describe("pictures", w.tick()))
	addAll(t, s, writer.joined...)
	addAll(t, s, deep.joined...)
	require.NotEqual(t, empty, s.Digest())
	require.Zero(t, s.Waiting())

	d, id, ok := s.Description()
	require.True(t, ok)
	require.Equal(t, "pictures", d.Name)
	require.True(t, s.Has(id))
	members := s.Members()
	require.Len(t, members, 3)
	require.Equal(t, w.owner.cert(), members[0].ID)
	require.True(t, members[0].Admitter.IsZero())
	require.Equal(t, writer.cert(), members[1].ID)
	require.Equal(t, writer.device.Key().Public(), members[1].Device)
	require.Equal(t, w.owner.cert(), members[1].Admitter)
	require.Equal(t, writer.chain[1].ID(), members[1].Invite)
	require.Equal(t, writer.cert(), members[2].Admitter)
	require.Len(t, s.OpenInvites(start.Unix()), 2)

	for _, a := range []*actor{w.owner, writer, deep} {
		require.NoError(t, s.Check(a.announce("a", record.Announce, w.tick())))
		require.NoError(t, s.Check(a.announce("a", record.Edit, w.tick())))
		require.NoError(t, s.Check(a.announce("a", record.Tombstone, w.tick())))
		ch, err := s.Chain(a.cert())
		require.NoError(t, err)
		require.Equal(t, a.chain.Encode(), ch.Encode())
		// What the set gives out convinces a stranger.
		b, err := capability.NewBundle(ch, s.Chain)
		require.NoError(t, err)
		g, err := b.Verify(w.lib)
		require.NoError(t, err)
		have, err := s.Grant(a.cert())
		require.NoError(t, err)
		require.Equal(t, g, have)
	}
	// Given out in the order of Records, nothing waits.
	other := New(w.lib)
	for r := range s.Records() {
		changed, err := other.Add(r)
		require.NoError(t, err)
		require.True(t, changed)
		changed, err = other.Add(r)
		require.NoError(t, err)
		require.False(t, changed, "twice")
		require.Zero(t, other.Waiting())
		got, ok := other.Get(r.ID())
		require.True(t, ok)
		require.Equal(t, r, got)
	}
	requireSame(t, s, other)
}

func forge(t *testing.T, a *actor, d record.Draft) record.Record {
	rs, err := record.Sign(ed25519.NewKeyFromSeed(seedOf(a)), []record.Draft{d})
	require.NoError(t, err)
	return rs[0]
}

func seedOf(a *actor) []byte {
	s := a.device.Author(a.w.lib).Seed()
	return bytes.Clone(s[:])
}

func name(i int) string { return fmt.Sprintf("name %d", i) }
