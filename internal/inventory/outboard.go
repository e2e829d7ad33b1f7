package inventory

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"strconv"

	ds "github.com/ipfs/go-datastore"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/kv"
)

// OutboardChunk is how much of a tree one value holds, in bytes: a store takes only a
// little over a megabyte in a transaction, and whoever reads or writes a tree holds no
// more of it at once.
const OutboardChunk = 256 << 10

// A tree is kept under the digest of its content, or, when it was written before that
// was known, under an id of its own to which a row of the digest leads.

func outboardKey(id [32]byte, n int) ds.Key {
	return kv.Key("n", "o", kv.Bin(id[:]), strconv.Itoa(n))
}

func outboardRef(d can.Digest) ds.Key { return kv.Key("n", "p", kv.Bin(d[:])) }

// outboardOpen is the row of an id that no digest leads to yet.
func outboardOpen(id [32]byte) ds.Key { return kv.Key("n", "u", kv.Bin(id[:])) }

// outboardID returns under what the tree of a content is kept.
func (v *Inventory) outboardID(ctx context.Context, d can.Digest) (id [32]byte, own bool, err error) {
	ref, err := kv.Get(ctx, v.s, outboardRef(d))
	if err != nil || len(ref) != len(id) {
		return d, false, err
	}
	return [32]byte(ref), true, nil
}

// PutOutboard stores the BLAKE3 tree of a content. It is written before the item
// that it belongs to; a tree cut short by a crash is written again.
func (v *Inventory) PutOutboard(ctx context.Context, d can.Digest, tree io.Reader) error {
	buf := make([]byte, OutboardChunk)
	for n := 0; ; n++ {
		k, err := io.ReadFull(tree, buf)
		if k > 0 {
			if err := v.s.Put(ctx, outboardKey(d, n), bytes.Clone(buf[:k])); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF, errors.Is(err, io.ErrUnexpectedEOF):
			return v.dropOther(ctx, d)
		case err != nil:
			return err
		}
	}
}

// dropOther drops the tree of a content that is kept under an id of its own.
func (v *Inventory) dropOther(ctx context.Context, d can.Digest) error {
	id, own, err := v.outboardID(ctx, d)
	if err != nil || !own {
		return err
	}
	if err := v.s.Delete(ctx, outboardRef(d)); err != nil {
		return err
	}
	return v.dropChunks(ctx, id)
}

// OutboardChunkAt returns the n-th [OutboardChunk] bytes of the stored tree of a
// content, fewer at its end, nil behind that and when there is none.
func (v *Inventory) OutboardChunkAt(ctx context.Context, d can.Digest, n int) ([]byte, error) {
	id, _, err := v.outboardID(ctx, d)
	if err != nil {
		return nil, err
	}
	return kv.Get(ctx, v.s, outboardKey(id, n))
}

// DropOutboard deletes the tree of a content.
func (v *Inventory) DropOutboard(ctx context.Context, d can.Digest) error {
	if err := v.dropOther(ctx, d); err != nil {
		return err
	}
	return v.dropChunks(ctx, d)
}

// dropChunks deletes the last chunk first, so that what a crash leaves is found again.
func (v *Inventory) dropChunks(ctx context.Context, id [32]byte) error {
	n := 0
	for ; ; n++ {
		ok, err := v.s.Has(ctx, outboardKey(id, n))
		if err != nil {
			return err
		}
		if !ok {
			break
		}
	}
	for ; n > 0; n-- {
		if err := v.s.Delete(ctx, outboardKey(id, n-1)); err != nil {
			return err
		}
	}
	return nil
}

// OutboardWriter stores a tree while the content it belongs to is still being hashed,
// and holds little more than one [OutboardChunk] of it. It is not safe for concurrent
// use. Reset it before the first content and before each further one.
type OutboardWriter struct {
	v   *Inventory
	ctx context.Context
	id  [32]byte
	buf []byte
	n   int // chunks stored
	try func(fn func() error) error
}

// NewOutboardWriter returns a writer whose calls to the store go through try, which may
// repeat them; nil means once.
func (v *Inventory) NewOutboardWriter(ctx context.Context, try func(fn func() error) error) *OutboardWriter {
	if try == nil {
		try = func(fn func() error) error { return fn() }
	}
	return &OutboardWriter{v: v, ctx: ctx, try: try}
}

