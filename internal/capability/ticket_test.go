package capability

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/transport"
)

func (f *family) ticket(by member, o InviteOptions) Ticket {
	inv, key := f.invite(by, o)
	s, err := NewSecret(f.rand)
	require.NoError(f.t, err)
	return Ticket{
		Invite: f.bundle(inv), Key: key, Secret: s, Name: "Ferien ☀", Filter: []byte("filter"),
		Peers: []transport.PeerInfo{{ID: by.dev.PeerID(), Addrs: []string{"/ip4/192.0.2.1/tcp/1", "/dns/a.example/tcp/2"}}},
	}
}

func export(t testing.TB, tk Ticket) string {
	t.Helper()
	text, err := tk.ExportSecret()
	require.NoError(t, err)
	return text
}

func TestTicketRoundTrip(t *testing.T) {
	f, root := newFamily(t, "ticket")
	a := f.join(root, root, AllRights)
	b := f.join(a, a, AllRights)
	c := f.join(root, b, Read|Invite)
	for name, tk := range map[string]Ticket{
		"by the owner's device":     f.ticket(root, InviteOptions{Rights: Write, RedeemBy: time.Unix(1_800_000_000, 0)}),
		"with admitters in support": f.ticket(c, InviteOptions{}),
		"bare": func() Ticket {
			tk := f.ticket(root, InviteOptions{})
			tk.Name, tk.Filter, tk.Peers = "", nil, nil
			return tk
		}(),
	} {
		text := export(t, tk)
		require.True(t, strings.HasPrefix(text, "cansync1"), name)
		back, err := ParseTicket(" \r\n" + text + "\t\n")
		require.NoError(t, err, name)
		require.Equal(t, tk, back, name)
		require.Equal(t, text, export(t, back), name)
		require.Equal(t, f.library, back.Library())
		require.True(t, back.Rights().Has(Read))
		require.Equal(t, tk.RedeemBy(), back.RedeemBy())
	}
}

func TestEverySingleCharacterChangeIsFound(t *testing.T) {
	f, root := newFamily(t, "characters")
	tk := f.ticket(root, InviteOptions{Rights: Read})
	tk.Filter, tk.Name, tk.Peers = nil, "", nil
	text := export(t, tk)
	tried := 0
	try := func(changed, what string, pos int) {
		tried++
		if _, err := ParseTicket(changed); err == nil {
			t.Fatalf("%s at %d accepted", what, pos)
		}
	}
	for i := range len(text) {
		for _, c := range []byte(bech32Charset + "1bioBIOZ ~\x00\xff\n" + strings.ToUpper(text[i:i+1])) {
			if c != text[i] {
				try(text[:i]+string([]byte{c})+text[i+1:], "substitution", i)
			}
		}
		try(text[:i]+text[i+1:], "deletion", i)
		try(text[:i], "truncation", i)
		for _, c := range []byte("qpl") {
			try(text[:i]+string([]byte{c})+text[i:], "insertion", i)
		}
		if i > 0 && text[i] != text[i-1] {
			try(text[:i-1]+text[i:i+1]+text[i-1:i]+text[i+1:], "transposition", i)
		}
	}
	require.Greater(t, tried, 45*len(text))
}

// The checksum alone, without certificates behind it, finds every substitution,
// far beyond the length for which Bech32 was made.
func TestChecksumFindsSubstitutionsInLongText(t *testing.T) {
	payload := make([]byte, 3000)
	_, _ = newStream("long").Read(payload)
	text := []byte(encodeBech32(payload))
	for i := len(ticketPrefix); i < len(text); i += 1 + i%60 {
		old := text[i]
		for _, c := range []byte(bech32Charset) {
			if c != old {
				text[i] = c
				if _, err := decodeBech32(string(text)); err == nil {
					t.Fatalf("substitution at %d accepted", i)
				}
			}
		}
		text[i] = old
	}
	_, err := decodeBech32(string(text))
	require.NoError(t, err)
}

func TestBech32RoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "payload")
		back, err := decodeBech32(encodeBech32(p))
		require.NoError(t, err)
		require.Equal(t, string(p), string(back))
	})
}

func TestTicketErrorsSayWhatIsWrong(t *testing.T) {
	f, root := newFamily(t, "ticket errors")
	text := export(t, f.ticket(root, InviteOptions{}))
	last := strings.IndexByte(bech32Charset, text[len(text)-1])
	for name, c := range map[string]struct {
		text string
		want error
		says string
	}{
		"empty":        {"", ErrTicket, "cansync1"},
		"other prefix": {"iroh" + text, ErrTicket, "cansync1"},
		"upper case":   {strings.ToUpper(text), ErrTicket, "cansync1"},
		"cut short":    {text[:len(text)/2], ErrTicketDamaged, "cut short"},
		"only prefix":  {"cansync1", ErrTicketDamaged, "cut short"},
		"changed":      {text[:len(text)-1] + bech32Charset[(last+1)%32:][:1], ErrTicketDamaged, "checksum"},
		"foreign char": {text[:40] + "!" + text[41:], ErrTicketDamaged, "character"},
		"newer":        {encodeBech32([]byte{2, 0, 0}), ErrTicketVersion, "version 2"},
		"too long":     {text + strings.Repeat("q", MaxTicketText), ErrTicket, "too long"},
		"endless":      {strings.Repeat(" ", 3*MaxTicketText), ErrTicket, "too long"},
		"no payload":   {encodeBech32(nil), wire.ErrMalformed, ""},
	} {
		_, err := ParseTicket(c.text)
		require.ErrorIs(t, err, ErrTicket, name)
		require.ErrorIs(t, err, c.want, name)
		require.ErrorContains(t, err, c.says, name)
		if len(c.text) > 40 {
			require.NotContains(t, err.Error(), c.text[8:40], name)
		}
	}
}

