package cansync

import (
	"context"
	"errors"
	"fmt"

	ds "github.com/ipfs/go-datastore"

	"github.com/cansync/cansync/internal/announce"
	"github.com/cansync/cansync/internal/keyring"
	"github.com/cansync/cansync/internal/kv"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/transport"
)

// LeaveOptions say how to leave a library. The zero value keeps its keys archived
// on this node.
type LeaveOptions struct {
	// Purge forgets the library's keys and records for good, and the addresses of
	// members that share no other library.
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

	var known []transport.PeerID
	if o.Purge && lib != nil {
		for _, m := range lib.Members() {
			known = append(known, transport.PeerID(m.Device))
		}
	}
	n.sessions.Remove(l.id)
	var errs []error
	if lib != nil {
		n.announcer.Remove(l.id)
		n.fetcher.Remove(l.id)
		n.ungovern(l.id)
		errs = append(errs, lib.Close())
	}
	// Whoever was only to get a better membership keeps the one it had.
	if o.Purge || keys.State == keyring.Joining && len(keys.Bundle) == 0 {
		errs = append(errs, n.doom(ctx, l.id), n.ring.Remove(l.id), n.reprieve(ctx, l.id), n.sessions.Forget(ctx, known))
	} else {
		keys.State, keys.Ticket = keyring.Archived, ""
		errs = append(errs, n.ring.Save(keys))
	}
	return errors.Join(errs...)
}

// doomKey marks a library whose records are dropped unless the ring holds its
// keys, so that a crash while it is made or purged leaves none behind.
func doomKey(id LibraryID) ds.Key { return kv.Key("n", "doomed", kv.Bin(id[:])) }

func (n *Node) doom(ctx context.Context, id LibraryID) error {
	return n.store.Put(ctx, doomKey(id), nil)
}

// reprieve drops the records of a library that was doomed, unless its keys are
// here, and takes the mark away.
func (n *Node) reprieve(ctx context.Context, id LibraryID) error {
	if _, ok := n.ring.Library(id); !ok {
		if err := replica.Drop(ctx, n.store, id); err != nil {
			return fmt.Errorf("drop records: %w", err)
		}
		if err := announce.Forget(ctx, n.inv, id); err != nil {
			return fmt.Errorf("forget what was announced: %w", err)
		}
	}
	return n.store.Delete(ctx, doomKey(id))
}

// reprieveAll goes on with what an earlier process left unfinished.
func (n *Node) reprieveAll(ctx context.Context) error {
	var ids []LibraryID
	for e, err := range kv.Scan(ctx, n.store, kv.Key("n", "doomed"), true) {
		if err != nil {
			return err
		}
		if id, err := kv.Last32(e.Key); err == nil {
			ids = append(ids, id)
		}
	}
	for _, id := range ids {
		if err := n.reprieve(ctx, id); err != nil {
			return err
		}
	}
	return nil
}