// Reset begins the tree of another content. The name tells contents apart that are
// hashed at the same time, such as the handle that this one is read under; what a
// crash left of an earlier try under the same name is overwritten.
func (w *OutboardWriter) Reset(name string) {
	w.id = sha256.Sum256([]byte("cansync/outboard/" + name))
	w.buf, w.n = w.buf[:0], 0
}

// Write implements io.Writer.
func (w *OutboardWriter) Write(p []byte) (int, error) {
	if w.buf = append(w.buf, p...); len(w.buf) < OutboardChunk {
		return len(p), nil
	}
	for len(w.buf) >= OutboardChunk {
		if err := w.put(w.id, OutboardChunk); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// put stores up to size bytes as the next chunk.
func (w *OutboardWriter) put(id [32]byte, size int) error {
	size = min(size, len(w.buf))
	chunk := bytes.Clone(w.buf[:size])
	err := w.try(func() error {
		if w.n == 0 {
			if err := w.v.markOpen(w.ctx, id); err != nil {
				return err
			}
		}
		return w.v.s.Put(w.ctx, outboardKey(id, w.n), chunk)
	})
	if err != nil {
		return err
	}
	w.n++
	w.buf = w.buf[:copy(w.buf, w.buf[size:])]
	return nil
}

// Commit makes what was written the tree of a content, in place of one that is there.
func (w *OutboardWriter) Commit(d can.Digest) error {
	if w.n == 0 { // it is short enough for what is known now
		tree := bytes.NewReader(w.buf)
		err := w.try(func() error {
			_, _ = tree.Seek(0, io.SeekStart)
			return w.v.PutOutboard(w.ctx, d, tree)
		})
		w.buf = w.buf[:0]
		return err
	}
	if len(w.buf) > 0 {
		if err := w.put(w.id, OutboardChunk); err != nil {
			return err
		}
	}
	return w.try(func() error {
		old, own, err := w.v.outboardID(w.ctx, d)
		if err != nil || own && old == w.id {
			return err
		}
		err = kv.Update(w.ctx, w.v.s, func(txn ds.Txn) error {
			if err := txn.Put(w.ctx, outboardRef(d), w.id[:]); err != nil {
				return err
			}
			return txn.Delete(w.ctx, outboardOpen(w.id))
		})
		if err != nil {
			return err
		}
		return w.v.dropChunks(w.ctx, old)
	})
}

// Abort forgets what was written since the last Reset, unless it is the tree of a
// content by now.
func (w *OutboardWriter) Abort() error {
	w.buf = w.buf[:0]
	if w.n == 0 {
		return nil
	}
	w.n = 0
	if ok, err := w.v.s.Has(w.ctx, outboardOpen(w.id)); err != nil || !ok {
		return err
	}
	return w.v.dropOpen(w.ctx, w.id)
}

// markOpen notes that what is written under an id is no content's tree yet. An id
// under which there is something is one, or is noted.
func (v *Inventory) markOpen(ctx context.Context, id [32]byte) error {
	if ok, err := v.s.Has(ctx, outboardKey(id, 0)); err != nil || ok {
		return err
	}
	return v.s.Put(ctx, outboardOpen(id), nil)
}

func (v *Inventory) dropOpen(ctx context.Context, id [32]byte) error {
	if err := v.dropChunks(ctx, id); err != nil {
		return err
	}
	return v.s.Delete(ctx, outboardOpen(id))
}

// SweepOutboards drops what writers of an earlier process left unfinished. It is
// called while no writer is at work.
func (v *Inventory) SweepOutboards(ctx context.Context) error {
	var left [][32]byte
	for e, err := range kv.Scan(ctx, v.s, kv.Key("n", "u"), true) {
		if err != nil {
			return err
		}
		id, err := kv.Last32(e.Key)
		if err != nil {
			return err
		}
		left = append(left, id)
	}
	for _, id := range left {
		if err := v.dropOpen(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// Mark returns a small value kept under a name, such as a cursor of changes; nil
// when there is none.
func (v *Inventory) Mark(ctx context.Context, name string) ([]byte, error) {
	return kv.Get(ctx, v.s, kv.Key("n", "m", name))
}

// DropMark forgets such a value.
func (v *Inventory) DropMark(ctx context.Context, name string) error {
	return v.s.Delete(ctx, kv.Key("n", "m", name))
}

// SetMark keeps a small value under a name.
func (v *Inventory) SetMark(ctx context.Context, name string, value []byte) error {
	return v.s.Put(ctx, kv.Key("n", "m", name), value)
}
