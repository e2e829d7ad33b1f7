package capability

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var joinTime = time.Unix(1_750_000_000, 0)

// joining is a request and all that its admission needs.
type joining struct {
	f   *family
	dev Device
	tk  Ticket
	q   JoinRequest
	a   Admission
}

func newJoining(t *testing.T, by, admitter func(f *family, root member) member, o InviteOptions) joining {
	t.Helper()
	f, root := newFamily(t, t.Name())
	inviter := by(f, root)
	adm := admitter(f, root)
	j := joining{f: f, dev: f.device(), tk: f.ticket(inviter, o)}
	bind := [32]byte{9}
	var err error
	j.q, err = NewJoinRequest(j.tk, j.dev, bind)
	require.NoError(t, err)
	keys, err := NewEpochKeys(f.rand)
	require.NoError(t, err)
	keys, err = keys.Next(f.rand)
	require.NoError(t, err)
	j.a = Admission{
		Library: f.library, Peer: j.dev.PeerID(), Binding: bind, Now: joinTime,
		Self: adm.grant(f), Device: adm.dev, Keys: keys,
	}
	return j
}

func theRoot(_ *family, root member) member { return root }

func TestJoin(t *testing.T) {
	// Invited by one member, admitted by another, while the owner is away.
	j := newJoining(t,
		func(f *family, root member) member { return f.join(root, root, Read|Write|Invite) },
		func(f *family, root member) member { return f.join(root, root, Read|Invite) },
		InviteOptions{Rights: Write, RedeemBy: joinTime, GrantExp: joinTime.Add(time.Hour)})
	q, err := DecodeJoinRequest(j.q.Encode())
	require.NoError(t, err)
	require.Equal(t, j.q, q)
	chain, sealed, err := Admit(q, j.a)
	require.NoError(t, err)
	require.Len(t, sealed, SealedEpochSize)

	reply, err := DecodeJoinReply(JoinReply{Member: j.f.bundle(chain), Sealed: sealed}.Encode())
	require.NoError(t, err)
	g, keys, err := reply.Open(j.q, j.dev)
	require.NoError(t, err)
	require.Equal(t, Read|Write, g.Rights)
	require.Equal(t, joinTime.Add(time.Hour).Unix(), g.GrantExp)
	require.NoError(t, g.CheckSession(j.dev.PeerID(), joinTime))
	require.EqualValues(t, 1, keys.Epoch)
	require.True(t, keys.Secret.Equal(j.a.Keys.Secret))
	require.True(t, keys.Lasting.Equal(j.a.Keys.Lasting))

	// Again, with a new connection: the same membership, even after the end of the
	// invite once it is on file.
	j.a.Binding = [32]byte{10}
	again, err := NewJoinRequest(j.tk, j.dev, j.a.Binding)
	require.NoError(t, err)
	chain2, _, err := Admit(again, j.a)
	require.NoError(t, err)
	require.Equal(t, chain, chain2)
	j.a.Now = joinTime.Add(time.Minute)
	_, _, err = Admit(again, j.a)
	require.ErrorIs(t, err, RefusedExpired)
	stored := chain.Last()
	j.a.Existing = &stored
	chain2, _, err = Admit(again, j.a)
	require.NoError(t, err)
	require.Equal(t, chain, chain2)
	j.a.Now = joinTime.Add(2 * time.Hour)
	_, _, err = Admit(again, j.a)
	require.ErrorIs(t, err, RefusedExpired, "the membership itself has ended")
	wrong := chain[0]
	j.a.Now, j.a.Existing = joinTime, &wrong
	_, _, err = Admit(again, j.a)
	require.ErrorIs(t, err, RefusedBusy)
}

