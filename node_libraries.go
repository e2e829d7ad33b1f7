package cansync

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/announce"
	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/fetch"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/keyring"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/session"
	"github.com/cansync/cansync/internal/transfer"
	"github.com/cansync/cansync/transport"
)

// MaxNameLen is the longest name of a library, in bytes of UTF-8.
const MaxNameLen = 200

func checkName(name string) error {
	switch {
	case strings.TrimSpace(name) == "":
		return fmt.Errorf("%w: it is empty", ErrName)
	case len(name) > MaxNameLen:
		return fmt.Errorf("%w: %d bytes, at most %d", ErrName, len(name), MaxNameLen)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: it is not UTF-8", ErrName)
	case strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("%w: it has control characters", ErrName)
	}
	return nil
}

// CreateLibraryWith is [Node.CreateLibrary] with choices of this node's, which hold
// from the beginning: nothing is announced that they rule out. Errors match
// [ErrConfig] too.
func (n *Node) CreateLibraryWith(ctx context.Context, name string, f Filter, c Choices) (*Library, error) {
	done, err := n.use()
	if err != nil {
		return nil, err
	}
	defer done()
	if err := checkName(name); err != nil {
		return nil, err
	}
	resolved, _, err := n.resolve(ctx, f)
	if err != nil {
		return nil, err
	}
	choose, err := n.check(ctx, c)
	if err != nil {
		return nil, err
	}
	keys, err := library.Create(name, n.ring.Device(), n.cfg.Rand)
	if err != nil {
		return nil, err
	}
	choose(&keys)
	select {
	case <-n.change:
		defer func() { n.change <- struct{}{} }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	// The records first: keys without a description would be a library that nobody
	// can use, records without keys are dropped by the next start.
	if err := n.doom(ctx, keys.ID); err != nil {
		return nil, err
	}
	lib, err := n.openMember(ctx, keys)
	if err == nil {
		if err = lib.Describe(ctx, control.Description{Name: name, Filter: resolved}); err == nil {
			err = n.ring.Save(keys)
		}
		if err != nil {
			err = errors.Join(err, lib.Close())
		}
	}
	if kept := n.reprieve(context.WithoutCancel(ctx), keys.ID); kept != nil && err == nil {
		n.log.Warn("mark of a new library not removed; the next start does", "error", kept)
	}
	if err != nil {
		return nil, err
	}
	return n.install(keys, lib, nil), nil
}

// openMember opens the machinery of a library.
func (n *Node) openMember(ctx context.Context, keys keyring.Library) (*library.Library, error) {
	var view filter.Filter
	if len(keys.View) > 0 {
		var err error
		if view, err = filter.Decode(keys.View); err != nil {
			return nil, fmt.Errorf("%w: view: %w", library.ErrKeys, err)
		}
	}
	return library.Open(ctx, library.Options{
		Keys: keys, Device: n.ring.Device(), Rand: n.cfg.Rand, Met: !keys.Owner.IsZero() || keys.Met,
		Present: func(ctx context.Context, d can.Digest) (bool, error) {
			_, ok, err := n.inv.Present(ctx, d)
			return ok, err
		},
		Replica: replica.Options{
			View: view, Store: n.store, Verifier: n.verifier, Now: n.cfg.Now, Rand: n.cfg.Rand, Logger: n.log,
		},
	})
}

// open opens a library from its stored keys.
func (n *Node) open(ctx context.Context, keys keyring.Library) (*Library, error) {
	lib, err := n.openMember(ctx, keys)
	if err != nil {
		return nil, err
	}
	return n.install(keys, lib, nil), nil
}

// install puts a library into service. into is the one it was joined as, or nil.
func (n *Node) install(keys keyring.Library, lib *library.Library, into *Library) *Library {
	l := into
	if l == nil {
		l = &Library{n: n, id: keys.ID}
	}
	lib.Observe(func(ap replica.Applied) { n.onRecords(l.id, ap) })
	n.mu.Lock()
	l.l, l.keys, l.ticket, l.refused = lib, keys, Ticket{}, nil
	if n.libs != nil {
		n.libs[l.id] = l
	}
	n.mu.Unlock()
	n.govern(keys)
	n.fetcher.Add(lib)
	n.announcer.AddGated(lib, n.gateFor(lib, keys.Approve))
	shared := lib.Session(func(transport.PeerID) { n.onRound(l, lib) })
	shared.OnFound = func() { n.fetcher.Kick(l.id) }
	n.sessions.Add(shared)
	return l
}

// onRound is called after each reconciliation of a library with a peer.
func (n *Node) onRound(l *Library, lib *library.Library) {
	n.fetcher.Kick(l.id)
	n.mu.Lock()
	fresh := !l.keys.Met && !l.meeting && l.l == lib && l.keys.Owner.IsZero()
	if fresh {
		l.meeting = true
	}
	n.mu.Unlock()
	if !fresh {
		return
	}
	// Not here: Leave waits for the session, which waits for this, and meanwhile
	// nobody else may change what is kept of a library.
	n.wg.Go(func() {
		if _, err := l.keep(n.ctx, func(k *keyring.Library) { k.Met = true }); err != nil && n.ctx.Err() == nil && !errors.Is(err, ErrNoLibrary) {
			n.log.Warn("first meeting not kept", "library", l.id.String(), "error", err)
		}
		n.mu.Lock()
		l.meeting = false // not kept: the next round tries again
		n.mu.Unlock()
	})
}

// JoinWith is [Node.Join] with choices of this node's, which hold from the
// beginning. Errors match [ErrConfig] or [ErrFilter] too.
func (n *Node) JoinWith(ctx context.Context, t Ticket, c Choices) (*Library, error) {
	done, err := n.use()
	if err != nil {
		return nil, err
	}
	defer done()
	text, err := t.ExportSecret()
	if err != nil {
		return nil, err
	}
	now := n.cfg.Now()
	if end := t.Expires(); !end.IsZero() && now.After(end) {
		return nil, fmt.Errorf("%w on %s; ask for a new one", ErrTicketExpired, end.Format("2006-01-02 15:04 MST"))
	}
	if end := t.t.GrantExp(); !end.IsZero() && now.After(end) {
		return nil, fmt.Errorf("%w: the membership it gives ended on %s", ErrTicketExpired, end.Format("2006-01-02 15:04 MST"))
	}
	choose, err := n.check(ctx, c)
	if err != nil {
		return nil, err
	}
	select {
	case <-n.change:
		defer func() { n.change <- struct{}{} }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	n.mu.Lock()
	old := n.libs[t.Library()]
	joining := old != nil && old.l == nil
	n.mu.Unlock()
	if old != nil && !joining {
		return nil, fmt.Errorf("%w: %s", ErrExists, old.Name())
	}
	if old == nil {
		if keys, ok := n.ring.Library(t.Library()); ok && keys.State == keyring.Archived && len(keys.Bundle) > 0 {
			choose(&keys)
			return n.comeBack(ctx, keys, t)
		}
	}
	keys := keyring.Library{ID: t.Library(), State: keyring.Joining, Name: t.Name(), Ticket: text}
	if joining { // with another ticket; what the host set meanwhile holds
		n.mu.Lock()
		keys.View, keys.Mode, keys.Approve = old.keys.View, old.keys.Mode, old.keys.Approve
		keys.Upload, keys.Download, keys.Quota = old.keys.Upload, old.keys.Download, old.keys.Quota
		keys.Bundle, keys.Cert, keys.Lasting, keys.Epochs = old.keys.Bundle, old.keys.Cert, old.keys.Lasting, old.keys.Epochs
		n.mu.Unlock()
	}
	choose(&keys)
	if err := n.ring.Save(keys); err != nil {
		return nil, err
	}
	return n.beginJoin(keys, t, old), nil
}

// comeBack takes a library into service again that the node had left, with its old
// membership unless that ended or the ticket gives a better one.
func (n *Node) comeBack(ctx context.Context, keys keyring.Library, t Ticket) (*Library, error) {
	lib, err := n.openMember(ctx, keys)
	if err != nil {
		return nil, err
	}
	if g := lib.Grant(); !g.ValidAt(n.cfg.Now(), 0) || better(t.t, g) {
		if err := lib.Close(); err != nil {
			return nil, err
		}
		// The old membership stays until the new one is there: see Leave.
		keys.State, keys.Met = keyring.Joining, keys.Met && g.ValidAt(n.cfg.Now(), 0)
		if keys.Ticket, err = t.ExportSecret(); err == nil {
			err = n.ring.Save(keys)
		}
		if err != nil {
			return nil, err
		}
		return n.beginJoin(keys, t, nil), nil
	}
	keys.State = keyring.Active
	if err := n.ring.Save(keys); err != nil {
		return nil, errors.Join(err, lib.Close())
	}
	n.sessions.Learn(t.t.Peers...)
	return n.install(keys, lib, nil), nil
}

// better reports whether a ticket allows what a membership does not, or the same for
// longer.
func better(t capability.Ticket, g capability.Grant) bool {
	end := t.Invite.Chain.Last().GrantExp
	longer := g.GrantExp != 0 && (end == 0 || end > g.GrantExp)
	return !g.Rights.Has(t.Rights()) || longer && t.Rights().Has(g.Rights)
}

// resumeJoin goes on joining after a restart.
func (n *Node) resumeJoin(keys keyring.Library) error {
	t, err := ParseTicket(keys.Ticket)
	if err != nil {
		return err
	}
	n.beginJoin(keys, t, nil)
	return nil
}

func (n *Node) beginJoin(keys keyring.Library, t Ticket, l *Library) *Library {
	n.mu.Lock()
	if l == nil {
		l = &Library{n: n, id: keys.ID}
	}
	l.keys, l.ticket, l.refused = keys, t, nil
	if n.libs != nil {
		n.libs[l.id] = l
	}
	n.mu.Unlock()
	n.sessions.Join(&session.Joining{
		Ticket: t.t,
		Joined: func(g capability.Grant, k capability.EpochKeys, b capability.Bundle) error {
			return n.joined(l, g, k, b)
		},
		Refused: func(err error) {
			n.mu.Lock()
			l.refused = err
			n.mu.Unlock()
			n.log.Warn("ticket refused", "library", l.id.String(), "error", err)
			n.events.emit(Event{Kind: EventRefused, Library: l.id, Err: err})
		},
	})
	return l
}

// joined makes a membership last and puts the library into service.
func (n *Node) joined(l *Library, g capability.Grant, k capability.EpochKeys, b capability.Bundle) error {
	select {
	case <-n.change:
		defer func() { n.change <- struct{}{} }()
	case <-n.ctx.Done():
		return ErrClosed
	}
	n.mu.Lock()
	keys, gone := l.keys, l.gone
	n.mu.Unlock()
	if gone {
		return ErrNoLibrary
	}
	keys.State, keys.Ticket, keys.Lasting = keyring.Active, "", k.Lasting
	keys.Bundle, keys.Cert = b.Encode(), g.ID
	keys.Epochs = []keyring.Epoch{{Number: k.Epoch, Secret: k.Secret}}
	lib, err := n.openMember(n.ctx, keys)
	if err != nil {
		return err
	}
	if err := n.ring.Save(keys); err != nil {
		return errors.Join(err, lib.Close())
	}
	n.install(keys, lib, l)
	n.events.emit(Event{Kind: EventJoined, Library: l.id})
	return nil
}

// The callbacks of the machinery.

func (n *Node) onPeer(lib [32]byte, peer transport.PeerID, up bool) {
	kind := EventPeerDown
	if up {
		kind = EventPeerUp
		n.fetcher.Kick(lib)
	}
	n.events.emit(Event{Kind: kind, Library: lib, Peer: peer})
}

func (n *Node) onRecords(lib LibraryID, ap replica.Applied) {
	if ap.From.IsZero() || ap.Control {
		return
	}
	for _, c := range ap.Changes {
		n.events.emit(Event{Kind: EventRecord, Library: lib, Asset: c.Asset, Peer: ap.From})
	}
}

func (n *Node) onHealth(err error) {
	if err != nil {
		n.log.Warn("CAN Service is failing", "error", err)
	} else {
		n.log.Info("CAN Service is healthy")
	}
	n.events.emit(Event{Kind: EventService, Err: err})
}

func (n *Node) onHeld(lib [32]byte, count int) {
	n.log.Warn("removals held back until confirmed", "library", hex.EncodeToString(lib[:]), "count", count)
	n.events.emit(Event{Kind: EventHeld, Library: lib, Size: int64(count)})
}

func (n *Node) onAnnounce(e announce.Event) {
	kinds := map[announce.EventKind]EventKind{
		announce.Announced: EventAnnounced, announce.Edited: EventAnnounced, announce.Removed: EventRemoved, announce.Failed: EventFailed,
	}
	n.events.emit(Event{Kind: kinds[e.Kind], Library: e.Library, Asset: e.Asset, Err: e.Err})
}

func (n *Node) onFetch(e fetch.Event) {
	kinds := map[fetch.Kind]EventKind{
		fetch.Fetched: EventFetched, fetch.Updated: EventUpdated, fetch.Trashed: EventTrashed, fetch.Failed: EventFailed,
	}
	if e.Kind == fetch.Failed && (errors.Is(e.Err, transfer.ErrNotServed) || errors.Is(e.Err, transfer.ErrNoPeer)) {
		n.sessions.Seek(e.Library, e.Asset) // no neighbour has it
	}
	n.events.emit(Event{Kind: kinds[e.Kind], Library: e.Library, Asset: e.Asset, Size: e.Bytes, Duration: e.Duration, Err: e.Err})
}
