package control

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/record"
)

// A reader signs what only a writer may, and forges what would let it.
func TestAReaderCannotWrite(t *testing.T) {
	w := newWorld(t)
	s := New(w.lib)
	reader := w.owner.admit(capability.Read)
	addAll(t, s, w.owner.joined...)
	addAll(t, s, w.owner.describe("ours", w.tick()))
	addAll(t, s, reader.joined...)

	for _, k := range []record.Kind{record.Announce, record.Edit, record.Tombstone} {
		err := s.Check(reader.announce("a", k, w.tick()))
		require.ErrorIs(t, err, ErrForbidden, k)
		require.ErrorIs(t, err, capability.ErrRights)
	}
	// Under another's certificate.
	h := reader.announce("a", record.Announce, w.tick())
	h.Cert = w.owner.cert()
	require.ErrorIs(t, s.Check(h), ErrForbidden)
	// Under the invite it came by.
	h.Cert = reader.chain[1].ID()
	require.ErrorIs(t, s.Check(h), ErrForbidden)

	refused := map[string]record.Record{"a description": reader.describe("mine", w.tick())}
	// Its own certificate with more rights, signed by the invite's key it once had
	// or by itself.
	raised := reader.chain.Last()
	raised.Rights = capability.AllRights
	d, err := NewMember(w.tick(), raised)
	require.NoError(t, err)
	d.Cert = raised.Admitter
	refused["raised rights"] = forge(t, reader, d)
	// An invite of its own making.
	c := capability.Cert{
		Kind: capability.KindInvite, Library: w.lib, Issuer: reader.device.Key().Public(),
		Subject: reader.device.Key().Public(), Rights: capability.Read, Parent: reader.cert(),
	}
	d, err = NewInvite(w.tick(), c, reader.secret())
	require.NoError(t, err)
	refused["an invite"] = reader.sign(d)
	// A membership it admits itself.
	invite, key, rec := w.owner.invite(capability.InviteOptions{Rights: capability.Write})
	addAll(t, s, rec)
	before := s.Digest()
	m, err := capability.NewMember(invite, key, reader.device.Member(w.lib))
	require.NoError(t, err)
	refused["an admission"] = reader.countersign(&m, w.tick())
	// A root of another owner for this library.
	fake, err := capability.NewSigningKey(w.rand)
	require.NoError(t, err)
	root, err := capability.NewRoot(fake, reader.device.Member(w.lib), w.rand)
	require.NoError(t, err)
	root.Library = w.lib
	d, err = NewMember(w.tick(), root)
	require.NoError(t, err)
	refused["a root"] = reader.sign(d)

	for what, r := range refused {
		changed, err := s.Add(r)
		require.ErrorIs(t, err, ErrForbidden, what)
		require.False(t, changed)
		require.False(t, s.Has(r.ID()), what)
	}
	require.Equal(t, before, s.Digest())
	require.Zero(t, s.Waiting())
}

// The secret of an invite is told by who issued it and nobody else.
func TestOnlyTheIssuerSpeaksOfAnInvite(t *testing.T) {
	w := newWorld(t)
	s := New(w.lib)
	other := w.owner.admit(capability.AllRights)
	addAll(t, s, w.owner.joined...)
	addAll(t, s, other.joined...)
	ch, _, rec := w.owner.invite(capability.InviteOptions{Rights: capability.Read})
	addAll(t, s, rec)
	want := s.OpenInvites(start.Unix())[0].Secret
	d, err := NewInvite(w.tick(), ch.Last(), other.secret())
	require.NoError(t, err)
	d.Cert = other.cert()
	_, err = s.Add(other.sign(d))
	require.ErrorIs(t, err, ErrForbidden)
	require.True(t, want.Equal(s.OpenInvites(start.Unix())[0].Secret))
	// The issuer may correct itself.
	d, err = NewInvite(w.tick(), ch.Last(), w.owner.secret())
	require.NoError(t, err)
	addAll(t, s, w.owner.sign(d))
	require.False(t, want.Equal(s.OpenInvites(start.Unix())[0].Secret))
}