func TestAdmitRefuses(t *testing.T) {
	resign := func(j *joining, change func(c *Cert)) {
		change(&j.q.Member)
		j.q.Member.sign(j.tk.Key)
		j.q.Signature = j.tk.Key.Sign(joinMessage(j.a.Binding, j.q.Member.ID()))
	}
	for name, c := range map[string]struct {
		change func(j *joining)
		want   Refusal
	}{
		"replayed on another connection": {func(j *joining) { j.a.Binding[0]++ }, RefusedInvalid},
		"another device's request":       {func(j *joining) { j.a.Peer = j.f.device().PeerID() }, RefusedInvalid},
		"signature changed":              {func(j *joining) { j.q.Signature[5] ^= 1 }, RefusedInvalid},
		"of another library":             {func(j *joining) { j.a.Library[0]++; j.a.Self.Library[0]++ }, RefusedInvalid},
		"member not signed":              {func(j *joining) { resign(j, func(*Cert) {}); j.q.Member.Signature[0] ^= 1 }, RefusedInvalid},
		"more rights":                    {func(j *joining) { resign(j, func(c *Cert) { c.Rights = AllRights }) }, RefusedInvalid},
		"longer":                         {func(j *joining) { resign(j, func(c *Cert) { c.GrantExp = 0 }) }, RefusedInvalid},
		"scope":                          {func(j *joining) { resign(j, func(c *Cert) { c.Scope = []byte{1} }) }, RefusedInvalid},
		"weak author":                    {func(j *joining) { resign(j, func(c *Cert) { c.Author = [32]byte{1} }) }, RefusedInvalid},
		"weak seal":                      {func(j *joining) { resign(j, func(c *Cert) { c.Seal = [32]byte{} }) }, RefusedInvalid},
		"admitted by itself":             {func(j *joining) { j.q.Member.Countersign(j.q.Member.ID(), j.dev.Key()) }, RefusedInvalid},
		"invite changed":                 {func(j *joining) { j.q.Invite = escalate(j.q.Invite) }, RefusedInvalid},
		"a membership for an invite":     {func(j *joining) { j.q.Invite.Chain = j.q.Invite.Chain[:1] }, RefusedInvalid},
		"nothing":                        {func(j *joining) { j.q = JoinRequest{} }, RefusedInvalid},
		"expired by a second":            {func(j *joining) { j.a.Now = joinTime.Add(time.Second) }, RefusedExpired},
		"counted": {func(j *joining) {
			inv := &j.q.Invite.Chain[len(j.q.Invite.Chain)-1]
			inv.MaxUses = 3
			inv.sign(j.a.Device.Key())
			resign(j, func(c *Cert) { c.Parent = inv.ID() })
		}, RefusedCounted},
		"admitter without the right":   {func(j *joining) { j.a.Self.Rights = Read | Write | Admin }, RefusedRights},
		"admitter expired":             {func(j *joining) { j.a.Self.GrantExp = joinTime.Unix() - 1 }, RefusedRights},
		"admitter of another library":  {func(j *joining) { j.a.Self.Library[0]++ }, RefusedRights},
		"admitter is an invite":        {func(j *joining) { j.a.Self.Kind = KindInvite }, RefusedRights},
		"admitter with another device": {func(j *joining) { j.a.Device = j.f.device() }, RefusedRights},
		"no secrets":                   {func(j *joining) { j.a.Keys = EpochKeys{} }, RefusedBusy},
	} {
		t.Run(name, func(t *testing.T) {
			j := newJoining(t, theRoot, theRoot, InviteOptions{Rights: Write, RedeemBy: joinTime, GrantExp: joinTime.Add(time.Hour)})
			if _, _, err := Admit(j.q, j.a); err != nil {
				t.Fatalf("unchanged: %v", err)
			}
			c.change(&j)
			chain, sealed, err := Admit(j.q, j.a)
			require.Nil(t, chain)
			require.Nil(t, sealed)
			var r Refusal
			require.True(t, errors.As(err, &r))
			require.Equal(t, c.want, r, err)
			require.NotEmpty(t, r.Error())
		})
	}
}

func TestJoinReplyMustAnswerTheRequest(t *testing.T) {
	j := newJoining(t, theRoot, theRoot, InviteOptions{})
	chain, sealed, err := Admit(j.q, j.a)
	require.NoError(t, err)
	good := JoinReply{Member: j.f.bundle(chain), Sealed: sealed}
	_, _, err = good.Open(j.q, j.dev)
	require.NoError(t, err)

	_, _, err = good.Open(j.q, j.f.device())
	require.ErrorIs(t, err, ErrJoin)
	_, _, err = JoinReply{Refusal: RefusedClosed}.Open(j.q, j.dev)
	require.ErrorIs(t, err, RefusedClosed)
	_, _, err = JoinReply{Member: j.q.Invite, Sealed: sealed}.Open(j.q, j.dev)
	require.ErrorIs(t, err, ErrJoin)
	bare := good
	bare.Member.Chain = j.q.Invite.Chain.With(j.q.Member)
	_, _, err = bare.Open(j.q, j.dev)
	require.ErrorIs(t, err, ErrChain, "not countersigned")
	for i := range sealed {
		bad := good
		bad.Sealed = append([]byte(nil), sealed...)
		bad.Sealed[i] ^= 0x40
		_, _, err := bad.Open(j.q, j.dev)
		require.ErrorIs(t, err, ErrSealed, "byte %d", i)
	}
	cut := good
	cut.Sealed = sealed[1:]
	_, _, err = cut.Open(j.q, j.dev)
	require.ErrorIs(t, err, ErrSealed)
}

func TestSealedSecretsOpenInOnePlaceOnly(t *testing.T) {
	f, root := newFamily(t, "seal")
	keys, err := NewEpochKeys(f.rand)
	require.NoError(t, err)
	pub := root.dev.Seal(f.library).Public()
	sealed, err := SealEpoch(keys, f.library, root.id(), pub)
	require.NoError(t, err)
	again, err := SealEpoch(keys, f.library, root.id(), pub)
	require.NoError(t, err)
	require.NotEqual(t, sealed, again, "a fresh key each time")
	_, err = OpenEpoch(root.dev.Seal(f.library), f.library, root.id(), sealed)
	require.NoError(t, err)
	for name, open := range map[string]func() (EpochKeys, error){
		"other device":      func() (EpochKeys, error) { return OpenEpoch(f.device().Seal(f.library), f.library, root.id(), sealed) },
		"other certificate": func() (EpochKeys, error) { return OpenEpoch(root.dev.Seal(f.library), f.library, CertID{1}, sealed) },
		"other library": func() (EpochKeys, error) {
			return OpenEpoch(root.dev.Seal(f.library), [32]byte{1}, root.id(), sealed)
		},
		"no key": func() (EpochKeys, error) { return OpenEpoch(SealKey{}, f.library, root.id(), sealed) },
	} {
		_, err := open()
		require.ErrorIs(t, err, ErrSealed, name)
	}
	for _, weak := range x25519Small {
		_, err := SealEpoch(keys, f.library, root.id(), key32(t, weak))
		require.ErrorIs(t, err, ErrKey)
	}
}
