package announce

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/watchdog"
)

const (
	// largeContent is the size in bytes from which reading takes so long that one
	// reader is kept free of it.
	largeContent = 64 << 20
	readBuffer   = 128 << 10
	readTries    = 3
)

// lanes hold the assets to be read.
type lanes struct {
	urgent, bulk, large chan can.Asset
}

func newLanes() lanes {
	return lanes{make(chan can.Asset, 64), make(chan can.Asset, 64), make(chan can.Asset, 16)}
}

// push hands an asset to the readers. It reports false, and nothing is read, when
// interrupted.
func (a *Announcer) push(as can.Asset, urgent bool) bool {
	a.mu.Lock()
	if _, busy := a.busy[as.Handle]; busy {
		a.mu.Unlock()
		return true
	}
	a.busy[as.Handle] = as.Size
	a.mu.Unlock()
	// The desk stores an item before it frees the handle: one that became known
	// since it was looked up shows now.
	if item, known, err := a.inv.ByHandle(a.ctx, as.Handle); err == nil && known && !item.Is(inventory.Bad) {
		a.free(as.Handle)
		return true
	}
	lane := a.lanes.bulk
	var abort <-chan struct{}
	switch {
	case as.Size >= largeContent:
		lane = a.lanes.large
		if urgent { // polls must not wait for large contents
			select {
			case lane <- as:
				return true
			default:
				a.free(as.Handle)
				a.rest.put(as, ours, soon)
				return true
			}
		}
	case urgent:
		lane = a.lanes.urgent
	}
	if !urgent {
		abort = a.rescan
	}
	select {
	case lane <- as:
		return true
	case <-abort:
		a.scanNow() // put the token back
	case <-a.ctx.Done():
	}
	a.free(as.Handle)
	return false
}

func (a *Announcer) free(handle string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.busy, handle)
}

func (a *Announcer) isBusy(handle string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, busy := a.busy[handle]
	return busy
}

// reader reads contents, the urgent ones first.
func (a *Announcer) reader(large bool) {
	buf := make([]byte, readBuffer)
	tree := a.inv.NewOutboardWriter(a.ctx, func(fn func() error) error {
		if !a.patiently("store tree", fn) {
			return a.ctx.Err()
		}
		return nil
	})
	h := blob.NewHasherTo(-1, tree)
	lane := a.lanes.large
	if !large {
		lane = nil
	}
	for {
		var as can.Asset
		select {
		case as = <-a.lanes.urgent:
		default:
			select {
			case as = <-a.lanes.urgent:
			case as = <-a.lanes.bulk:
			case as = <-lane:
			case <-a.ctx.Done():
				return
			}
		}
		n, ok := a.take(as, h, tree, buf)
		if err := tree.Abort(); err != nil && a.ctx.Err() == nil {
			a.log.Warn("an unfinished tree could not be dropped", "handle", as.Handle, "error", err)
		}
		if ok {
			select {
			case a.notes <- n:
				continue // the desk frees the handle
			case <-a.ctx.Done():
			}
		}
		a.free(as.Handle)
	}
}

// take reads one content, with a few attempts while the service fails.
func (a *Announcer) take(as can.Asset, h *blob.Hasher, tree *inventory.OutboardWriter, buf []byte) (note, bool) {
	for try := 1; ; try++ {
		tree.Reset(as.Handle)
		sum, err := a.sum(as, h, buf)
		if a.ctx.Err() != nil {
			return note{}, false
		}
		switch {
		case err == nil:
			a.readable(nil)
			return a.fresh(as, sum, tree)
		case errors.Is(err, can.ErrNotFound):
			a.rest.drop(as.Handle) // gone meanwhile; the next scan sees what became of it
			return note{}, false
		case !serviceFault(err):
			a.unread(as, err, false)
			return note{}, false
		}
		a.readable(err)
		if errors.Is(err, watchdog.ErrSlow) {
			// It took a minute at least, which others wait for, and it may be this one only.
			a.unread(as, err, false)
			return note{}, false
		}
		wait := backoff(try, err)
		if try == readTries {
			a.rest.put(as, failing, func(n int) time.Duration { return backoff(n+readTries, err) })
			return note{}, false
		}
		if !sleep(a.ctx, wait) {
			return note{}, false
		}
	}
}

