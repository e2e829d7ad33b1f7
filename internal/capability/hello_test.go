package capability

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cansync/cansync/transport"
)

var (
	alice = transport.PeerID{0: 1}
	bob   = transport.PeerID{0: 2}
	mal   = transport.PeerID{0: 3}
)

func secretsOf(t testing.TB, names ...string) []Secret {
	var out []Secret
	for _, n := range names {
		s, err := NewSecret(newStream("secret " + n))
		require.NoError(t, err)
		out = append(out, s)
	}
	return out
}

// exchange runs a whole hello and returns all messages and both results.
func exchange(t require.TestingT, a, b Channel, as, bs []Secret, ra, rb *stream) (msgs [4][]byte, am, bm []Match) {
	o, m1, err := NewOpener(a, as, ra)
	require.NoError(t, err)
	r, err := NewResponder(b, bs, rb)
	require.NoError(t, err)
	m2, err := r.Nonce(m1)
	require.NoError(t, err)
	m3, err := o.Tags(m2)
	require.NoError(t, err)
	m4, bm, err := r.Answer(m3)
	require.NoError(t, err)
	am, err = o.Finish(m4)
	require.NoError(t, err)
	return [4][]byte{m1, m2, m3, m4}, am, bm
}

func TestHelloFindsWhatBothKnow(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ids := rapid.SliceOfN(rapid.IntRange(0, 120), 0, 90)
		as, bs := ids.Draw(rt, "opener"), ids.Draw(rt, "responder")
		make := func(ids []int) []Secret {
			var out []Secret
			for _, i := range ids {
				out = append(out, SecretFromBytes(repeat(byte(i+1))))
			}
			return out
		}
		first := func(ids []int) map[int]int {
			m := map[int]int{}
			for i, v := range ids {
				if _, ok := m[v]; !ok {
					m[v] = i
				}
			}
			return m
		}
		fa, fb := first(as), first(bs)
		want := map[int]int{} // index at A → index at B
		for v, i := range fa {
			if j, ok := fb[v]; ok {
				want[i] = j
			}
		}
		_, am, bm := exchange(rt, Channel{Self: alice, Peer: bob}, Channel{Self: bob, Peer: alice},
			make(as), make(bs), newStream("a"), newStream("b"))
		require.Len(rt, am, len(want))
		require.Len(rt, bm, len(want))
		for i := range am {
			require.Equal(rt, am[i].Handle, bm[i].Handle)
			require.Equal(rt, want[am[i].Secret], bm[i].Secret)
			if i > 0 {
				require.Less(rt, am[i-1].Handle, am[i].Handle)
			}
		}
	})
}

func TestHelloSizesTellOnlyTheBucket(t *testing.T) {
	shared := secretsOf(t, "s")
	for _, c := range []struct{ n, want int }{{0, 16}, {1, 16}, {16, 16}, {17, 64}, {64, 64}, {65, 256}, {256, 256}} {
		var as []Secret
		for i := range c.n {
			as = append(as, SecretFromBytes(repeat(byte(i))))
			if i == 0 {
				as[0] = shared[0]
			}
		}
		for _, bs := range [][]Secret{nil, shared, secretsOf(t, "other"), as} {
			msgs, _, _ := exchange(t, Channel{Self: alice, Peer: bob}, Channel{Self: bob, Peer: alice}, as, bs, newStream("a"), newStream("b"))
			require.Len(t, msgs[0], nonceSize)
			require.Len(t, msgs[1], nonceSize)
			require.Len(t, msgs[2], c.want*tagSize)
			require.Len(t, msgs[3], c.want*tagSize)
		}
	}
	many := make([]Secret, 257)
	for i := range many {
		many[i] = SecretFromBytes([32]byte{byte(i), byte(i >> 8), 1})
	}
	_, _, err := NewOpener(Channel{Self: alice, Peer: bob}, many, newStream("a"))
	require.ErrorIs(t, err, ErrTooManySecrets)
	_, _, bm := exchange(t, Channel{Self: alice, Peer: bob}, Channel{Self: bob, Peer: alice}, many[200:], many, newStream("a"), newStream("b"))
	require.Len(t, bm, 57, "a responder may know more than an opener sends")
}

