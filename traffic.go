package cansync

import (
	"context"
	"fmt"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/fetch"
	"github.com/cansync/cansync/internal/keyring"
	"github.com/cansync/cansync/internal/transfer"
	"github.com/cansync/cansync/transport"
)

// Limits hold back the traffic of contents, in bytes per second; 0 is no limit.
// Limits below [MinLimit] count as MinLimit, since peers would take a slower
// transfer for one that hangs. Records and other small talk are not held back.
type Limits struct {
	Upload   int64 `json:"upload"`
	Download int64 `json:"download"`
}

// MinLimit is the smallest limit in force, in bytes per second.
const MinLimit = transfer.MinRate

// effective returns the limits as they are in force.
func (l Limits) effective() Limits {
	for _, n := range []*int64{&l.Upload, &l.Download} {
		if *n > 0 {
			*n = max(*n, MinLimit)
		}
	}
	return l
}

func (l Limits) check() error {
	if l.Upload < 0 || l.Download < 0 {
		return fmt.Errorf("%w: Limits: negative", ErrConfig)
	}
	return nil
}

// limits of each kind apply together: a transfer passes those of the node, of its
// library and of the peer.
type limits struct{ up, down transfer.Limiter }

// SetLimits limits all traffic of the node together, from now on; see
// [Config.Limits] for the limits at the start. It takes effect within a quarter of
// a second, for transfers that are under way too. Errors match [ErrConfig].
func (n *Node) SetLimits(l Limits) error {
	if err := l.check(); err != nil {
		return err
	}
	done, err := n.use()
	if err != nil {
		return err
	}
	defer done()
	n.mu.Lock()
	n.limited = l
	n.mu.Unlock()
	n.limits.up.SetNode(l.Upload)
	n.limits.down.SetNode(l.Download)
	return nil
}

// Limits returns the limits of the node that are in force: none is between 0 and
// [MinLimit].
func (n *Node) Limits() Limits {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.limited.effective()
}

// MaxPeerLimits bounds the peers that have limits of their own.
const MaxPeerLimits = 1024

// SetPeerLimits limits the traffic with one peer, in all libraries together, until
// the node is closed; the zero Limits lift them. The peer need not be connected.
// Errors match [ErrConfig], also for more than [MaxPeerLimits] peers.
func (n *Node) SetPeerLimits(peer transport.PeerID, l Limits) error {
	if err := l.check(); err != nil {
		return err
	}
	done, err := n.use()
	if err != nil {
		return err
	}
	defer done()
	n.mu.Lock()
	defer n.mu.Unlock()
	if l == (Limits{}) {
		delete(n.peerLimits, peer)
	} else {
		if n.peerLimits == nil {
			n.peerLimits = make(map[transport.PeerID]Limits)
		}
		if _, ok := n.peerLimits[peer]; !ok && len(n.peerLimits) == MaxPeerLimits {
			return fmt.Errorf("%w: Limits: %d peers have some already; lift one's first", ErrConfig, MaxPeerLimits)
		}
		n.peerLimits[peer] = l
	}
	n.limits.up.SetPeer(peer, l.Upload)
	n.limits.down.SetPeer(peer, l.Download)
	return nil
}

// PeerLimits returns the limits in force of each peer that has some.
func (n *Node) PeerLimits() map[transport.PeerID]Limits {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make(map[transport.PeerID]Limits, len(n.peerLimits))
	for id, l := range n.peerLimits {
		out[id] = l.effective()
	}
	return out
}

// SetLimits limits the library's traffic on this node. It may be set while the
// library is being joined, and lasts over restarts. Errors match [ErrConfig].
func (l *Library) SetLimits(limits Limits) error {
	if err := limits.check(); err != nil {
		return err
	}
	done, err := l.n.use()
	if err != nil {
		return err
	}
	defer done()
	lib, err := l.keep(l.n.ctx, func(k *keyring.Library) { k.Upload, k.Download = limits.Upload, limits.Download })
	if err != nil || lib == nil {
		return err
	}
	l.n.limits.up.SetLibrary(l.id, limits.Upload)
	l.n.limits.down.SetLibrary(l.id, limits.Download)
	return nil
}

