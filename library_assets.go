package cansync

import (
	"context"
	"fmt"
	"iter"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/transport"
)

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
// ends with the first error, and with [ErrClosed] when the node is closed meanwhile.
func (l *Library) Assets(ctx context.Context) iter.Seq2[Asset, error] {
	return l.AssetsAfter(ctx, can.Digest{})
}

// AssetsAfter is [Library.Assets] for the assets behind one, for hosts that show
// pages; the zero digest is before all.
func (l *Library) AssetsAfter(ctx context.Context, after can.Digest) iter.Seq2[Asset, error] {
	return listing(ctx, l, func(ctx context.Context, lib *library.Library) iter.Seq2[Asset, error] {
		return func(yield func(Asset, error) bool) {
			for e, err := range lib.EntriesAfter(ctx, after) {
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
	})
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
	if a.Cause == NoPeer && !l.connected(lib, e.Live.Author) {
		a.Cause = SourceOffline
	}
	item, ok, err := l.n.inv.Present(ctx, e.Asset)
	if err == nil && ok {
		a.Handle = item.Handle
	}
	return a, err
}

// connected reports whether the library is shared now with the member whose author
// key this is.
func (l *Library) connected(lib *library.Library, author [32]byte) bool {
	up := make(map[transport.PeerID]bool)
	for _, p := range l.n.sessions.Peers(l.id) {
		up[p.ID] = true
	}
	for _, m := range lib.Members() {
		if m.Author == author && up[transport.PeerID(m.Device)] {
			return true
		}
	}
	return false
}
