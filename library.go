package cansync

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/keyring"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/transport"
)

// Library is a shared collection of which the node is a member, or which it is
// joining. It is safe for concurrent use. After [Library.Leave] its methods return
// [ErrNoLibrary], after [Node.Close] [ErrClosed].
type Library struct {
	n  *Node
	id LibraryID

	// Guarded by n.mu.
	l       *library.Library // nil while joining
	keys    keyring.Library
	ticket  Ticket // while joining
	refused error  // the last refusal while joining
	gone    bool
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

// InviteOptions say what a ticket gives. The zero value makes the ticket that one
// gives to another machine of one's own: it lets its holder read, write and
// invite others, and can be redeemed for 7 days.
type InviteOptions struct {
	// Access is what the membership allows; 0 means reading, writing and inviting,
	// as far as the node's own membership goes. Read is always part of it.
	Access Access
	// ValidFor is how long the ticket can be redeemed; 0 means 7 days. It takes
	// whole seconds.
	ValidFor time.Duration
	// MemberUntil ends the memberships that come of the ticket; the zero time means
	// as long as the node's own.
	MemberUntil time.Time
}

// DefaultInviteValidity is how long a ticket can be redeemed unless told
// otherwise.
const DefaultInviteValidity = 7 * 24 * time.Hour

// MaxInviteValidity bounds [InviteOptions.ValidFor].
const MaxInviteValidity = 10 * 365 * 24 * time.Hour

// Invite makes a ticket. Any number of devices may redeem it, at any member that
// may invite, until it ends. Errors match [ErrForbidden] where the node's own
// membership does not allow it, and [ErrNotJoined].
func (l *Library) Invite(ctx context.Context, o InviteOptions) (Ticket, error) {
	lib, done, err := l.member()
	if err != nil {
		return Ticket{}, err
	}
	defer done()
	if o.Access == 0 {
		o.Access = (Read | Write | Invite) & accessOf(lib.Grant().Rights)
	}
	if o.ValidFor == 0 {
		o.ValidFor = DefaultInviteValidity
	}
	if o.ValidFor < time.Second || o.ValidFor > MaxInviteValidity {
		return Ticket{}, fmt.Errorf("%w: ValidFor: %s is not between a second and ten years", ErrConfig, o.ValidFor)
	}
	if o.Access&^(Read|Write|Invite|Admin) != 0 {
		return Ticket{}, fmt.Errorf("%w: Access: unknown right", ErrConfig)
	}
	t, err := lib.Invite(ctx, capability.InviteOptions{
		Rights: capability.Rights(o.Access | Read), RedeemBy: l.n.cfg.Now().Add(o.ValidFor), GrantExp: o.MemberUntil,
	}, l.n.contacts(lib))
	if err != nil {
		return Ticket{}, err
	}
	return Ticket{t}, nil
}

// contacts returns the node's own addresses and those of a few other members, for
// a ticket.
func (n *Node) contacts(lib *library.Library) []transport.PeerInfo {
	limit := func(p transport.PeerInfo) transport.PeerInfo {
		var addrs []string
		for _, a := range p.Addrs {
			if len(a) <= capability.MaxAddr && len(addrs) < capability.MaxAddrs {
				addrs = append(addrs, a)
			}
		}
		return transport.PeerInfo{ID: p.ID, Addrs: addrs}
	}
	self := n.tr.ID()
	out := []transport.PeerInfo{limit(transport.PeerInfo{ID: self, Addrs: preferred(n.tr.Addrs())})}
	seen := map[transport.PeerID]bool{self: true}
	for _, m := range lib.Members() {
		id := transport.PeerID(m.Device)
		if seen[id] || !m.Rights.Has(capability.Invite) || len(out) == capability.MaxPeers {
			continue
		}
		seen[id] = true
		if p := limit(n.sessions.Known(id)); len(p.Addrs) > 0 {
			out = append(out, p)
		}
	}
	return out
}

// Member is a device that was admitted to a library.
type Member struct {
	Peer transport.PeerID
	// Access is what it may do.
	Access Access
	// Until ends its membership; the zero time means no end.
	Until time.Time
	// Self says that it is this node.
	Self bool
	// Connected says that the library is shared with it now.
	Connected bool
	// Joined is when it was admitted, by the clock of who admitted it.
	Joined time.Time
}

// Members returns the devices of the library in the order in which they were
// admitted.
func (l *Library) Members() ([]Member, error) {
	lib, done, err := l.member()
	if err != nil {
		return nil, err
	}
	defer done()
	up := make(map[transport.PeerID]bool)
	for _, p := range l.n.sessions.Peers(l.id) {
		up[p.ID] = true
	}
	var out []Member
	at := make(map[transport.PeerID]int)
	for _, m := range lib.Members() {
		id := transport.PeerID(m.Device)
		one := Member{
			Peer: id, Access: accessOf(m.Rights), Self: id == l.n.tr.ID(), Connected: up[id], Joined: m.Clock.Time(),
		}
		if m.GrantExp != 0 {
			one.Until = time.Unix(m.GrantExp, 0).UTC()
		}
		if i, ok := at[id]; ok { // it redeemed a second ticket: the rights add up
			out[i].Access |= one.Access
			continue
		}
		at[id] = len(out)
		out = append(out, one)
	}
	return out, nil
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

// View returns the filter by which this node's view is narrower than the library;
// the zero filter is none.
func (l *Library) View() Filter {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	f, err := filter.Decode(l.keys.View)
	if err != nil {
		return Filter{}
	}
	return filterOf(f)
}

// SetView narrows the library on this node to the assets that match the filter
// besides the library's own: nothing of the others is learned, fetched or listed
// here. It may be set while the library is being joined, lasts over restarts, and
// the zero filter ends it. What left the view stays in the CAN Service. Errors
// match [ErrFilter].
func (l *Library) SetView(ctx context.Context, f Filter) error {
	n := l.n
	done, err := n.use()
	if err != nil {
		return err
	}
	defer done()
	resolved, _, err := n.resolve(ctx, f)
	if err != nil {
		return err
	}
	enc, err := resolved.Encode()
	if err != nil {
		return err
	}
	lib, err := l.keep(ctx, func(k *keyring.Library) { k.View = enc })
	if err != nil || lib == nil {
		return err
	}
	if err := lib.SetOwnView(ctx, resolved); err != nil {
		return err
	}
	n.sessions.SetView(l.id, filter.View{resolved})
	return nil
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

// Asset is what a library says of one asset, and how far the node is with it.
type Asset struct {
	Digest can.Digest
	Size   int64
	// Timestamp is the original time of ingest in Unix milliseconds.
	Timestamp int64
	can.Metadata
	State AssetState
	// Cause says why the asset has not come further, and Detail more about it.
	Cause  Cause
	Detail string
	// Handle is the local CAN Service's hash for the content, empty while it is not
	// there.
	Handle string
}

// AssetState says how far the node is with an asset.
type AssetState string

// The states.
const (
	// Wanted: the content is not here yet.
	Wanted AssetState = "wanted"
	// Partial: part of the content is here.
	Partial AssetState = "partial"
	// Verified: the content is here and verified, and waits to be ingested.
	Verified AssetState = "verified"
	// Ingesting: the content is being given to the CAN Service.
	Ingesting AssetState = "ingesting"
	// Have: the CAN Service holds it.
	Have AssetState = "have"
	// TrashedHere: it was trashed here; it is not fetched again.
	TrashedHere AssetState = "trashed_here"
)

// Cause says why an asset has not come further; empty means that it waits for its
// turn.
type Cause string

// The causes.
const (
	NoPeer        Cause = "no_peer"        // no connected member has it
	SourceOffline Cause = "source_offline" // who announced it is not connected
	ServiceDown   Cause = "service_down"   // the local CAN Service is failing
	NotAllowed    Cause = "not_allowed"    // members do not serve it to this node
	NoSpace       Cause = "no_space"       // too little disk space
	BadContent    Cause = "bad_content"    // the content is not what was announced
	Rejected      Cause = "rejected"       // the local CAN Service refuses it
	HeldBack      Cause = "held"           // the host must confirm first
)

var (
	assetStates = map[replica.State]AssetState{
		replica.Wanted: Wanted, replica.Partial: Partial, replica.Verified: Verified, replica.Ingesting: Ingesting,
		replica.Have: Have, replica.TrashedHere: TrashedHere, replica.Gone: Wanted,
	}
	causes = map[replica.Cause]Cause{
		replica.NoPeer: NoPeer, replica.SourceOffline: SourceOffline, replica.ServiceDown: ServiceDown,
		replica.NotAllowed: NotAllowed, replica.NoSpace: NoSpace, replica.BadContent: BadContent,
		replica.Rejected: Rejected, replica.Held: HeldBack,
	}
)

// Assets yields the assets of the library, ordered by digest, as of one moment. It
// ends with the first error.
func (l *Library) Assets(ctx context.Context) iter.Seq2[Asset, error] {
	return func(yield func(Asset, error) bool) {
		lib, done, err := l.member()
		if err != nil {
			yield(Asset{}, err)
			return
		}
		defer done()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(l.n.ctx, cancel)() // Close ends the listing
		for e, err := range lib.Entries(ctx) {
			if err == nil && !e.Member {
				continue
			}
			var a Asset
			if err == nil {
				a, err = l.asset(ctx, lib, e)
			}
			if !yield(a, err) || err != nil {
				return
			}
		}
	}
}

// Asset returns one asset; the error matches [ErrNoAsset] where the library does
// not hold it.
func (l *Library) Asset(ctx context.Context, d can.Digest) (Asset, error) {
	lib, done, err := l.member()
	if err != nil {
		return Asset{}, err
	}
	defer done()
	e, err := lib.Entry(ctx, d)
	if err == nil && !e.Member {
		err = fmt.Errorf("%w: %s", ErrNoAsset, d)
	}
	if err != nil {
		return Asset{}, err
	}
	return l.asset(ctx, lib, e)
}

func (l *Library) asset(ctx context.Context, lib *library.Library, e replica.Entry) (Asset, error) {
	a := Asset{
		Digest: e.Asset, Size: int64(e.Body.Size), Timestamp: e.Body.Timestamp, Metadata: e.Body.Metadata(), State: Wanted,
	}
	if w, queued, err := lib.Work(ctx, e.Asset); err != nil {
		return Asset{}, err
	} else if queued {
		a.State, a.Cause, a.Detail = assetStates[w.State], causes[w.Cause], w.Detail
	} else if local, err := lib.Local(ctx, e.Asset); err != nil {
		return Asset{}, err
	} else if s, ok := assetStates[local.State]; ok {
		a.State = s
	}
	item, ok, err := l.n.inv.Present(ctx, e.Asset)
	if err == nil && ok {
		a.Handle = item.Handle
	}
	return a, err
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

// Mode says what this node does in a library. Records are exchanged in every mode,
// so that the node can tell what the library holds.
type Mode string

// The modes.
const (
	// Sync announces, fetches and serves. It is the default, and what "" stands for.
	Sync Mode = "sync"
	// ReceiveOnly announces nothing of this node's.
	ReceiveOnly Mode = Mode(library.ModeReceiveOnly)
	// AnnounceOnly fetches nothing and applies nothing to the CAN Service.
	AnnounceOnly Mode = Mode(library.ModeAnnounceOnly)
	// RecordsOnly neither announces nor fetches; see [Library.Fetch].
	RecordsOnly Mode = Mode(library.ModeRecordsOnly)
	// Paused does not even serve.
	Paused Mode = Mode(library.ModePaused)
)

// Mode returns what this node does in the library.
func (l *Library) Mode() Mode {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	if l.keys.Mode == "" {
		return Sync
	}
	return Mode(l.keys.Mode)
}

// SetMode changes what this node does in the library. It may be set while the
// library is being joined, and lasts over restarts. Errors match [ErrConfig] for a
// mode that there is not.
func (l *Library) SetMode(m Mode) error {
	internal := library.Mode(m)
	if m == Sync {
		internal = library.ModeSync
	}
	if !internal.Valid() {
		return fmt.Errorf("%w: mode %q is none of sync, receive-only, announce-only, records-only, paused", ErrConfig, clip(string(m)))
	}
	done, err := l.n.use()
	if err != nil {
		return err
	}
	defer done()
	lib, err := l.keep(l.n.ctx, func(k *keyring.Library) { k.Mode = string(internal) })
	if err != nil || lib == nil {
		return err
	}
	lib.SetMode(internal)
	l.n.fetcher.Kick(l.id)
	l.n.announcer.Poke()
	return nil
}

// Pause is SetMode(Paused).
func (l *Library) Pause() error { return l.SetMode(Paused) }

// Resume is SetMode(Sync).
func (l *Library) Resume() error { return l.SetMode(Sync) }

// keep changes what the key ring holds of the library. It returns the machinery,
// nil while joining.
func (l *Library) keep(ctx context.Context, change func(*keyring.Library)) (*library.Library, error) {
	n := l.n
	select {
	case <-n.change:
		defer func() { n.change <- struct{}{} }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	n.mu.Lock()
	keys, lib, gone := l.keys, l.l, l.gone
	n.mu.Unlock()
	if gone {
		return nil, fmt.Errorf("%w: %s", ErrNoLibrary, l.id)
	}
	change(&keys)
	if err := n.ring.Save(keys); err != nil {
		return nil, err
	}
	n.mu.Lock()
	l.keys = keys
	n.mu.Unlock()
	return lib, nil
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