func TestTicketMustFitTogether(t *testing.T) {
	f, root := newFamily(t, "ticket fits")
	_, stranger := newFamily(t, "ticket stranger")
	good := f.ticket(root, InviteOptions{Rights: Write})
	key, err := NewSigningKey(f.rand)
	require.NoError(t, err)
	many := make([]transport.PeerInfo, MaxPeers+1)
	for i := range many {
		many[i].ID = root.dev.PeerID()
	}
	for name, change := range map[string]func(*Ticket){
		"another key":        func(tk *Ticket) { tk.Key = key },
		"no key":             func(tk *Ticket) { tk.Key = SigningKey{} },
		"no secret":          func(tk *Ticket) { tk.Secret = Secret{} },
		"a membership":       func(tk *Ticket) { tk.Invite = f.bundle(root.chain) },
		"no invite":          func(tk *Ticket) { tk.Invite = Bundle{} },
		"more rights":        func(tk *Ticket) { tk.Invite = escalate(tk.Invite) },
		"two libraries":      func(tk *Ticket) { tk.Invite.Chain = Chain{stranger.chain[0], tk.Invite.Chain[1]} },
		"name too long":      func(tk *Ticket) { tk.Name = strings.Repeat("x", MaxName+1) },
		"name with control":  func(tk *Ticket) { tk.Name = "a\x1b[2J" },
		"name not UTF-8":     func(tk *Ticket) { tk.Name = "\xff" },
		"filter too long":    func(tk *Ticket) { tk.Filter = make([]byte, MaxFilter+1) },
		"all together":       func(tk *Ticket) { tk.Filter = make([]byte, MaxFilter); tk.Peers = bigPeers(root) },
		"too many peers":     func(tk *Ticket) { tk.Peers = many },
		"peer without id":    func(tk *Ticket) { tk.Peers = make([]transport.PeerInfo, 1) },
		"too many addresses": func(tk *Ticket) { tk.Peers = []transport.PeerInfo{{ID: root.dev.PeerID(), Addrs: make([]string, 9)}} },
		"empty address":      func(tk *Ticket) { tk.Peers = []transport.PeerInfo{{ID: root.dev.PeerID(), Addrs: []string{""}}} },
		"address too long": func(tk *Ticket) {
			tk.Peers = []transport.PeerInfo{{ID: root.dev.PeerID(), Addrs: []string{strings.Repeat("a", MaxAddr+1)}}}
		},
	} {
		tk := good
		change(&tk)
		_, err := tk.ExportSecret()
		require.ErrorIs(t, err, ErrTicket, name)
	}
	tk := good
	tk.Filter = make([]byte, MaxFilter)
	require.LessOrEqual(t, len(export(t, tk)), MaxTicketText)
}

func escalate(b Bundle) Bundle {
	ch := append(Chain(nil), b.Chain...)
	ch[len(ch)-1].Rights = AllRights
	return Bundle{Chain: ch, Support: b.Support}
}

func bigPeers(m member) []transport.PeerInfo {
	peers := make([]transport.PeerInfo, MaxPeers)
	for i := range peers {
		peers[i].ID = m.dev.PeerID()
		for j := range MaxAddrs {
			peers[i].Addrs = append(peers[i].Addrs, fmt.Sprintf("%0*d", MaxAddr, j))
		}
	}
	return peers
}

func FuzzParseTicket(f *testing.F) {
	fam, root := newFamily(f, "fuzz ticket")
	text := export(f, fam.ticket(root, InviteOptions{Rights: Write}))
	f.Add(text)
	f.Add(text[:100])
	f.Add("cansync1")
	f.Fuzz(func(t *testing.T, s string) {
		tk, err := ParseTicket(s)
		if err != nil {
			require.ErrorIs(t, err, ErrTicket)
			return
		}
		require.Equal(t, strings.TrimSpace(s), export(t, tk))
	})
}

// The checksum keeps a fuzzer out; this one starts behind it.
func FuzzTicketPayload(f *testing.F) {
	fam, root := newFamily(f, "fuzz payload")
	p, err := decodeBech32(export(f, fam.ticket(root, InviteOptions{Rights: Write})))
	require.NoError(f, err)
	f.Add(p)
	f.Add(p[:len(p)-1])
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) > MaxTicketText {
			return
		}
		text := encodeBech32(p)
		tk, err := ParseTicket(text)
		if err != nil {
			require.ErrorIs(t, err, ErrTicket)
			return
		}
		require.Equal(t, text, export(t, tk))
	})
}

func TestAnEndThatNoDateCanNameIsStillADate(t *testing.T) {
	require.True(t, UnixTime(0).IsZero())
	require.Equal(t, time.Unix(1, 0).UTC(), UnixTime(1))
	for _, s := range []int64{lastSecond, lastSecond + 1, 1 << 40, math.MaxInt64} {
		at := UnixTime(s)
		require.Equal(t, 9999, at.Year())
		_, err := at.MarshalJSON()
		require.NoError(t, err)
		g := Grant{Kind: KindMember, Subject: [32]byte{1}, GrantExp: s}
		require.NoError(t, g.CheckSession(g.Peer(), at))
	}
	_, err := time.Unix(lastSecond+1, 0).UTC().MarshalJSON()
	require.Error(t, err)
}
