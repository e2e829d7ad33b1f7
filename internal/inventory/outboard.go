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
// was known, under an id of its own to which a row of the digest leads. What is kept
// under an id of its own is never written to again: a further reading of the same
// handle, which may give other bytes, has another id, and becomes the tree of a content
// by one change of its row.

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
			// What was to be dropped from here, and was not, is overwritten now.
			if ok, err := v.s.Has(ctx, outboardOpen(d)); err != nil {
				return err
			} else if ok {
				if err := v.s.Delete(ctx, outboardOpen(d)); err != nil {
					return err
				}
			}
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
	err = kv.Update(ctx, v.s, func(txn ds.Txn) error {
		if err := txn.Delete(ctx, outboardRef(d)); err != nil {
			return err
		}
		return txn.Put(ctx, outboardOpen(id), nil)
	})
	if err != nil {
		return err
	}
	return v.dropOpen(ctx, id)
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
	v    *Inventory
	ctx  context.Context
	name string
	id   [32]byte
	open bool // there is an id
	buf  []byte
	n    int // chunks stored
	try  func(fn func() error) error
}

// NewOutboardWriter returns a writer whose calls to the store go through try, which may
// repeat them; nil means once.
func (v *Inventory) NewOutboardWriter(ctx context.Context, try func(fn func() error) error) *OutboardWriter {
	if try == nil {
		try = func(fn func() error) error { return fn() }
	}
	return &OutboardWriter{v: v, ctx: ctx, try: try}
}

// Reset begins the tree of another content; what was written of the one before must
// have been committed or aborted, or stays until [Inventory.SweepOutboards]. The name is
// what this one is read under, such as a handle. Two trees of one name do not touch each
// other, be they written at the same time or one after the other.
func (w *OutboardWriter) Reset(name string) {
	w.name, w.open = name, false
	w.buf, w.n = w.buf[:0], 0
}

// Write implements io.Writer.
func (w *OutboardWriter) Write(p []byte) (int, error) {
	if w.buf = append(w.buf, p...); len(w.buf) < OutboardChunk {
		return len(p), nil
	}
	for len(w.buf) >= OutboardChunk {
		if err := w.put(OutboardChunk); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// put stores up to size bytes as the next chunk.
func (w *OutboardWriter) put(size int) error {
	size = min(size, len(w.buf))
	chunk := bytes.Clone(w.buf[:size])
	err := w.try(func() (err error) {
		if !w.open {
			if w.id, err = w.v.newID(w.ctx, w.name); err != nil {
				return err
			}
			w.open = true
		}
		return w.v.s.Put(w.ctx, outboardKey(w.id, w.n), chunk)
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
		if err := w.put(OutboardChunk); err != nil {
			return err
		}
	}
	var old [32]byte
	done := false
	return w.try(func() (err error) {
		if !done {
			if old, err = w.v.replace(w.ctx, d, w.id); err != nil {
				return err
			}
			done = true
		}
		if old == w.id {
			return nil // an attempt that failed had done it; the rest is swept
		}
		return w.v.dropOpen(w.ctx, old)
	})
}

// replace makes what is kept under an open id the tree of a content. What was its tree
// is kept under an open id now, which is returned.
func (v *Inventory) replace(ctx context.Context, d can.Digest, id [32]byte) (old [32]byte, err error) {
	err = kv.Update(ctx, v.s, func(txn ds.Txn) error {
		ref, err := kv.Get(ctx, txn, outboardRef(d))
		if err != nil {
			return err
		}
		if old = d; len(ref) == len(old) {
			old = [32]byte(ref)
		}
		if err := txn.Put(ctx, outboardRef(d), id[:]); err != nil {
			return err
		}
		if err := txn.Delete(ctx, outboardOpen(id)); err != nil || old == id {
			return err
		}
		return txn.Put(ctx, outboardOpen(old), nil)
	})
	return old, err
}

// Abort forgets what was written since the last Reset, unless it is the tree of a
// content by now.
func (w *OutboardWriter) Abort() error {
	w.buf, w.n = w.buf[:0], 0
	if !w.open {
		return nil
	}
	w.open = false
	if ok, err := w.v.s.Has(w.ctx, outboardOpen(w.id)); err != nil || !ok {
		return err
	}
	return w.v.dropOpen(w.ctx, w.id)
}

// newID returns an id under which nothing is kept, and notes that what will be is no
// content's tree yet.
func (v *Inventory) newID(ctx context.Context, name string) (id [32]byte, err error) {
	for n := 0; ; n++ {
		id = sha256.Sum256([]byte("cansync/outboard/" + strconv.Itoa(n) + "/" + name))
		free := false
		err := kv.Update(ctx, v.s, func(txn ds.Txn) error {
			free = false
			for _, key := range [...]ds.Key{outboardOpen(id), outboardKey(id, 0)} {
				if ok, err := txn.Has(ctx, key); err != nil || ok {
					return err
				}
			}
			free = true
			return txn.Put(ctx, outboardOpen(id), nil)
		})
		if err != nil || free {
			return id, err
		}
	}
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
