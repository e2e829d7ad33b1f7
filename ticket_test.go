package cansync_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can/cantest"
	smemory "github.com/cansync/cansync/store/memory"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
)

// hostOn returns what puts a node on an in-memory network.
func hostOn(net *memory.Network) func([32]byte) (transport.Transport, error) {
	return func(seed [32]byte) (transport.Transport, error) {
		public := ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey)
		return net.Host(transport.PeerID(public)), nil
	}
}

// newAlone starts a node that has a network to itself.
func newAlone(t *testing.T, svc *cantest.Service) *cansync.Node {
	t.Helper()
	st := smemory.New()
	node, err := cansync.New(t.Context(), cansync.Config{
		CAN: svc, Store: st, Transport: hostOn(memory.NewNetwork(memory.Options{})),
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, node.Close())
		require.NoError(t, st.Close())
		require.NoError(t, svc.Close())
	})
	return node
}

// newTicket makes a library and a ticket for it.
func newTicket(t *testing.T, f cansync.Filter, o cansync.InviteOptions) (*cansync.Library, cansync.Ticket, string) {
	t.Helper()
	lib, err := newAlone(t, cantest.New(cantest.Options{})).CreateLibrary(t.Context(), "Ferien ☀", f)
	require.NoError(t, err)
	ticket, err := lib.Invite(t.Context(), o)
	require.NoError(t, err)
	text, err := ticket.ExportSecret()
	require.NoError(t, err)
	return lib, ticket, text
}

func TestTicketRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := cansync.Filter{Application: "camera", Tags: []string{"a", "b"}, User: "ann", MIMEPrefix: "image/"}
		f.Hashes = []string{strings.Repeat("ab", 32)}
		lib, made, text := newTicket(t, f, cansync.InviteOptions{Access: cansync.Write, ValidFor: time.Hour})
		for _, around := range []string{"%s", " %s", "%s\n", "\r\n\t%s \r\n\v\f"} {
			back, err := cansync.ParseTicket(fmt.Sprintf(around, text))
			require.NoError(t, err)
			require.Equal(t, lib.ID(), back.Library())
			require.Equal(t, "Ferien ☀", back.Name())
			require.Equal(t, f, back.Filter())
			require.Equal(t, cansync.Read|cansync.Write, back.Access())
			require.True(t, back.Expires().Equal(time.Now().Add(time.Hour).Truncate(time.Second)), "%s", back.Expires())
			again, err := back.ExportSecret()
			require.NoError(t, err)
			require.Equal(t, text, again)
			require.Equal(t, made.Name(), back.Name())
		}
	})
}

func TestTicketDefaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ticket, text := newTicket(t, cansync.Filter{}, cansync.InviteOptions{})
		require.Equal(t, cansync.Read|cansync.Write|cansync.Invite, ticket.Access())
		require.Equal(t, "read,write,invite", ticket.Access().String())
		require.True(t, ticket.Expires().Equal(time.Now().Add(cansync.DefaultInviteValidity).Truncate(time.Second)))
		require.True(t, ticket.Filter().IsZero())
		require.True(t, strings.HasPrefix(text, "cansync1"))
		require.Less(t, len(text), 2000, "a ticket should fit a message")
	})
}

func TestInviteRefusesWhatItCannotGive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lib, _, _ := newTicket(t, cansync.Filter{}, cansync.InviteOptions{})
		for _, c := range []struct {
			o     cansync.InviteOptions
			field string
		}{
			{cansync.InviteOptions{ValidFor: time.Millisecond}, "ValidFor"},
			{cansync.InviteOptions{ValidFor: -time.Hour}, "ValidFor"},
			{cansync.InviteOptions{ValidFor: cansync.MaxInviteValidity + time.Second}, "ValidFor"},
			{cansync.InviteOptions{Access: 1 << 7}, "Access"},
		} {
			_, err := lib.Invite(t.Context(), c.o)
			require.ErrorIs(t, err, cansync.ErrConfig)
			require.ErrorContains(t, err, c.field)
		}
	})
}

func TestEveryChangeOfATicketIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newAlone(t, cantest.New(cantest.Options{}))
		_, _, text := newTicket(t, cansync.Filter{}, cansync.InviteOptions{})
		tried, said := 0, map[string]bool{}
		refuse := func(changed string) {
			tried++
			_, err := cansync.ParseTicket(changed)
			if !errors.Is(err, cansync.ErrTicket) { // a require for each would take half a minute
				t.Fatalf("accepted or another error: %v", err)
			}
			said[err.Error()] = true
		}
		for i := range len(text) {
			// A fifth of all characters at each place, others at the next.
			others := "qpzry9x8gf2tvdw0s3jn54khce6mua7l1 bIo\x00\xff\n" + strings.ToUpper(text[i:i+1])
			for n, c := range []byte(others) {
				// White space at the ends is not part of the ticket, but there the
				// character is lost.
				if (n+i)%5 == 0 && c != text[i] {
					refuse(text[:i] + string([]byte{c}) + text[i+1:])
				}
			}
			refuse(text[:i] + text[i+1:])
			refuse(text[:i])
			if i > 0 {
				refuse(text[:i] + " " + text[i:])
			}
		}
		require.Greater(t, tried, 9*len(text))
		for _, no := range []string{"", " ", "cansync1", text + text, strings.ToUpper(text), "ticket: " + text, strings.Repeat("q", 1<<20)} {
			refuse(no)
		}
		require.Less(t, len(said), 1000)
		for msg := range said {
			for at := len("cansync1"); at+12 <= len(text); at += 4 {
				require.NotContains(t, msg, text[at:at+12], "an error repeats the ticket")
			}
		}
		_, err := node.Join(t.Context(), cansync.Ticket{})
		require.ErrorIs(t, err, cansync.ErrTicket, "the zero ticket")
		require.Empty(t, node.Libraries())
	})
}

func TestExpiredTicket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newAlone(t, cantest.New(cantest.Options{}))
		_, _, text := newTicket(t, cansync.Filter{}, cansync.InviteOptions{ValidFor: time.Second})
		<-time.After(3 * time.Second)
		ticket, err := cansync.ParseTicket(text)
		require.NoError(t, err, "an expired ticket parses")
		_, err = node.Join(t.Context(), ticket)
		require.ErrorIs(t, err, cansync.ErrTicketExpired)
		require.Empty(t, node.Libraries())
	})
}

// secretsOf takes the secrets out of a ticket's text by docs/protocol.md, without
// the code that wrote them.
func secretsOf(t *testing.T, text string) [][]byte {
	t.Helper()
	var payload []byte
	acc, bits := 0, 0
	for _, c := range strings.TrimPrefix(text[:len(text)-6], "cansync1") {
		v := strings.IndexRune("qpzry9x8gf2tvdw0s3jn54khce6mua7l", c)
		require.GreaterOrEqual(t, v, 0)
		if acc, bits = acc<<5|v, bits+5; bits >= 8 {
			bits -= 8
			payload = append(payload, byte(acc>>bits))
			acc &= 1<<bits - 1
		}
	}
	require.EqualValues(t, 1, payload[0])
	bundle := int(binary.BigEndian.Uint32(payload[3:]))
	rest := payload[7+bundle:]
	seed, secret := rest[:32], rest[32:64]
	public := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	require.True(t, bytes.Contains(payload[7:7+bundle], public), "the seed is not that of the certified key")
	require.NotEqual(t, make([]byte, 32), secret)
	return [][]byte{seed, secret}
}

// canariesOf returns pieces of a ticket and of its secrets, in the forms in which
// they could be printed.
func canariesOf(t *testing.T, text string) (canaries []string) {
	t.Helper()
	for at := len("cansync1"); at+12 <= len(text); at += 4 {
		canaries = append(canaries, text[at:at+12])
	}
	for _, s := range secretsOf(t, text) {
		canaries = append(canaries, string(s[:8]), hex.EncodeToString(s[:8]), strings.ToUpper(hex.EncodeToString(s[:8])),
			strings.Trim(fmt.Sprint(s[:8]), "[]"), strings.Trim(fmt.Sprintf("%#v", s[:4]), "[]byte{}"),
			strings.Trim(fmt.Sprintf("% x", s[:8]), "[]"), fmt.Sprintf("%o", s[:8]), fmt.Sprintf("%b", s[:8]),
			base64.StdEncoding.EncodeToString(s[:9]), base64.URLEncoding.EncodeToString(s[:9]))
	}
	return canaries
}

