package cansync

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/transport"
)

// Asset is what a library says of one asset, and how far the node is with it.
type Asset struct {
	// Digest is the SHA-256 of the content, Size its number of bytes.
	Digest can.Digest
	Size   int64
	// Timestamp is the original time of ingest in Unix milliseconds.
	Timestamp int64
	can.Metadata
	State AssetState
	// Cause says why the asset has not come further, and Detail more about it.
	Cause  Cause
	Detail string
	// OfflineSince is, with the cause [SourceOffline], when the last link to who
	// announced it ended; zero when that is not known any more.
	OfflineSince time.Time
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
	// TrashedHere: it was trashed here; it is not fetched again, unless
	// [Library.Fetch] asks for it.
	TrashedHere AssetState = "trashed_here"
	// NotWanted: the content is neither here nor to be fetched; the cause says why.
	NotWanted AssetState = "not_wanted"
)

// Cause says why an asset has not come further; empty means that it waits for its
// turn.
type Cause string

// The causes.
const (
	NoPeer        Cause = "no_peer"        // no connected member has it, or may give it to this node: both answer the same
	SourceOffline Cause = "source_offline" // no connected member has it, and who announced it is not connected
	ServiceDown   Cause = "service_down"   // the local CAN Service is failing
	NotAllowed    Cause = "not_allowed"    // this node's membership has ended
	NoSpace       Cause = "no_space"       // too little disk space, or the quota is used up; see Detail
	BadContent    Cause = "bad_content"    // the content is not what was announced
	Rejected      Cause = "rejected"       // the local CAN Service refuses it
	HeldBack      Cause = "held"           // it was trashed here, and the removal waits for the host's confirmation
	OutsideView   Cause = "outside_view"   // the node's own view leaves it out; see [Library.SetView]
	ByMode        Cause = "mode"           // the library's mode fetches nothing; see [Library.Fetch]
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
// ends with the first error, and with [ErrClosed] when the node is closed meanwhile.
func (l *Library) Assets(ctx context.Context) iter.Seq2[Asset, error] {
	return l.AssetsAfter(ctx, can.Digest{})
}

// AssetsAfter is [Library.Assets] for the assets behind one, for hosts that show
// pages; the zero digest is before all.
func (l *Library) AssetsAfter(ctx context.Context, after can.Digest) iter.Seq2[Asset, error] {
	return listing(ctx, l, func(ctx context.Context, lib *library.Library) iter.Seq2[Asset, error] {
		return func(yield func(Asset, error) bool) {
			src := new(sources)
			for e, err := range lib.EntriesAfter(ctx, after) {
				if err == nil && !e.Member {
					continue
				}
				var a Asset
				if err == nil {
					a, err = l.asset(ctx, lib, e, src)
				}
				if !yield(a, err) || err != nil {
					return
				}
			}
		}
	})
}

// Asset returns one asset, also one that the library holds and the node's own view
// leaves out, as far as the node knows of it. The error matches [ErrNoAsset] where
// the library does not hold it.
func (l *Library) Asset(ctx context.Context, d can.Digest) (Asset, error) {
	lib, done, err := l.member()
	if err != nil {
		return Asset{}, err
	}
	defer done()
	e, err := lib.Entry(ctx, d)
	if err == nil && !e.Member && !outside(lib, e) {
		err = fmt.Errorf("%w: %s", ErrNoAsset, d)
	}
	if err != nil {
		return Asset{}, err
	}
	return l.asset(ctx, lib, e, new(sources))
}

// outside reports whether only the node's own view keeps an asset out.
func outside(lib *library.Library, e replica.Entry) bool {
	return !e.Member && lib.Shares(e)
}

func (l *Library) asset(ctx context.Context, lib *library.Library, e replica.Entry, src *sources) (Asset, error) {
	a := Asset{
		Digest: e.Asset, Size: int64(e.Body.Size), Timestamp: e.Body.Timestamp, Metadata: e.Body.Metadata(), State: Wanted,
	}
	w, queued, err := lib.Work(ctx, e.Asset)
	if err != nil {
		return Asset{}, err
	}
	if queued {
		a.State, a.Cause, a.Detail = assetStates[w.State], causes[w.Cause], w.Detail
	} else if local, err := lib.Local(ctx, e.Asset); err != nil {
		return Asset{}, err
	} else if s, ok := assetStates[local.State]; ok {
		a.State = s
	}
	item, here, err := l.n.inv.Present(ctx, e.Asset)
	if err != nil {
		return Asset{}, err
	}
	if here {
		a.Handle = item.Handle
	}
	return a, l.explain(ctx, lib, e, &a, src)
}

// explain finds the causes that no attempt to fetch tells of.
func (l *Library) explain(ctx context.Context, lib *library.Library, e replica.Entry, a *Asset, src *sources) error {
	if !e.Member {
		a.State, a.Cause, a.Detail = NotWanted, OutsideView, ""
		if a.Handle != "" {
			a.State = Have
		}
		return nil
	}
	if a.Handle == "" && l.n.announcer.Held(l.id) > 0 {
		items, err := l.n.inv.ByDigest(ctx, e.Asset)
		if err != nil {
			return err
		}
		for _, i := range items {
			if i.Is(inventory.Trashed) && !i.Is(inventory.TrashedByUs) {
				a.State, a.Cause, a.Detail = TrashedHere, HeldBack, "its removal waits for confirmation"
				return nil
			}
		}
	}
	switch a.State {
	case Have, TrashedHere, Ingesting:
		return nil
	}
	switch grant := lib.Grant(); {
	case !lib.Fetches() && (lib.Paused() || !l.n.fetcher.Asked(l.id, a.Digest)):
		a.Cause, a.Detail = ByMode, fmt.Sprintf("the mode is %s", l.Mode())
		if a.State == Wanted {
			a.State = NotWanted
		}
	case !grant.ValidAt(l.n.cfg.Now(), 0):
		a.Cause, a.Detail = NotAllowed, "the membership ended on "+capability.UnixTime(grant.GrantExp).Format("2006-01-02 15:04 MST")
	case a.Cause == NoPeer:
		src.look(l, lib)
		if !src.up[e.Live.Author] {
			a.Cause, a.OfflineSince = SourceOffline, src.since[e.Live.Author]
		}
	}
	return nil
}

// sources is what a listing knows of the members that announce: which of them are
// connected, and since when the others are not. It is looked up once, when the
// first asset asks.
type sources struct {
	known bool
	up    map[[32]byte]bool
	since map[[32]byte]time.Time
}

func (s *sources) look(l *Library, lib *library.Library) {
	if s.known {
		return
	}
	s.known, s.up, s.since = true, make(map[[32]byte]bool), make(map[[32]byte]time.Time)
	up := make(map[transport.PeerID]bool)
	for _, p := range l.n.sessions.Peers(l.id) {
		up[p.ID] = true
	}
	down := l.n.events.down(l.id)
	for _, m := range lib.Members() {
		id := transport.PeerID(m.Device)
		if up[id] {
			s.up[m.Author] = true
		}
		if t := down[id]; t.After(s.since[m.Author]) {
			s.since[m.Author] = t
		}
	}
}