// serviceFault reports whether an error says more about the service than about the
// one asset.
func serviceFault(err error) bool {
	for _, s := range [...]error{can.ErrUnavailable, can.ErrDenied, can.ErrClosed, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, s) {
			return true
		}
	}
	for _, s := range [...]error{can.ErrCorrupted, can.ErrTruncated, can.ErrInvalid, can.ErrBadRequest, can.ErrTooLarge, blob.ErrSize} {
		if errors.Is(err, s) {
			return false
		}
	}
	return true
}

// readable records how reading went. A success clears a failure only when nothing
// else is failing any more.
func (a *Announcer) readable(err error) {
	a.health.set(aboutContents, err, a.cfg.Now())
}

// unread sets an asset aside whose content can't be had, for sure by its own fault or
// maybe by one of the service.
func (a *Announcer) unread(as can.Asset, err error, sure bool) {
	if a.rest.unread(as, sure) == 1 {
		a.log.Warn("asset unreadable, not announced", "handle", as.Handle, "error", err)
		a.cfg.OnEvent(Event{Kind: Failed, Err: err})
	}
}

// sum reads and hashes one content in one pass.
func (a *Announcer) sum(as can.Asset, h *blob.Hasher, buf []byte) (blob.Summary, error) {
	return sum(a.ctx, a.cfg.Client, as, h, buf)
}

// Hash reads an asset's content and returns its digest.
func Hash(ctx context.Context, client can.Opener, handle string) (can.Digest, error) {
	s, err := sum(ctx, client, can.Asset{Handle: handle, Size: -1}, blob.NewHasherTo(-1, io.Discard), make([]byte, readBuffer))
	return s.Digest, err
}

// sum gives up on a service that hangs, or gives a byte now and then: as long as it is
// read, a content keeps a reader from all others.
func sum(ctx context.Context, client can.Opener, as can.Asset, h *blob.Hasher, buf []byte) (blob.Summary, error) {
	rc, err := watchdog.Open(ctx, client, as.Handle, 0, -1, callTimeout)
	if err != nil {
		return blob.Summary{}, err
	}
	defer func() { _ = rc.Close() }()
	h.Reset(max(as.Size, -1))
	for {
		n, err := rc.Read(buf)
		if n > 0 {
			if _, err := h.Write(buf[:n]); err != nil {
				return blob.Summary{}, err
			}
		}
		if err == io.EOF {
			return h.Finish()
		}
		if err != nil {
			return blob.Summary{}, err
		}
	}
}

// fresh makes the note of an asset whose content is known now. Its tree is stored
// before the item that needs it.
func (a *Announcer) fresh(as can.Asset, sum blob.Summary, tree *inventory.OutboardWriter) (note, bool) {
	if item, known, err := a.inv.ByHandle(a.ctx, as.Handle); err == nil && known && item.Is(inventory.Bad) {
		if item.Digest != sum.Digest {
			a.unread(as, can.ErrCorrupted, true)
			return note{}, false
		}
		a.rest.hasRead(as.Handle)
		return note{kind: noteBack, asset: as, item: item}, true
	}
	a.rest.hasRead(as.Handle)
	if sum.Size > blob.GroupSize && tree.Commit(sum.Digest) != nil {
		return note{}, false // closing
	}
	return note{kind: noteFresh, asset: as, item: inventory.Item{
		Handle: as.Handle, Digest: sum.Digest, Root: sum.Root, Size: int64(sum.Size), Timestamp: as.Timestamp,
	}}, true
}

// patiently tries something with the store until it works; false when the
// announcer closes first. A full disk frees itself or is freed.
func (a *Announcer) patiently(what string, fn func() error) bool {
	for n := 1; ; n++ {
		err := fn()
		if err == nil {
			return true
		}
		if a.ctx.Err() != nil {
			return false
		}
		wait := backoff(n, nil)
		a.log.Warn("store fails", "op", what, "error", err, "again_in", wait)
		if !sleep(a.ctx, wait) {
			return false
		}
	}
}
