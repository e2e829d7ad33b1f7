package capability

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/transport"
)

// Errors of tickets, to be matched with errors.Is. Every failure of [ParseTicket]
// is an [ErrTicket]; the others say more.
var (
	// ErrTicket says that a text is not a ticket this version can use.
	ErrTicket = errors.New("capability: invalid ticket")
	// ErrTicketDamaged says that characters were changed or lost on the way: copy
	// the ticket again.
	ErrTicketDamaged = errors.New("ticket damaged")
	// ErrTicketVersion says that the ticket was made by a newer version.
	ErrTicketVersion = errors.New("ticket of another version")
)

// Ticket lets whoever holds it ask for a membership. It is a secret: every way of
// printing it shows a placeholder, and only [Ticket.ExportSecret] gives the text.
//
// The text is "cansync1", the payload in 32 characters, and a checksum; see
// [ParseTicket]. The payload's integers are big-endian:
//
//	version:u8(=1) size:u16 (of what follows)
//	bundle_len:u32 bundle  invite_seed[32]  invite_secret[32]
//	name_len:u16 name  filter_len:u32 filter
//	peers:u16 { id[32] addrs:u16 { len:u16 addr } }
type Ticket struct {
	// Invite is the invite's chain, which gives library, rights and ends.
	Invite Bundle
	// Key signs the membership; its public half is the invite's subject.
	Key SigningKey
	// Secret is the invite's own, known to the members as long as it is open. It
	// is no epoch secret: a dead ticket finds nobody.
	Secret Secret
	// Name and Filter describe the library to whoever joins; neither is proof. The
	// filter is in its canonical encoding.
	Name   string
	Filter []byte
	// Peers are members to try first.
	Peers []transport.PeerInfo
}

const ticketVersion = 1

// Library returns the id of the library.
func (t Ticket) Library() [32]byte { return t.Invite.Library() }

// Rights returns what the membership will allow.
func (t Ticket) Rights() Rights { return t.Invite.Chain.Last().Rights }

// RedeemBy returns the last moment at which the ticket can be used; the zero time
// means no end. Whether it has passed is for the caller to compare.
func (t Ticket) RedeemBy() time.Time { return UnixTime(t.Invite.Chain.Last().RedeemBy) }

// GrantExp returns the end of the membership it gives; the zero time means none.
func (t Ticket) GrantExp() time.Time { return UnixTime(t.Invite.Chain.Last().GrantExp) }

// lastSecond is the end of the year 9999. A certificate may name a later one, which
// neither JSON nor RFC 3339 can write.
const lastSecond = 253_402_300_799

// UnixTime returns the time of an end in a certificate, that of the year 9999 for all
// later ones; the zero time for 0, which means no end.
func UnixTime(s int64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(min(s, lastSecond), 0).UTC()
}

const ticketRedacted = ticketPrefix + "…" + redactedText

// String returns a placeholder.
func (Ticket) String() string { return ticketRedacted }

// GoString returns a placeholder.
func (Ticket) GoString() string { return ticketRedacted }

// Format writes a placeholder for every verb.
func (Ticket) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, ticketRedacted) }

// LogValue returns a placeholder.
func (Ticket) LogValue() slog.Value { return slog.StringValue(ticketRedacted) }

// MarshalText returns a placeholder.
func (Ticket) MarshalText() ([]byte, error) { return []byte(ticketRedacted), nil }

// MarshalJSON returns a placeholder as a JSON string.
func (Ticket) MarshalJSON() ([]byte, error) { return []byte(`"` + ticketRedacted + `"`), nil }

// ExportSecret returns the ticket's text: who has it can join. It verifies first
// that the text can be parsed again; errors match [ErrTicket].
func (t Ticket) ExportSecret() (string, error) {
	if err := t.check(); err != nil {
		return "", err
	}
	seed, secret := t.Key.Seed(), t.Secret.Bytes()
	b := wire.AppendBytes(nil, t.Invite.Encode())
	b = append(append(b, seed[:]...), secret[:]...)
	b = wire.AppendString(b, t.Name)
	b = wire.AppendBytes(b, t.Filter)
	b = wire.AppendU16(b, uint16(len(t.Peers)))
	for _, p := range t.Peers {
		b = wire.AppendU16(append(b, p.ID[:]...), uint16(len(p.Addrs)))
		for _, a := range p.Addrs {
			b = wire.AppendString(b, a)
		}
	}
	// The first comparison keeps the size within its two bytes.
	if len(b) > MaxTicketText {
		return "", fmt.Errorf("%w: %d bytes are too much", ErrTicket, len(b))
	}
	text := encodeBech32(append(wire.AppendU16([]byte{ticketVersion}, uint16(len(b))), b...))
	if len(text) > MaxTicketText {
		return "", fmt.Errorf("%w: %d characters exceed %d; use a shorter filter", ErrTicket, len(text), MaxTicketText)
	}
	return text, nil
}

