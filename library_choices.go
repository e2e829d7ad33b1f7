package cansync

import (
	"context"
	"fmt"

	"github.com/cansync/cansync/internal/keyring"
	"github.com/cansync/cansync/internal/library"
)

// Choices are what a node decides about a library for itself alone, without a say
// for the other members. A zero field is the default or, where the node chose
// before, what it chose then.
type Choices struct {
	// Mode says what the node does in the library; see [Library.SetMode].
	Mode Mode
	// Publish says what is announced of the local CAN Service; see
	// [Library.SetPublishMode].
	Publish PublishMode
	// View narrows what the node takes; see [Library.SetView].
	View Filter
	// Limits are those of the library's traffic; see [Library.SetLimits].
	Limits Limits
	// Quota bounds the library, in bytes; see [Library.SetQuota].
	Quota int64
}

// check returns what keeps the choices in the key ring, or what is wrong with
// them.
func (n *Node) check(ctx context.Context, c Choices) (func(*keyring.Library), error) {
	if c.Mode != "" && !c.Mode.valid() {
		return nil, badMode(c.Mode)
	}
	if c.Publish != "" && !c.Publish.valid() {
		return nil, badPublish(c.Publish)
	}
	if err := c.Limits.check(); err != nil {
		return nil, err
	}
	if c.Quota < 0 {
		return nil, errQuota
	}
	var view []byte
	if !c.View.IsZero() {
		f, _, err := n.resolve(ctx, c.View)
		if err != nil {
			return nil, err
		}
		if view, err = f.Encode(); err != nil {
			return nil, err
		}
	}
	return func(k *keyring.Library) {
		if c.Mode != "" {
			k.Mode = c.Mode.kept()
		}
		if c.Publish != "" {
			k.Approve = c.Publish == PublishApprove
		}
		if view != nil {
			k.View = view
		}
		if n := c.Limits.Upload; n != 0 {
			k.Upload = n
		}
		if n := c.Limits.Download; n != 0 {
			k.Download = n
		}
		if c.Quota != 0 {
			k.Quota = c.Quota
		}
	}, nil
}

// CreateLibrary makes a library of the assets that match the filter, with this
// node as its owner. The filter is public to all members; see [Node.Preview] for
// what it selects. Errors match [ErrName] or [ErrFilter].
func (n *Node) CreateLibrary(ctx context.Context, name string, f Filter) (*Library, error) {
	return n.CreateLibraryWith(ctx, name, f, Choices{})
}

// Join redeems a ticket. It returns at once with a library that is still being
// joined: name and filter are the ticket's until a member was reached, which may
// take as long as it takes, over restarts too, until the ticket ends. Joining a
// library that the node left before uses its archived keys where there are some,
// unless that membership ended or the ticket allows more, or the same for longer: then
// it is redeemed, and the library is back when a member was reached.
// Errors match [ErrTicket], [ErrTicketExpired] or, for a library that is here
// already, [ErrExists].
func (n *Node) Join(ctx context.Context, t Ticket) (*Library, error) {
	return n.JoinWith(ctx, t, Choices{})
}

// valid reports whether there is such a mode; "" is none here.
func (m Mode) valid() bool { return m == Sync || m != "" && library.Mode(m).Valid() }

// kept is what the key ring holds of a mode.
func (m Mode) kept() string {
	if m == Sync {
		return string(library.ModeSync)
	}
	return string(m)
}

func badMode(m Mode) error {
	return fmt.Errorf("%w: mode %q is none of sync, receive-only, announce-only, records-only, paused", ErrConfig, clip(string(m)))
}

func (m PublishMode) valid() bool { return m == PublishAuto || m == PublishApprove }

func badPublish(m PublishMode) error {
	return fmt.Errorf("%w: publish mode %q is neither auto nor approve", ErrConfig, clip(string(m)))
}

var errQuota = fmt.Errorf("%w: quota: negative", ErrConfig)