// What a hostile writer does leaves the honest members' state as it was.
func TestAHostileWriterChangesNothingOfOthers(t *testing.T) {
	w := newWorld(t)
	s := New(w.lib)
	evil := w.owner.admit(capability.Write)
	addAll(t, s, w.owner.joined...)
	addAll(t, s, w.owner.describe("ours", w.tick()))
	addAll(t, s, evil.joined...)
	before := s.Digest()
	for _, clock := range []record.Clock{0, 1, w.tick(), math.MaxUint64} {
		_, err := s.Add(evil.describe("evil", clock))
		require.ErrorIs(t, err, ErrForbidden)
		require.NoError(t, s.Check(evil.announce("x", record.Edit, clock)), "its own assets it may edit")
		require.Equal(t, clock == math.MaxUint64, record.Deferred(record.Header{Clock: clock}, start))
	}
	_, err := NewDescription(w.tick(), w.lib, evil.cert(), Description{Name: strings.Repeat("n", 64<<10)})
	require.ErrorIs(t, err, ErrInvalid)
	// Kinds to come are refused, not guessed at; so are asset records.
	for _, k := range []record.Kind{record.Revocation, record.Epoch, record.InviteClose} {
		r := evil.sign(record.Draft{Kind: k, Clock: w.tick(), Library: w.lib, Subject: w.lib, Cert: evil.cert(), Body: []byte{1}})
		_, err := s.Add(r)
		require.ErrorIs(t, err, ErrKind)
		require.ErrorIs(t, s.Check(r.Header), ErrKind)
	}
	_, err = s.Add(evil.sign(record.Removal(w.tick(), w.lib, [32]byte{1}, evil.cert())))
	require.ErrorIs(t, err, ErrKind)
	// Bodies that are none.
	for _, k := range []record.Kind{record.Description, record.Invite, record.Member} {
		d := record.Draft{Kind: k, Clock: w.tick(), Library: w.lib, Cert: evil.cert(), Body: []byte("nonsense")}
		if k != record.Description {
			d.Subject = [32]byte{1}
		}
		_, err := s.Add(evil.sign(d))
		require.ErrorIs(t, err, ErrInvalid)
	}
	require.Equal(t, before, s.Digest())
}

func TestRecordsOfAnotherLibrary(t *testing.T) {
	w := newWorld(t)
	s := New([32]byte{9})
	for _, r := range append(w.owner.joined, w.owner.describe("x", w.tick())) {
		_, err := s.Add(r)
		require.ErrorIs(t, err, ErrForbidden)
	}
	require.Zero(t, s.Len())
	// A certificate of another library in a record of this one.
	d, err := NewMember(w.tick(), w.owner.chain.Last())
	require.NoError(t, err)
	d.Library = [32]byte{9}
	_, err = s.Add(w.owner.sign(d))
	require.ErrorIs(t, err, ErrInvalid)
	// A certificate under another's name.
	s = New(w.lib)
	d.Library, d.Subject = w.lib, [32]byte{1}
	_, err = s.Add(w.owner.sign(d))
	require.ErrorIs(t, err, ErrInvalid)
}

// A membership's end is judged by the record's own clock, an invite's by that of
// the admission.
func TestEndsAreJudgedByTheRecordsClock(t *testing.T) {
	w := newWorld(t)
	s := New(w.lib)
	end := start.Add(time.Hour).Truncate(time.Second)
	guest := w.owner.admitBy(w.owner, capability.InviteOptions{Rights: capability.Write, GrantExp: end, RedeemBy: end}, 0)
	addAll(t, s, w.owner.joined...)
	addAll(t, s, guest.joined...)
	last := record.ClockAt(end.Add(999 * time.Millisecond))
	require.NoError(t, s.Check(guest.announce("a", record.Announce, last)))
	require.ErrorIs(t, s.Check(guest.announce("a", record.Announce, record.ClockAt(end.Add(time.Second)))), ErrExpired)
	require.Len(t, s.OpenInvites(end.Unix()), 1)
	require.Empty(t, s.OpenInvites(end.Unix()+1))
	require.Len(t, s.Members(), 2)

	o := capability.InviteOptions{Rights: capability.Write, RedeemBy: end}
	late := w.owner.admitBy(w.owner, o, record.ClockAt(end.Add(record.MaxFuture+time.Second)))
	addAll(t, s, late.joined[0])
	_, err := s.Add(late.joined[1])
	require.ErrorIs(t, err, ErrExpired)
	_, err = s.Grant(late.cert())
	require.ErrorIs(t, err, ErrUnknownCert)
	justInTime := w.owner.admitBy(w.owner, o, record.ClockAt(end.Add(record.MaxFuture)))
	addAll(t, s, justInTime.joined...)
	require.NoError(t, s.Check(justInTime.announce("a", record.Announce, record.ClockAt(end.Add(time.Hour)))), "membership outlives the invite")
}

// Keys with several encodings or small order make no members.
func TestWeakKeysMakeNoMembers(t *testing.T) {
	for _, weak := range [][32]byte{{}, {0: 1}, {0: 0xed, 1: 0xff, 31: 0x7f}} {
		w := newWorld(t)
		c := w.owner.chain.Last()
		c.Author = weak
		d, err := NewMember(w.tick(), c)
		require.NoError(t, err)
		s := New(w.lib)
		_, err = s.Add(w.owner.sign(d))
		require.ErrorIs(t, err, ErrForbidden)
		require.Zero(t, s.Len())
	}
}
