package capability

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/transport"
)

// readVector reads a commented hexdump: everything after # is a remark.
func readVector(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	var b []byte
	for line := range strings.Lines(string(text)) {
		digits, _, _ := strings.Cut(line, "#")
		p, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
		require.NoError(t, err, line)
		b = append(b, p...)
	}
	return b
}

// repeat is a seed of one repeated byte.
func repeat(b byte) [32]byte { return [32]byte(bytes.Repeat([]byte{b}, 32)) }

type constant byte

func (c constant) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(c)
	}
	return len(p), nil
}

// frozen rebuilds what the vectors hold from the seeds named in their remarks.
func frozen(t *testing.T) (Chain, Ticket) {
	t.Helper()
	owner, dev := SigningKeyFromSeed(repeat(1)), DeviceFromSeed(repeat(2))
	key, joiner := SigningKeyFromSeed(repeat(3)), DeviceFromSeed(repeat(4))
	library := LibraryID(owner.Public())
	root, err := NewRoot(owner, dev.Member(library), constant(0x11))
	require.NoError(t, err)
	ch := Chain{root}
	inv, err := NewInvite(ch, dev.Key(), key.Public(), InviteOptions{
		Rights: Read | Write, RedeemBy: time.Unix(1_800_000_000, 0), GrantExp: time.Unix(1_900_000_000, 0),
	}, constant(0x22))
	require.NoError(t, err)
	ch = ch.With(inv)
	tk := Ticket{
		Invite: Bundle{Chain: ch}, Key: key, Secret: SecretFromBytes(repeat(5)),
		Name: "Photos", Filter: []byte{0xf0, 0xf1},
		Peers: []transport.PeerInfo{{ID: dev.PeerID(), Addrs: []string{"/ip4/192.0.2.7/udp/4001/quic-v1"}}},
	}
	m, err := NewMember(ch, key, joiner.Member(library))
	require.NoError(t, err)
	m.Countersign(root.ID(), dev.Key())
	return ch.With(m), tk
}

func TestFrozenCertificates(t *testing.T) {
	want := readVector(t, "chain.hex")
	ch, err := DecodeChain(want)
	require.NoError(t, err)
	require.Equal(t, want, ch.Encode())
	g, err := ch.Verify(ch.Library(), nil)
	require.NoError(t, err)
	require.Equal(t, Read|Write, g.Rights)
	require.EqualValues(t, 1_900_000_000, g.GrantExp)
	built, _ := frozen(t)
	require.Equal(t, built, ch)
}

func TestFrozenTicket(t *testing.T) {
	payload := readVector(t, "ticket.hex")
	text, err := os.ReadFile(filepath.Join("testdata", "ticket.txt"))
	require.NoError(t, err)
	tk, err := ParseTicket(string(text))
	require.NoError(t, err)
	_, built := frozen(t)
	require.Equal(t, built, tk)
	got, err := tk.ExportSecret()
	require.NoError(t, err)
	require.Equal(t, strings.TrimSpace(string(text)), got)
	require.Equal(t, encodeBech32(payload), got)
	require.Equal(t, Read|Write, tk.Rights())
	require.Equal(t, time.Unix(1_800_000_000, 0).UTC(), tk.RedeemBy())
	require.Equal(t, time.Unix(1_900_000_000, 0).UTC(), tk.GrantExp())
}

// The derivations are part of what is stored and sent, and must not change.
func TestFrozenDerivations(t *testing.T) {
	hx := func(b []byte) string { return hex.EncodeToString(b) }
	dev, library := DeviceFromSeed(repeat(2)), LibraryID(SigningKeyFromSeed(repeat(1)).Public())
	s := SecretFromBytes(repeat(5))
	a, seal := dev.Author(library).Public(), dev.Seal(library).Public()
	lasting, fp := s.Lasting().Bytes(), s.Lasting().ReconcileKey()
	rdv := Rendezvous(s, 7, time.Date(2026, 3, 1, 23, 59, 0, 0, time.UTC))
	bind := binding(dev.PeerID(), DeviceFromSeed(repeat(4)).PeerID(), repeat(6), repeat(7), nil)
	ti, tr := bothTags(s, bind)
	var b strings.Builder
	for _, line := range [][2]string{
		{"library id", hx(library[:])}, {"author key", hx(a[:])}, {"seal key", hx(seal[:])},
		{"lasting secret", hx(lasting[:])}, {"reconcile key", hx(fp[:])}, {"rendezvous", hx(rdv[:])},
		{"binding", hx(bind[:])}, {"opener's tag", hx(ti[:])}, {"responder's tag", hx(tr[:])},
	} {
		b.WriteString(line[1] + "  # " + line[0] + "\n")
	}
	want, err := os.ReadFile(filepath.Join("testdata", "derivations.hex"))
	require.NoError(t, err)
	require.Equal(t, string(want), b.String())
}
