package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/inventory"
)

// trees reads the BLAKE3 trees of the contents being served and keeps pieces of them,
// up to a number of bytes, the ones that were used last.
type trees struct {
	inv   *inventory.Inventory
	open  can.Opener
	limit int

	mu   sync.Mutex
	size int
	most int // the largest size so far
	used uint64
	kept map[treeChunk]*keptChunk
	busy map[can.Digest]chan struct{} // being made anew
}

type treeChunk struct {
	asset can.Digest
	n     int
}

type keptChunk struct {
	data []byte
	used uint64
}

func newTrees(inv *inventory.Inventory, open can.Opener, limit int) *trees {
	return &trees{
		inv: inv, open: open, limit: limit,
		kept: make(map[treeChunk]*keptChunk), busy: make(map[can.Digest]chan struct{}),
	}
}

// errRotten says that the service's bytes are not those that the inventory knows.
var errRotten = errors.New("transfer: the service's content has changed")

// get returns the tree of a content as the inventory has it, read as it is needed: a
// missing or damaged one shows as blob.ErrOutboard. It is for use while ctx lasts.
func (t *trees) get(ctx context.Context, it inventory.Item) (*blob.Tree, error) {
	return blob.NewTree(it.Root, uint64(it.Size), treeReader{t, ctx, it.Digest})
}

// treeReader reads a stored tree.
type treeReader struct {
	t     *trees
	ctx   context.Context
	asset can.Digest
}

// ReadAt implements io.ReaderAt. Where nothing is stored the tree ends.
func (r treeReader) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		at := off + int64(n)
		chunk, err := r.t.chunk(r.ctx, treeChunk{r.asset, int(at / inventory.OutboardChunk)})
		if err != nil {
			return n, err
		}
		from := at % inventory.OutboardChunk
		if from >= int64(len(chunk)) {
			return n, io.EOF
		}
		n += copy(p[n:], chunk[from:])
	}
	return n, nil
}

// chunk returns a piece of a tree, which must not be changed.
func (t *trees) chunk(ctx context.Context, at treeChunk) ([]byte, error) {
	t.mu.Lock()
	k := t.kept[at]
	if k != nil {
		t.used++
		k.used = t.used
	}
	t.mu.Unlock()
	if k != nil {
		return k.data, nil
	}
	b, err := t.inv.OutboardChunkAt(ctx, at.asset, at.n)
	if err != nil || len(b) == 0 {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.used++
	if k := t.kept[at]; k != nil { // another run was faster
		t.size -= len(k.data)
	}
	t.kept[at] = &keptChunk{data: b, used: t.used}
	t.size += len(b)
	for t.size > t.limit && len(t.kept) > 1 {
		t.dropOldest()
	}
	t.most = max(t.most, t.size)
	return b, nil
}

// dropOldest looks through all: they are few, and each is read from the store.
func (t *trees) dropOldest() {
	var oldest treeChunk
	first := uint64(math.MaxUint64)
	for at, k := range t.kept {
		if k.used < first {
			oldest, first = at, k.used
		}
	}
	t.size -= len(t.kept[oldest].data)
	delete(t.kept, oldest)
}

// forget drops what is kept of a tree.
func (t *trees) forget(asset can.Digest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for at, k := range t.kept {
		if at.asset == asset {
			t.size -= len(k.data)
			delete(t.kept, at)
		}
	}
}

// renew makes a tree anew that is missing or damaged, by reading the whole content
// once. Runs that need the same one wait for it, and try it again whatever came of it.
// beat is called now and then meanwhile. Errors match errRotten where the content no
// longer has its hashes.
func (t *trees) renew(ctx context.Context, it inventory.Item, beat func()) error {
	mine := make(chan struct{})
	t.mu.Lock()
	wait := t.busy[it.Digest]
	if wait == nil {
		t.busy[it.Digest] = mine
	}
	t.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err := t.rebuild(ctx, it, beat)
	t.forget(it.Digest)
	t.mu.Lock()
	delete(t.busy, it.Digest)
	t.mu.Unlock()
	close(mine)
	return err
}

// rebuild reads the content and stores its tree.
func (t *trees) rebuild(ctx context.Context, it inventory.Item, beat func()) (err error) {
	rc, err := t.open.Open(ctx, it.Handle, 0, -1)
	if err != nil {
		return err
	}
	defer func() { _ = rc.Close() }()
	tree := t.inv.NewOutboardWriter(ctx, nil)
	tree.Reset("anew " + it.Digest.String())
	defer func() {
		if err != nil {
			err = errors.Join(err, tree.Abort())
		}
	}()
	h := blob.NewHasherTo(it.Size, tree)
	_, err = io.CopyBuffer(writerFunc(func(p []byte) (int, error) {
		beat()
		return h.Write(p)
	}), struct{ io.Reader }{rc}, make([]byte, 64<<10))
	if errors.Is(err, blob.ErrSize) {
		return fmt.Errorf("%w: %w", errRotten, err)
	}
	if err != nil {
		return err
	}
	sum, err := h.Finish()
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errRotten, err)
	case sum.Digest != it.Digest || sum.Root != it.Root:
		return errRotten
	}
	return tree.Commit(it.Digest)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