// Limits returns the limits of the library that are in force: none is between 0 and
// [MinLimit].
func (l *Library) Limits() Limits {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	return Limits{Upload: l.keys.Upload, Download: l.keys.Download}.effective()
}

// SetQuota bounds how many bytes of the library the node brings into the local CAN
// Service; 0 is no bound. An asset is fetched only if it fits, together with those
// of the library's assets that are here already, wherever they came from, and those
// that are on their way; assets trashed here count as well. One that does not fit
// waits with the cause [NoSpace] and a detail that begins with "quota", and smaller
// ones that do fit come before it. What fits after a removal or into a larger quota
// is fetched then; a smaller quota removes nothing. It may be set while the library
// is being joined, and lasts over restarts. Errors match [ErrConfig].
func (l *Library) SetQuota(bytes int64) error {
	if bytes < 0 {
		return errQuota
	}
	done, err := l.n.use()
	if err != nil {
		return err
	}
	defer done()
	lib, err := l.keep(l.n.ctx, func(k *keyring.Library) { k.Quota = bytes })
	if err != nil || lib == nil {
		return err
	}
	l.n.fetcher.SetQuota(l.id, bytes)
	return nil
}

// Quota returns the library's quota in bytes; 0 is none.
func (l *Library) Quota() int64 {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	return l.keys.Quota
}

// govern puts what the key ring says of a library's traffic in force.
func (n *Node) govern(keys keyring.Library) {
	n.limits.up.SetLibrary(keys.ID, keys.Upload)
	n.limits.down.SetLibrary(keys.ID, keys.Download)
	n.fetcher.SetQuota(keys.ID, keys.Quota)
}

// ungovern forgets a library's traffic.
func (n *Node) ungovern(id LibraryID) {
	n.govern(keyring.Library{ID: id})
	n.flows.forget(id)
}

// MaxAsked bounds the assets of a library that are asked for by name and not here
// yet; [Library.Fetch] and [Library.Prioritize] beyond it return [ErrTooMany].
const MaxAsked = fetch.MaxAsked

// ErrTooMany says that more than [MaxAsked] assets are asked for by name.
var ErrTooMany = fetch.ErrTooMany

// Fetch fetches assets on demand: before all others of the node, and also in modes
// in which nothing else is fetched, except [Paused], in which it waits for the end of
// that. Assets that were trashed here come back, and a removal of them that was held
// is not made. Assets that are here or that the library does not hold are passed
// over. It returns when they are queued; [Library.Asset] tells how far each is,
// [EventFetched] when it came, and [Library.WaitHolders] waits for that. What could
// not be had at once is tried again; in a mode that fetches nothing else a restart
// forgets it. Errors match [ErrTooMany], [ErrNotJoined], [ErrNoLibrary] or [ErrClosed],
// or are the store's.
func (l *Library) Fetch(ctx context.Context, digests ...can.Digest) error {
	_, done, err := l.member()
	if err != nil {
		return err
	}
	defer done()
	if len(digests) > MaxAsked {
		return fmt.Errorf("%w: %d at once, at most %d", ErrTooMany, len(digests), MaxAsked)
	}
	if err := l.n.announcer.Reclaim(l.id, digests...); err != nil {
		return err
	}
	return l.n.fetcher.Fetch(ctx, l.id, digests...)
}

// Prioritize puts assets before all others that the node fetches. Transfers that are
// under way go on beside them at an equal share, and no further ones of the same size
// class begin but one at a time. Without it small assets come first. Assets that are
// on their way already, that are here, were trashed here or are not in the library
// are passed over, and in a mode that fetches nothing it does nothing. Errors are
// those of [Library.Fetch].
func (l *Library) Prioritize(ctx context.Context, digests ...can.Digest) error {
	lib, done, err := l.member()
	if err != nil {
		return err
	}
	defer done()
	if !lib.Fetches() {
		return nil
	}
	return l.n.fetcher.Fetch(ctx, l.id, digests...)
}
