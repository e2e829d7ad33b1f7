package ingest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/blob"
)

// confirm checks that the service holds what its answer says. Errors that are not
// [ErrNotHeld] leave the outcome unknown.
func (g *Ingester) confirm(ctx context.Context, job Job, a can.Asset, careful bool) error {
	switch {
	case a.Handle == "" || len(a.Handle) > maxHandle:
		return fmt.Errorf("%w: unusable handle of %d bytes", ErrNotHeld, len(a.Handle))
	case a.Size >= 0 && a.Size != job.Size && a.Size != 0, a.Corrupted:
		return fmt.Errorf("%w: %d bytes instead of %d", ErrNotHeld, a.Size, job.Size)
	case a.Trashed:
		return fmt.Errorf("%w: it stays in the trash", ErrNotHeld)
	}
	old, known, err := g.cfg.Inventory.ByHandle(ctx, a.Handle)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	careful = careful || sampled(job.Digest) || known && old.Digest != job.Digest
	named := a.Handle == job.Digest.String()
	switch early := g.checked.Load()+g.glanced.Load() < firstChecked; {
	case !careful && early && named && job.Size > wholeCheck && g.ranges():
		return g.places(ctx, job, a.Handle)
	case careful, early:
		sum, err := g.readBack(ctx, a.Handle, job.Size, io.Discard)
		switch {
		case errors.Is(err, can.ErrNotFound), err == nil && sum.Digest != job.Digest:
			return fmt.Errorf("%w: read back as %s: %w", ErrNotHeld, sum.Digest, orNil(err))
		case err != nil:
			return fmt.Errorf("%w: %w", ErrUnknown, err)
		}
		g.checked.Add(1)
		return nil
	}
	if named || a.Size == job.Size && job.Size > 0 {
		return nil
	}
	return g.glance(ctx, job, a.Handle)
}

func orNil(err error) error {
	if err == nil {
		return errors.New("other content")
	}
	return err
}

func sampled(d can.Digest) bool { return (int(d[0])<<8|int(d[1]))%sampleEvery == 0 }

// ranges reports whether the service reads a part of an asset without the rest.
func (g *Ingester) ranges() bool {
	r, ok := g.cfg.Service.(can.Ranger)
	return !ok || r.Ranges()
}

// places compares the beginning, the end and a place between them, which the digest
// chooses.
func (g *Ingester) places(ctx context.Context, job Job, handle string) error {
	rc, err := job.Content()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	defer func() { _ = rc.Close() }()
	between := job.Size - 2*placeCheck
	middle := placeCheck + int64(binary.BigEndian.Uint64(job.Digest[8:])%uint64(between-placeCheck))
	want := make([]byte, placeCheck)
	at := int64(0) // of rc, where it can only be read in order
	for _, off := range []int64{0, middle, job.Size - placeCheck} {
		if ra, ok := rc.(io.ReaderAt); ok {
			var n int
			if n, err = ra.ReadAt(want, off); n == len(want) {
				err = nil
			}
		} else if _, err = io.CopyN(io.Discard, rc, off-at); err == nil {
			_, err = io.ReadFull(rc, want)
			at = off + placeCheck
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUnknown, err)
		}
		got, err := g.readSome(ctx, handle, off, placeCheck)
		switch {
		case errors.Is(err, can.ErrNotFound), errors.Is(err, can.ErrTruncated):
			return fmt.Errorf("%w: %w", ErrNotHeld, err)
		case err != nil:
			return fmt.Errorf("%w: %w", ErrUnknown, err)
		case !bytes.Equal(got, want):
			return fmt.Errorf("%w: other bytes at %d", ErrNotHeld, off)
		}
	}
	g.glanced.Add(1)
	return nil
}

// glance asks the service about the handle, or reads a little of it.
func (g *Ingester) glance(ctx context.Context, job Job, handle string) error {
	if a, ok, err := g.meta(ctx, handle); ok {
		switch {
		case errors.Is(err, can.ErrNotFound):
			return fmt.Errorf("%w: %w", ErrNotHeld, err)
		case err != nil:
			return fmt.Errorf("%w: %w", ErrUnknown, err)
		case a.Size == job.Size:
			return nil
		case a.Size > 0:
			return fmt.Errorf("%w: %d bytes instead of %d", ErrNotHeld, a.Size, job.Size)
		}
	}
	n := min(job.Size, 1024)
	got, err := g.readSome(ctx, handle, 0, n)
	switch {
	case errors.Is(err, can.ErrNotFound), errors.Is(err, can.ErrTruncated):
		return fmt.Errorf("%w: %w", ErrNotHeld, err)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	rc, err := job.Content()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	defer func() { _ = rc.Close() }()
	want := make([]byte, n)
	if _, err := io.ReadFull(rc, want); err != nil {
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	if string(want) != string(got) {
		return fmt.Errorf("%w: it begins with other bytes", ErrNotHeld)
	}
	return nil
}

func (g *Ingester) readSome(ctx context.Context, handle string, off, n int64) ([]byte, error) {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	rc, err := g.cfg.Service.Open(call, handle, off, n)
	var b []byte
	if err == nil {
		b, err = io.ReadAll(io.LimitReader(rc, n))
		_ = rc.Close()
	}
	if err == nil && int64(len(b)) < n {
		err = can.ErrTruncated
	}
	g.brk.observe(ctx, err)
	return b, err
}

// readBack hashes what the service holds, and writes its tree; it fails for content of
// another size.
func (g *Ingester) readBack(ctx context.Context, handle string, size int64, tree io.Writer) (blob.Summary, error) {
	call, cancel := context.WithTimeout(ctx, contentTimeout(size))
	defer cancel()
	rc, err := g.cfg.Service.Open(call, handle, 0, -1)
	if err != nil {
		g.brk.observe(ctx, err)
		return blob.Summary{}, err
	}
	defer func() { _ = rc.Close() }()
	to := &faulty{w: tree}
	h := blob.NewHasherTo(-1, to)
	n, err := io.Copy(h, io.LimitReader(rc, size+1))
	if to.err != nil {
		return blob.Summary{}, to.err // our store's fault, not the service's
	}
	g.brk.observe(ctx, err)
	if err != nil {
		return blob.Summary{}, err
	}
	sum, err := h.Finish()
	if err == nil && n != size {
		sum.Digest = can.Digest{} // longer content was not read to its end
	}
	return sum, err
}

// faulty is a writer that remembers its error.
type faulty struct {
	w   io.Writer
	err error
}

func (f *faulty) Write(p []byte) (n int, err error) {
	n, f.err = f.w.Write(p)
	return n, f.err
}