// ParseTicket reads a ticket's text and verifies, without any network, that its
// certificates belong together and that its key fits. White space around the text
// is ignored; nothing else is forgiven, upper case included, and a change of any
// one character is found. An ended ticket parses: see [Ticket.RedeemBy].
//
// Errors match [ErrTicket], and never repeat the text.
func ParseTicket(text string) (Ticket, error) {
	if len(text) > 2*MaxTicketText { // before a pass over it
		return Ticket{}, fmt.Errorf("%w: it is too long", ErrTicket)
	}
	if text = strings.TrimSpace(text); len(text) > MaxTicketText {
		return Ticket{}, fmt.Errorf("%w: it is too long", ErrTicket)
	}
	p, err := decodeBech32(text)
	switch {
	case errors.Is(err, errBechPrefix):
		return Ticket{}, fmt.Errorf("%w: %w", ErrTicket, err)
	case errors.Is(err, errBechChecksum) && len(p) >= 3 && p[0] == ticketVersion && int(p[1])<<8|int(p[2]) > len(p)-3:
		return Ticket{}, fmt.Errorf("%w: %w: %w", ErrTicket, ErrTicketDamaged, errBechShort)
	case err != nil:
		return Ticket{}, fmt.Errorf("%w: %w: %w", ErrTicket, ErrTicketDamaged, err)
	}
	r := wire.NewReader(p)
	if v := r.U8(); r.Err() == nil && v != ticketVersion {
		return Ticket{}, fmt.Errorf("%w: %w: version %d, this node reads %d", ErrTicket, ErrTicketVersion, v, ticketVersion)
	}
	if n := int(r.U16()); n != r.Len() {
		r.Fail("%d bytes announced, %d there", n, r.Len())
	}
	t, err := readTicket(r)
	if err != nil {
		return Ticket{}, fmt.Errorf("%w: %w", ErrTicket, err)
	}
	if err := t.check(); err != nil {
		return Ticket{}, err
	}
	return t, nil
}

func readTicket(r *wire.Reader) (t Ticket, err error) {
	bundle := r.Bytes(MaxBundle)
	seed, secret := r.B32(), r.B32()
	t.Name = r.String(MaxName)
	if f := r.Bytes(MaxFilter); len(f) > 0 {
		t.Filter = append([]byte(nil), f...)
	}
	for range r.Count(MaxPeers) {
		p := transport.PeerInfo{ID: r.B32()}
		for range r.Count(MaxAddrs) {
			p.Addrs = append(p.Addrs, r.String(MaxAddr))
		}
		t.Peers = append(t.Peers, p)
	}
	if err := r.End(); err != nil {
		return Ticket{}, err
	}
	t.Key, t.Secret = SigningKeyFromSeed(seed), SecretFromBytes(secret)
	t.Invite, err = DecodeBundle(bundle)
	return t, err
}

// check applies the rules for both directions.
func (t Ticket) check() error {
	g, err := t.Invite.Verify(t.Library())
	bad := func(what string) error { return fmt.Errorf("%w: %s", ErrTicket, what) }
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrTicket, err)
	case g.Kind != KindInvite:
		return bad("it holds no invite")
	case t.Key.Public() != g.Subject:
		return bad("its key is not the invite's")
	case t.Secret.IsZero():
		return bad("it has no secret")
	case len(t.Name) > MaxName || !printable(t.Name):
		return bad("the library's name is too long or has control characters")
	case len(t.Filter) > MaxFilter:
		return bad("the filter is too long")
	case len(t.Peers) > MaxPeers:
		return bad("too many peers")
	}
	for _, p := range t.Peers {
		if err := CheckKey(p.ID); err != nil {
			return fmt.Errorf("%w: peer id: %w", ErrTicket, err)
		}
		if len(p.Addrs) > MaxAddrs {
			return bad("too many addresses")
		}
		for _, a := range p.Addrs {
			if a == "" || len(a) > MaxAddr || !printable(a) {
				return bad("an address is empty, too long or has control characters")
			}
		}
	}
	return nil
}

// printable reports whether s is UTF-8 without control characters, which would
// let a stranger's text move the cursor of who reads it.
func printable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsControl) < 0
}
