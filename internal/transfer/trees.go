package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/inventory"
)

// trees keeps the BLAKE3 trees of the contents being served, up to a number of
// bytes; the last one used stays whatever its size.
type trees struct {
	inv   *inventory.Inventory
	open  can.Opener
	limit int

	mu    sync.Mutex
	size  int
	order []can.Digest // the oldest first
	kept  map[can.Digest][]byte
	busy  map[can.Digest]chan struct{} // being read or rebuilt
}

func newTrees(inv *inventory.Inventory, open can.Opener, limit int) *trees {
	return &trees{inv: inv, open: open, limit: limit, kept: make(map[can.Digest][]byte), busy: make(map[can.Digest]chan struct{})}
}

// errRotten says that the service's bytes are not those that the inventory knows.
var errRotten = errors.New("transfer: the service's content has changed")

// get returns the tree of a content, reading the whole content once if none is
// kept. beat is called now and then while that lasts. Errors match errRotten where
// the content no longer has its hashes.
func (t *trees) get(ctx context.Context, it inventory.Item, beat func()) (*blob.Tree, error) {
	for {
		t.mu.Lock()
		raw, ok := t.kept[it.Digest]
		wait := t.busy[it.Digest]
		mine := make(chan struct{})
		if !ok && wait == nil {
			t.busy[it.Digest] = mine
		}
		t.mu.Unlock()
		switch {
		case ok:
			return blob.NewTreeBytes(it.Root, uint64(it.Size), raw)
		case wait == nil:
			return t.load(ctx, it, mine, beat)
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (t *trees) load(ctx context.Context, it inventory.Item, done chan struct{}, beat func()) (*blob.Tree, error) {
	defer func() {
		t.mu.Lock()
		delete(t.busy, it.Digest)
		t.mu.Unlock()
		close(done)
	}()
	raw, err := t.stored(ctx, it)
	if err == nil && raw == nil {
		raw, err = t.rebuild(ctx, it, beat)
	}
	if err != nil {
		return nil, err
	}
	tree, err := blob.NewTreeBytes(it.Root, uint64(it.Size), raw)
	if err == nil {
		t.keep(it.Digest, raw)
	}
	return tree, err
}

// stored returns the tree in the inventory, nil if there is none that fits.
func (t *trees) stored(ctx context.Context, it inventory.Item) ([]byte, error) {
	if it.Size <= blob.GroupSize {
		return []byte{}, nil
	}
	raw, err := t.inv.Outboard(ctx, it.Digest)
	if err != nil || uint64(len(raw)) != blob.OutboardSize(uint64(it.Size)) {
		return nil, err
	}
	return raw, nil
}

func (t *trees) keep(d can.Digest, raw []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.kept[d]; !ok {
		t.order = append(t.order, d)
	}
	t.size += len(raw) - len(t.kept[d])
	t.kept[d] = raw
	for t.size > t.limit && len(t.order) > 1 {
		t.size -= len(t.kept[t.order[0]])
		delete(t.kept, t.order[0])
		t.order = t.order[1:]
	}
}

// renew rebuilds a tree that turned out to be damaged.
func (t *trees) renew(ctx context.Context, it inventory.Item, beat func()) (*blob.Tree, error) {
	raw, err := t.rebuild(ctx, it, beat)
	if err != nil {
		return nil, err
	}
	t.keep(it.Digest, raw)
	return blob.NewTreeBytes(it.Root, uint64(it.Size), raw)
}

// rebuild reads the content once and stores its tree.
func (t *trees) rebuild(ctx context.Context, it inventory.Item, beat func()) ([]byte, error) {
	rc, err := t.open.Open(ctx, it.Handle, 0, -1)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rc.Close() }()
	h := blob.NewHasher(it.Size)
	_, err = io.CopyBuffer(writerFunc(func(p []byte) (int, error) {
		beat()
		return h.Write(p)
	}), struct{ io.Reader }{rc}, make([]byte, 64<<10))
	if errors.Is(err, blob.ErrSize) {
		return nil, fmt.Errorf("%w: %w", errRotten, err)
	}
	if err != nil {
		return nil, err
	}
	sum, err := h.Finish()
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errRotten, err)
	case sum.Digest != it.Digest || sum.Root != it.Root:
		return nil, errRotten
	}
	return sum.Outboard, t.inv.PutOutboard(ctx, it.Digest, sum.Outboard)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
