package cansync

import (
	"context"
	"fmt"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/keyring"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/record"
)

// Library is a shared collection of which the node is a member, or which it is
// joining. It is safe for concurrent use. While it is being joined, methods that take
// a membership return [ErrNotJoined]; after [Library.Leave] all return [ErrNoLibrary],
// after [Node.Close] [ErrClosed]. Errors that a method does not name are those of the
// store, of the CAN Service or of the context.
type Library struct {
	n  *Node
	id LibraryID

	// Guarded by n.mu.
	l       *library.Library // nil while joining
	keys    keyring.Library
	ticket  Ticket // while joining
	refused error  // the last refusal while joining
	gone    bool
	meeting bool // that a member was met is being written down
}

// ID returns the library's id.
func (l *Library) ID() LibraryID { return l.id }

// member returns the library's machinery, and a function to call when through.
func (l *Library) member() (*library.Library, func(), error) {
	done, err := l.n.use()
	if err != nil {
		return nil, nil, err
	}
	l.n.mu.Lock()
	lib, gone := l.l, l.gone
	l.n.mu.Unlock()
	switch {
	case gone:
		err = fmt.Errorf("%w: %s", ErrNoLibrary, l.id)
	case lib == nil:
		err = ErrNotJoined
	default:
		return lib, done, nil
	}
	done()
	return nil, nil, err
}

// peek returns the machinery without holding the node open; nil while joining or
// closed. Only what needs no store may be asked of it.
func (l *Library) peek() *library.Library {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	return l.l
}

// Name returns the library's name: the one in its description or, until that has
// arrived, the one in the ticket.
func (l *Library) Name() string {
	if lib := l.peek(); lib != nil {
		if d, ok := lib.Description(); ok {
			return d.Name
		}
	}
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	return l.keys.Name
}

// Filter returns the filter in force.
func (l *Library) Filter() Filter {
	if lib := l.peek(); lib != nil {
		if d, ok := lib.Description(); ok {
			return filterOf(d.Filter)
		}
	}
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	return l.ticket.Filter()
}

// Access returns what the node may do in the library; zero while it is being
// joined.
func (l *Library) Access() Access {
	if lib := l.peek(); lib != nil {
		return accessOf(lib.Grant().Rights)
	}
	return 0
}

// Owner reports whether the library's owner key is on this node.
func (l *Library) Owner() bool {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	return !l.keys.Owner.IsZero()
}

// SetFilter changes which assets belong to the library, for all members. Assets
// that no longer belong stay in every CAN Service; they come back when the filter
// widens. It takes the admin right; errors match [ErrForbidden] or [ErrFilter].
func (l *Library) SetFilter(ctx context.Context, f Filter) error {
	lib, done, err := l.member()
	if err != nil {
		return err
	}
	defer done()
	resolved, _, err := l.n.resolve(ctx, f)
	if err != nil {
		return err
	}
	d, ok := lib.Description()
	if !ok {
		return fmt.Errorf("%w: its description has not arrived", ErrNotJoined)
	}
	d.Filter = resolved
	return describe(ctx, lib, d)
}

// DeletePolicy says what members do with their copy of an asset that was removed
// from a library.
type DeletePolicy string

// The policies.
const (
	// KeepRemoved leaves the copy where it is. It is the default.
	KeepRemoved DeletePolicy = "keep"
	// TrashRemoved trashes the copy, unless another library of the member's node
	// holds the asset.
	TrashRemoved DeletePolicy = "trash"
)

// DeletePolicy returns what members do with removed assets.
func (l *Library) DeletePolicy() DeletePolicy {
	if lib := l.peek(); lib != nil {
		if d, ok := lib.Description(); ok && d.Delete == control.DeleteTrash {
			return TrashRemoved
		}
	}
	return KeepRemoved
}

// SetDeletePolicy changes what members do with removed assets. It takes the admin
// right; errors match [ErrForbidden].
func (l *Library) SetDeletePolicy(ctx context.Context, p DeletePolicy) error {
	lib, done, err := l.member()
	if err != nil {
		return err
	}
	defer done()
	d, ok := lib.Description()
	if !ok {
		return fmt.Errorf("%w: its description has not arrived", ErrNotJoined)
	}
	switch p {
	case KeepRemoved:
		d.Delete = control.DeleteKeep
	case TrashRemoved:
		d.Delete = control.DeleteTrash
	default:
		return fmt.Errorf("%w: delete policy %q is neither keep nor trash", ErrConfig, clip(string(p)))
	}
	return describe(ctx, lib, d)
}

func describe(ctx context.Context, lib *library.Library, d control.Description) error {
	draft, err := control.NewDescription(0, lib.ID(), lib.Grant().ID, d)
	if err != nil {
		return err
	}
	return lib.Say(ctx, draft)
}

// Remove removes assets from the library, for all members; what becomes of their
// copies is up to the library's [DeletePolicy]. The node's own copy stays. Assets
// that the library does not hold are ignored. It takes the write right.
func (l *Library) Remove(ctx context.Context, digests ...can.Digest) error {
	lib, done, err := l.member()
	if err != nil {
		return err
	}
	defer done()
	var drafts []record.Draft
	for _, d := range digests {
		e, err := lib.Entry(ctx, d)
		if err != nil {
			return err
		}
		if e.Member {
			drafts = append(drafts, lib.Removal(d))
		}
	}
	if len(drafts) == 0 {
		return nil
	}
	if err := lib.Say(ctx, drafts...); err != nil {
		return err
	}
	for _, d := range drafts {
		l.n.events.emit(Event{Kind: EventRemoved, Library: l.id, Asset: d.Subject})
	}
	return nil
}

// ConfirmRemovals lets removals go out that were held back because one scan found
// an unusual number of assets trashed; see [LibraryStatus.Held].
func (l *Library) ConfirmRemovals() error {
	_, done, err := l.member()
	if err != nil {
		return err
	}
	defer done()
	return l.n.announcer.Confirm(l.id)
}

// DismissRemovals forgets removals that were held back: the assets stay in the
// library.
func (l *Library) DismissRemovals() error {
	_, done, err := l.member()
	if err != nil {
		return err
	}
	defer done()
	return l.n.announcer.Dismiss(l.id)
}