// What a non-member receives is as random as the padding: over many hellos, no
// tag occurs twice, every place is used, and no secret's bytes appear.
func TestHelloIsUnlinkable(t *testing.T) {
	s := secretsOf(t, "s", "t", "u")
	raw := s[0].Bytes()
	ra, rb := newStream("a"), newStream("b")
	seen := make(map[tag]bool)
	places := make(map[uint16]int)
	for range 300 {
		msgs, am, _ := exchange(t, Channel{Self: alice, Peer: bob}, Channel{Self: bob, Peer: alice}, s, s, ra, rb)
		require.Len(t, am, 3)
		for _, m := range am {
			places[m.Handle]++
		}
		for _, m := range msgs {
			require.False(t, bytes.Contains(m, raw[:8]))
		}
		for _, m := range msgs[2:] {
			for i := 0; i < len(m); i += tagSize {
				require.False(t, seen[tag(m[i:])])
				seen[tag(m[i:])] = true
			}
		}
	}
	require.Len(t, places, 16)
	for p, n := range places {
		require.InDelta(t, 56, n, 40, "place %d", p)
	}
}

// attacks on a hello between alice and bob, who share a secret mal does not know.
// Each returns what the honest sides believe at the end.
func TestHelloAttacksFindNothing(t *testing.T) {
	s := secretsOf(t, "s")
	ra, rb, rm := newStream("a"), newStream("b"), newStream("m")
	opener := func(peer transport.PeerID) (*Opener, []byte) {
		o, m, err := NewOpener(Channel{Self: alice, Peer: peer}, s, ra)
		require.NoError(t, err)
		return o, m
	}
	responder := func(self, peer transport.PeerID, m1 []byte) (*Responder, []byte) {
		r, err := NewResponder(Channel{Self: self, Peer: peer}, s, rb)
		require.NoError(t, err)
		m2, err := r.Nonce(m1)
		require.NoError(t, err)
		return r, m2
	}
	tags := func(o *Opener, m2 []byte) []byte {
		m3, err := o.Tags(m2)
		require.NoError(t, err)
		return m3
	}
	answer := func(r *Responder, m3 []byte) ([]byte, []Match) {
		m4, got, err := r.Answer(m3)
		require.NoError(t, err)
		return m4, got
	}
	finish := func(o *Opener, m4 []byte) []Match {
		got, err := o.Finish(m4)
		require.NoError(t, err)
		return got
	}

	tries := 0
	run := func(name string, attack func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			for range 1250 {
				attack(t)
				tries++
			}
		})
	}
	run("honest", func(t *testing.T) {
		o, m1 := opener(bob)
		r, m2 := responder(bob, alice, m1)
		m4, got := answer(r, tags(o, m2))
		require.Len(t, got, 1)
		require.Equal(t, got, finish(o, m4))
		require.Equal(t, o.Binding(), r.Binding())
		require.NotZero(t, o.Binding())
	})
	run("splice", func(t *testing.T) {
		// mal sits between: alice's connection ends at mal, bob's begins there.
		o, m1 := opener(mal)
		r, m2 := responder(bob, mal, m1)
		m4, got := answer(r, tags(o, m2))
		require.Empty(t, got)
		require.Empty(t, finish(o, m4))
		require.NotEqual(t, o.Binding(), r.Binding())
	})
	run("reflection of tags", func(t *testing.T) {
		o, _ := opener(bob)
		_, m2, err := nonceMessage(rm)
		require.NoError(t, err)
		require.Empty(t, finish(o, tags(o, m2)))
	})
	run("reflection of the nonce", func(t *testing.T) {
		o, m1 := opener(bob)
		_, err := o.Tags(m1)
		require.ErrorIs(t, err, ErrHello)
	})
	run("reflection through a second connection", func(t *testing.T) {
		// mal makes alice both opener and responder towards itself.
		o, m1 := opener(mal)
		r, m2 := responder(alice, mal, m1)
		m4, got := answer(r, tags(o, m2))
		require.Empty(t, got)
		require.Empty(t, finish(o, m4))
	})
	run("replay", func(t *testing.T) {
		o, m1 := opener(bob)
		r, m2 := responder(bob, alice, m1)
		m3 := tags(o, m2)
		m4, got := answer(r, m3)
		require.Len(t, got, 1)
		// The opener's messages again, on a new connection under its own identity.
		r2, _ := responder(bob, alice, m1)
		_, got = answer(r2, m3)
		require.Empty(t, got)
		// The responder's messages again.
		o2, _ := opener(bob)
		tags(o2, m2)
		require.Empty(t, finish(o2, m4))
	})
	run("roles swapped", func(t *testing.T) {
		// A recorded answer is offered as an opener's tags and the reverse.
		o, m1 := opener(bob)
		r, m2 := responder(bob, alice, m1)
		m3 := tags(o, m2)
		m4, _ := answer(r, m3)
		o2, m1b := opener(bob)
		r2, m2b := responder(bob, alice, m1b)
		tags(o2, m2b)
		_, got := answer(r2, m4)
		require.Empty(t, got)
		require.Empty(t, finish(o2, m3))
		// The ends exchanged under the same nonces bind differently.
		var n1, n2 [32]byte
		require.NotEqual(t, binding(alice, bob, n1, n2, nil), binding(bob, alice, n1, n2, nil))
	})
	run("another transport", func(t *testing.T) {
		for _, c := range [][2][]byte{{{1, 2, 3}, nil}, {nil, {1, 2, 3}}, {{1, 2, 3}, {1, 2, 4}}} {
			_, am, bm := exchange(t, Channel{Self: alice, Peer: bob, Exporter: c[0]}, Channel{Self: bob, Peer: alice, Exporter: c[1]}, s, s, ra, rb)
			require.Empty(t, am)
			require.Empty(t, bm)
		}
		_, am, _ := exchange(t, Channel{Self: alice, Peer: bob, Exporter: []byte{5}}, Channel{Self: bob, Peer: alice, Exporter: []byte{5}}, s, s, ra, rb)
		require.Len(t, am, 1)
	})
	run("a member's tag repeated", func(t *testing.T) {
		o, m1 := opener(bob)
		r, m2 := responder(bob, alice, m1)
		m3 := tags(o, m2)
		bind := o.Binding()
		mine, _ := bothTags(s[0], bind)
		for i := 0; i < len(m3); i += tagSize {
			copy(m3[i:], mine[:])
		}
		m4, got := answer(r, m3)
		require.Len(t, got, 1)
		require.Equal(t, got, finish(o, m4))
	})
	require.GreaterOrEqual(t, tries, 10_000)
}

