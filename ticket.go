package cansync

import (
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/filter"
)

// Ticket lets whoever holds it join a library with the rights it grants. It is a
// secret: every way of printing it shows a placeholder, and only
// [Ticket.ExportSecret] gives the text to hand on. The zero value is no ticket.
type Ticket struct{ t capability.Ticket }

// ParseTicket reads the text of a ticket and verifies, without any network, that
// it was not altered: a change of any single character is found. White space
// around the text is ignored. A ticket that has expired parses; joining with it
// fails. Errors match [ErrTicket] and never repeat the text.
func ParseTicket(text string) (Ticket, error) {
	t, err := capability.ParseTicket(text)
	if err != nil {
		return Ticket{}, err
	}
	if _, err := filter.Decode(t.Filter); err != nil {
		return Ticket{}, fmt.Errorf("%w: its filter can't be read", ErrTicket)
	}
	return Ticket{t}, nil
}

// ExportSecret returns the ticket's text. Keep it out of logs and URLs.
func (t Ticket) ExportSecret() (string, error) { return t.t.ExportSecret() }

// Library returns the id of the library.
func (t Ticket) Library() LibraryID { return t.t.Library() }

// Name returns the name of the library when the ticket was made.
func (t Ticket) Name() string { return t.t.Name }

// Filter returns the filter of the library when the ticket was made.
func (t Ticket) Filter() Filter {
	f, err := filter.Decode(t.t.Filter)
	if err != nil {
		return Filter{}
	}
	return filterOf(f)
}

// Access returns what the membership will allow.
func (t Ticket) Access() Access { return accessOf(t.t.Rights()) }

// Expires returns the last moment at which the ticket can be redeemed; the zero
// time means that it does not end.
func (t Ticket) Expires() time.Time { return t.t.RedeemBy() }

const redactedTicket = "cansync1…(redacted)"

// String returns a placeholder.
func (Ticket) String() string { return redactedTicket }

// GoString returns a placeholder.
func (Ticket) GoString() string { return redactedTicket }

// Format writes a placeholder for every verb.
func (Ticket) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redactedTicket) }

// LogValue returns a placeholder.
func (Ticket) LogValue() slog.Value { return slog.StringValue(redactedTicket) }

// MarshalText returns a placeholder.
func (Ticket) MarshalText() ([]byte, error) { return []byte(redactedTicket), nil }

// Access is what a member may do. The zero value allows nothing.
type Access uint8

// The rights, to be combined. Reading is part of every membership.
const (
	// Read allows to see the library's records and fetch its contents.
	Read Access = Access(capability.Read)
	// Write allows to announce, edit and remove assets.
	Write Access = Access(capability.Write)
	// Invite allows to hand out tickets and to admit who holds one.
	Invite Access = Access(capability.Invite)
	// Admin allows to change filter and policies.
	Admin Access = Access(capability.Admin)
)

// Has reports whether all the rights are included.
func (a Access) Has(r Access) bool { return a&r == r }

// String names the rights, such as "read,write,invite".
func (a Access) String() string { return capability.Rights(a).String() }

func accessOf(r capability.Rights) Access { return Access(r) }
