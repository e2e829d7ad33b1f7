package cansync

import (
	"context"
	"errors"
	"fmt"

	"github.com/cansync/cansync/internal/keyring"
	"github.com/cansync/cansync/internal/replica"
)

// LeaveOptions say how to leave a library. The zero value keeps its keys archived
// on this node.
type LeaveOptions struct {
	// Purge forgets the library's keys and records for good.
	Purge bool
	// Confirm is the library's name; it is required to purge the owner's keys,
	// without which nobody can administer the library any more.
	Confirm string
}

// Leave stops to share the library on this node. It deletes no asset anywhere, and
// other members go on. Errors match [ErrOnlyOwner].
func (l *Library) Leave(ctx context.Context, o LeaveOptions) error {
	n := l.n
	done, err := n.use()
	if err != nil {
		return err
	}
	defer done()
	name := l.Name()
	select {
	case <-n.change:
		defer func() { n.change <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	n.mu.Lock()
	if l.gone {
		n.mu.Unlock()
		return fmt.Errorf("%w: %s", ErrNoLibrary, l.id)
	}
	if o.Purge && !l.keys.Owner.IsZero() && o.Confirm != name {
		n.mu.Unlock()
		return fmt.Errorf("%w: purging makes the library ownerless; confirm with its name", ErrOnlyOwner)
	}
	lib, keys := l.l, l.keys
	l.gone = true
	delete(n.libs, l.id)
	n.mu.Unlock()

	n.sessions.Remove(l.id)
	var errs []error
	if lib != nil {
		n.announcer.Remove(l.id)
		n.fetcher.Remove(l.id)
		errs = append(errs, lib.Close())
	}
	if o.Purge || keys.State == keyring.Joining {
		errs = append(errs, n.ring.Remove(l.id))
		if lib != nil {
			errs = append(errs, replica.Drop(ctx, lib.Replica))
		}
	} else {
		keys.State = keyring.Archived
		errs = append(errs, n.ring.Save(keys))
	}
	return errors.Join(errs...)
}
