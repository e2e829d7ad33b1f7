package cansync

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/announce"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/transport"
)

// Content in the CAN Service may rot. Where serving finds other bytes than were
// announced, the asset is marked, so that it is served no more, and queued in every
// library that holds it. It is then read once more as a whole: a service that
// merely erred once gets no second copy. What did rot is fetched from other members
// and ingested again, which a service that names assets by their content may refuse.

const (
	// maxMends bounds the assets that wait to be read again; others are found again
	// when they are next asked for.
	maxMends  = 1024
	mendTries = 3
	mendWait  = 10 * time.Second // then twice as long
	mendRest  = 5 * time.Minute  // at most
)

// mender reads doubtful assets again, one at a time.
type mender struct {
	mu      sync.Mutex
	waiting []inventory.Item // the first is being read
}

// reading reports whether an asset of the size waits to be read again.
func (m *mender) reading(size int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, it := range m.waiting {
		if it.Size == size {
			return true
		}
	}
	return false
}

// add takes in an asset and reports whether it was new, and the only one.
func (m *mender) add(it inventory.Item) (fresh, only bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range m.waiting {
		if o.Handle == it.Handle {
			return false, false
		}
	}
	if len(m.waiting) == maxMends {
		return false, false
	}
	m.waiting = append(m.waiting, it)
	return true, len(m.waiting) == 1
}

// next ends the reading of the first and returns the one behind it.
func (m *mender) next() (inventory.Item, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waiting = m.waiting[1:]; len(m.waiting) == 0 {
		m.waiting = nil
		return inventory.Item{}, false
	}
	return m.waiting[0], true
}

// onCorrupt is told that the service gave other bytes for an asset than it did.
func (n *Node) onCorrupt(handle string, d can.Digest) {
	item, known, err := n.inv.ByHandle(n.ctx, handle)
	if err != nil || !known || item.Digest != d || item.Is(inventory.Bad) {
		return
	}
	fresh, only := n.mender.add(item)
	if !fresh {
		return
	}
	n.log.Error("CAN Service returns other bytes than it did", "handle", handle, "digest", d.String())
	if err := n.flagBad(handle, true); err != nil && n.ctx.Err() == nil {
		n.log.Warn("damaged asset not marked", "handle", handle, "error", err)
	}
	n.lookAgain(d)
	if only {
		n.wg.Go(func() { n.mend(item) })
	}
}

func (n *Node) flagBad(handle string, bad bool) error {
	return n.inv.Modify(n.ctx, []string{handle}, func(it *inventory.Item) bool {
		if it.Flags &^= inventory.Bad; bad {
			it.Flags |= inventory.Bad
		}
		return true
	})
}

// lookAgain queues an asset in every library that holds it.
func (n *Node) lookAgain(d can.Digest) {
	for _, id := range n.holders(d) {
		lib, ok := n.replicated(id)
		if !ok {
			continue
		}
		if err := lib.Enqueue(n.ctx, d); err != nil {
			if n.ctx.Err() == nil {
				n.log.Warn("damaged asset not queued", "digest", d.String(), "error", err)
			}
			continue
		}
		n.fetcher.Kick(id)
	}
}

// holders returns the libraries in which an asset is live.
func (n *Node) holders(d can.Digest) (ids []LibraryID) {
	for _, l := range n.Libraries() {
		lib, ok := n.replicated(l.id)
		if !ok {
			continue
		}
		if e, err := lib.Entry(n.ctx, d); err == nil && e.Member {
			ids = append(ids, l.id)
		}
	}
	return ids
}

// mend reads assets again until none waits.
func (n *Node) mend(item inventory.Item) {
	for more := true; more; item, more = n.mender.next() {
		if n.ctx.Err() != nil {
			return
		}
		err := n.reread(item)
		if n.ctx.Err() != nil {
			return // it stays marked and queued
		}
		if err == nil {
			n.log.Info("asset is in order after all", "handle", item.Handle)
			if err := n.flagBad(item.Handle, false); err != nil {
				n.log.Warn("mark of an asset not removed", "handle", item.Handle, "error", err)
			}
			continue
		}
		for _, id := range n.holders(item.Digest) {
			n.events.emit(Event{Kind: EventFailed, Library: id, Asset: item.Digest, Err: can.ErrCorrupted})
		}
	}
}

// reread returns nil if the service's content is what it was.
func (n *Node) reread(item inventory.Item) error {
	wait := mendWait
	for try := 1; ; try++ {
		d, err := announce.Hash(n.ctx, n.cfg.CAN, item.Handle)
		switch {
		case err == nil && d == item.Digest:
			return nil
		case err == nil:
			return can.ErrCorrupted
		case errors.Is(err, can.ErrCorrupted), errors.Is(err, can.ErrNotFound):
			return err
		case errors.Is(err, can.ErrUnavailable):
			try = 0 // that says nothing of the asset
		case try == mendTries:
			return err
		}
		if !pause(n.ctx, wait) {
			return n.ctx.Err()
		}
		wait = min(2*wait, mendRest)
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// unread tells the fetcher that a content may be here although it is not known.
func (n *Node) unread(size int64) bool {
	return n.announcer.Unread(size) || n.mender.reading(size)
}

// onLiar is told that a peer sent bytes that are not what the record promises,
// which no peer in good order does.
func (n *Node) onLiar(peer transport.PeerID) {
	n.events.emit(Event{Kind: EventPeerLied, Peer: peer, Err: errLied})
	n.sessions.Blame(peer)
}

var errLied = errors.New("the peer sent wrong bytes; it is left alone for ten minutes")
