package capability

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkHello256 is what a full hello costs the responder: 256 tags against as
// many own secrets.
func BenchmarkHello256(b *testing.B) {
	var s []Secret
	for i := range MaxTags {
		s = append(s, SecretFromBytes([32]byte{byte(i), byte(i >> 8), 1}))
	}
	rand := newStream("bench")
	o, m1, err := NewOpener(Channel{Self: alice, Peer: bob}, s, rand)
	require.NoError(b, err)
	m3, err := o.Tags(append([]byte{helloVersion}, make([]byte, 32)...))
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		r, err := NewResponder(Channel{Self: bob, Peer: alice}, s, rand)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := r.Nonce(m1); err != nil {
			b.Fatal(err)
		}
		if _, _, err := r.Answer(m3); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyChain3(b *testing.B) {
	f, root := newFamily(b, "bench")
	m := f.join(root, root, Write)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.chain.Verify(f.library, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyBundleLongest(b *testing.B) {
	f, root := newFamily(b, "bench long")
	m := root
	for len(m.chain)+2 <= MaxChain {
		m = f.join(m, f.join(root, root, Read|Invite), AllRights)
	}
	bun := f.bundle(m.chain)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := bun.Verify(f.library); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseTicket(b *testing.B) {
	f, root := newFamily(b, "bench ticket")
	text := export(b, f.ticket(root, InviteOptions{Rights: Write}))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseTicket(text); err != nil {
			b.Fatal(err)
		}
	}
}
