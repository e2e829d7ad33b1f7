package cansync

import (
	"errors"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/replica"
)

// Errors of this package, to be matched with errors.Is. Errors of the CAN
// Service, the store and the transport pass through and match the sentinels of
// their packages; context errors pass through as they are.
var (
	// ErrClosed says that the node was closed.
	ErrClosed = errors.New("cansync: node is closed")
	// ErrConfig says that a Config can't be used; the message names the field.
	ErrConfig = errors.New("cansync: invalid configuration")
	// ErrNoLibrary says that the node has no such library, or left it.
	ErrNoLibrary = errors.New("cansync: no such library")
	// ErrExists says that the node has the library already.
	ErrExists = errors.New("cansync: library already here")
	// ErrName says that a library's name is empty or too long.
	ErrName = errors.New("cansync: invalid library name")
	// ErrFilter says that a filter can't be used; the message names the key.
	ErrFilter = filter.ErrInvalid
	// ErrTicket says that a text is no ticket, or was altered.
	ErrTicket = capability.ErrTicket
	// ErrTicketExpired says that a ticket can no longer be redeemed.
	ErrTicketExpired = errors.New("cansync: ticket has expired")
	// ErrForbidden says that the node's membership lacks the right for what was
	// asked.
	ErrForbidden = control.ErrForbidden
	// ErrClock says that this machine's clock was set back, or had been ahead before, so
	// that what the node signs now would count as older than what it has seen. It goes
	// on by itself when the clock is right; see [ClockStatus].
	ErrClock = replica.ErrClock
	// ErrNotJoined says that the library is still being joined, so that the node
	// can't do this yet.
	ErrNotJoined = errors.New("cansync: library is still being joined")
	// ErrNoAsset says that the library does not hold the asset.
	ErrNoAsset = errors.New("cansync: no such asset in the library")
	// ErrOnlyOwner says that the only owner of a library would lose its keys.
	ErrOnlyOwner = errors.New("cansync: the library's only owner key is here")
)