func TestTicketIsNeverPrinted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ticket, text := newTicket(t, cansync.Filter{MIMEPrefix: "image/"}, cansync.InviteOptions{})
		canaries := canariesOf(t, text)
		checked := 0
		quiet := func(what, printed string) {
			checked++
			for _, c := range canaries {
				if strings.Contains(printed, c) {
					t.Fatalf("a secret in %s", what)
				}
			}
		}
		type exported struct{ T cansync.Ticket }
		type unexported struct{ t cansync.Ticket }
		type pointer struct{ p *cansync.Ticket }
		carriers := map[string]any{
			"value": ticket, "pointer": &ticket, "slice": []cansync.Ticket{ticket}, "map": map[string]cansync.Ticket{"k": ticket},
			"exported": exported{ticket}, "pointer to exported": &exported{ticket}, "unexported": unexported{ticket},
			"pointer to unexported": &unexported{ticket}, "pointer field": pointer{&ticket}, "any": []any{ticket, &ticket},
			"error": fmt.Errorf("join %v: %+v", ticket, &ticket), "key": map[any]int{&ticket: 1},
		}
		for _, verb := range strings.Split("v s q x X d o O b c U e E f F g G t p T w", " ") {
			for _, flag := range []string{"", "+", "#", "-", " ", "0", "# ", "+#", "80", ".3"} {
				for name, c := range carriers {
					quiet(flag+verb+" of "+name, fmt.Sprintf("%"+flag+verb, c))
				}
			}
		}
		for name, c := range carriers {
			quiet("Sprint of "+name, fmt.Sprint(c)+fmt.Sprintln(c))
			if b, err := json.Marshal(c); err == nil {
				quiet("JSON of "+name, string(b))
			}
			if b, err := xml.Marshal(c); err == nil {
				quiet("XML of "+name, string(b))
			}
			for _, h := range []func(*bytes.Buffer, *slog.HandlerOptions) slog.Handler{
				func(b *bytes.Buffer, o *slog.HandlerOptions) slog.Handler { return slog.NewTextHandler(b, o) },
				func(b *bytes.Buffer, o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(b, o) },
			} {
				var out bytes.Buffer
				slog.New(h(&out, nil)).With("with", c).WithGroup("g").LogAttrs(context.Background(), slog.LevelError, "m", slog.Any("ticket", c))
				require.NotEmpty(t, out.String())
				quiet("slog of "+name, out.String())
			}
		}
		require.Greater(t, checked, 2000)

		// What is printed says what it is, and is no ticket.
		require.Equal(t, ticket.String(), fmt.Sprintf("%v", ticket))
		require.Contains(t, ticket.String(), "redacted")
		_, err := cansync.ParseTicket(ticket.String())
		require.ErrorIs(t, err, cansync.ErrTicket)
		b, err := json.Marshal(exported{ticket})
		require.NoError(t, err)
		require.JSONEq(t, fmt.Sprintf(`{"T":%q}`, ticket.String()), string(b))
	})
}

// Nor do nodes log tickets, while they make, redeem and refuse them.
func TestTicketIsNotLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs bytes.Buffer // the handler locks it
		log := slog.New(slog.NewJSONHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug - 100}))
		net := memory.NewNetwork(memory.Options{})
		var nodes []*cansync.Node
		var close []func() error
		for range 2 {
			svc, st := cantest.New(cantest.Options{}), smemory.New()
			node, err := cansync.New(t.Context(), cansync.Config{CAN: svc, Store: st, Transport: hostOn(net), Logger: log})
			require.NoError(t, err)
			nodes, close = append(nodes, node), append(close, node.Close, st.Close, svc.Close)
		}
		lib, err := nodes[0].CreateLibrary(t.Context(), "Ferien", cansync.Filter{})
		require.NoError(t, err)
		var canaries []string
		invite := func() cansync.Ticket {
			ticket, err := lib.Invite(t.Context(), cansync.InviteOptions{ValidFor: time.Minute})
			require.NoError(t, err)
			text, err := ticket.ExportSecret()
			require.NoError(t, err)
			canaries = append(canaries, canariesOf(t, text)...)
			return ticket
		}
		joined, err := nodes[1].Join(t.Context(), invite())
		require.NoError(t, err)
		require.NoError(t, joined.Wait(t.Context()))
		_, err = nodes[1].Join(t.Context(), invite())
		require.ErrorIs(t, err, cansync.ErrExists)
		fmt.Fprintln(&logs, err)
		for _, c := range close {
			require.NoError(t, c())
		}
		require.NotEmpty(t, logs.String())
		for _, c := range canaries {
			require.NotContains(t, logs.String(), c)
		}
	})
}

func TestLibraryIDs(t *testing.T) {
	id, err := cansync.ParseLibraryID(strings.Repeat("0a", 32))
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("0a", 32), id.String())
	b, err := json.Marshal(id)
	require.NoError(t, err)
	require.Equal(t, `"`+id.String()+`"`, string(b))
	for _, no := range []string{"", "0a", strings.Repeat("0A", 32), strings.Repeat("0g", 32), strings.Repeat("x", 1<<20)} {
		_, err := cansync.ParseLibraryID(no)
		require.ErrorIs(t, err, cansync.ErrNoLibrary)
		require.Less(t, len(err.Error()), 300)
	}
}