// Every byte that an attacker changes on the way costs the match or the hello.
func TestHelloBytesAreBound(t *testing.T) {
	s := secretsOf(t, "s")
	changed := 0
	for msg := range 2 {
		for at := range nonceSize {
			o, m1, err := NewOpener(Channel{Self: alice, Peer: bob}, s, newStream("a"))
			require.NoError(t, err)
			r, err := NewResponder(Channel{Self: bob, Peer: alice}, s, newStream("b"))
			require.NoError(t, err)
			if msg == 0 {
				m1[at] ^= 1
			}
			m2, err := r.Nonce(m1)
			if at == 0 && msg == 0 {
				require.ErrorIs(t, err, ErrHelloVersion)
				continue
			}
			require.NoError(t, err)
			if msg == 1 {
				m2[at] ^= 1
			}
			m3, err := o.Tags(m2)
			if at == 0 && msg == 1 {
				require.ErrorIs(t, err, ErrHelloVersion)
				continue
			}
			require.NoError(t, err)
			_, got, err := r.Answer(m3)
			require.NoError(t, err)
			require.Empty(t, got)
			changed++
		}
	}
	require.Equal(t, 64, changed)
}

func TestHelloSteps(t *testing.T) {
	s := secretsOf(t, "s")
	a, b := Channel{Self: alice, Peer: bob}, Channel{Self: bob, Peer: alice}
	for name, ch := range map[string]Channel{
		"oneself": {Self: alice, Peer: alice}, "nobody": {Self: alice}, "no self": {Peer: bob}, "exporter": {Self: alice, Peer: bob, Exporter: make([]byte, 1<<17)},
	} {
		_, _, err := NewOpener(ch, s, newStream("a"))
		require.ErrorIs(t, err, ErrHello, name)
		_, err = NewResponder(ch, s, newStream("a"))
		require.ErrorIs(t, err, ErrHello, name)
	}
	_, _, err := NewOpener(a, []Secret{{}}, newStream("a"))
	require.ErrorIs(t, err, ErrKey)
	_, err = NewResponder(b, []Secret{{}}, newStream("a"))
	require.ErrorIs(t, err, ErrKey)

	o, m1, err := NewOpener(a, s, newStream("a"))
	require.NoError(t, err)
	_, err = o.Finish(nil)
	require.ErrorIs(t, err, ErrHelloOrder)
	r, err := NewResponder(b, s, newStream("b"))
	require.NoError(t, err)
	_, _, err = r.Answer(nil)
	require.ErrorIs(t, err, ErrHelloOrder)
	m2, err := r.Nonce(m1)
	require.NoError(t, err)
	_, err = r.Nonce(m1)
	require.ErrorIs(t, err, ErrHelloOrder)
	m3, err := o.Tags(m2)
	require.NoError(t, err)
	_, err = o.Tags(m2)
	require.ErrorIs(t, err, ErrHelloOrder)
	m4, _, err := r.Answer(m3)
	require.NoError(t, err)
	_, _, err = r.Answer(m3)
	require.ErrorIs(t, err, ErrHelloOrder)
	_, err = o.Finish(m4)
	require.NoError(t, err)
	_, err = o.Finish(m4)
	require.ErrorIs(t, err, ErrHelloOrder)

	for _, n := range []int{0, 1, 16, 255, 256*tagSize + 1, 17 * tagSize, 257 * tagSize, 1 << 20} {
		r, err := NewResponder(b, s, newStream("b"))
		require.NoError(t, err)
		_, err = r.Nonce(m1)
		require.NoError(t, err)
		_, _, err = r.Answer(make([]byte, n))
		require.ErrorIs(t, err, ErrHello, "%d bytes", n)
	}
	for _, msg := range [][]byte{nil, {1}, m1[:32], append(bytes.Clone(m1), 0)} {
		r, err := NewResponder(b, s, newStream("b"))
		require.NoError(t, err)
		_, err = r.Nonce(msg)
		require.ErrorIs(t, err, ErrHello)
	}
}

func FuzzHello(f *testing.F) {
	s := secretsOf(f, "s", "t")
	o, m1, err := NewOpener(Channel{Self: alice, Peer: bob}, s, newStream("a"))
	require.NoError(f, err)
	m3, err := o.Tags(append([]byte{helloVersion}, make([]byte, 32)...))
	require.NoError(f, err)
	f.Add(m1, m3)
	f.Add([]byte{}, []byte{})
	f.Add(m1[:5], m3[:100])
	f.Fuzz(func(t *testing.T, first, second []byte) {
		r, err := NewResponder(Channel{Self: bob, Peer: alice}, s, newStream("b"))
		require.NoError(t, err)
		if _, err := r.Nonce(first); err == nil {
			if out, matches, err := r.Answer(second); err == nil {
				require.Len(t, out, len(second))
				require.Empty(t, matches)
			}
		}
		o, _, err := NewOpener(Channel{Self: alice, Peer: bob}, s, newStream("a"))
		require.NoError(t, err)
		if _, err := o.Tags(first); err == nil {
			if got, err := o.Finish(second); err == nil {
				require.Empty(t, got)
			}
		}
	})
}
