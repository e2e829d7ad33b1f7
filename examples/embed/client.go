package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/cansync/cansync/can"
)

// client makes the notebook known to cansync: it is the whole of what a host has
// to write. List, Open and Ingest are required. Watch is one of the optional
// abilities, which cansync finds by type assertion: with it a new note travels at
// once, without it at the next poll. A service that can change or remove what it
// keeps would add can.MetaReader, can.MetaUpdater and can.Trasher.
//
// cantest.Run checks all the promises that a client makes; see client_test.go.
type client struct{ book *notebook }

var (
	_ can.Client  = client{}
	_ can.Watcher = client{}
)

// defaultPage is the size of a page when the caller names none.
const defaultPage = 100

// asset says of a note what cansync wants to know. The handle is the notebook's
// own name for it, whatever that is: cansync identifies contents by their SHA-256,
// which it computes itself.
func asset(n note) can.Asset {
	return can.Asset{
		Handle:    n.ID,
		Timestamp: n.Time.UnixMilli(),
		Size:      int64(len(n.text)),
		Metadata: can.Metadata{
			MIMEType: n.Kind, Application: n.App, User: n.By, Description: n.About,
			Tags: slices.Clone(n.Tags), Filename: n.Title, Path: n.Path,
		},
	}
}

// List implements can.Lister.
func (c client) List(ctx context.Context, o can.ListOptions) (can.Page, error) {
	if err := ctx.Err(); err != nil {
		return can.Page{}, err
	}
	if o.Limit <= 0 {
		o.Limit = defaultPage
	}
	notes, total := c.book.page(o.Offset, o.Limit, o.Order == can.Newest)
	page := can.Page{Total: total}
	for _, n := range notes {
		page.Assets = append(page.Assets, asset(n))
	}
	return page, nil
}

// Open implements can.Opener: the bytes [offset, offset+length) of a note, or all
// from offset on when length is negative.
func (c client) Open(ctx context.Context, handle string, offset, length int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n, ok := c.book.get(handle)
	if !ok {
		return nil, can.ErrNotFound
	}
	size := int64(len(n.text))
	switch {
	case offset < 0:
		return nil, fmt.Errorf("%w: negative offset", can.ErrBadRequest)
	case offset > size:
		return nil, can.ErrTruncated
	case length < 0:
		return io.NopCloser(bytes.NewReader(n.text[offset:])), nil
	case length > size-offset:
		// What is there is delivered, then comes the error, as over a network.
		return io.NopCloser(io.MultiReader(bytes.NewReader(n.text[offset:]), failing{can.ErrTruncated})), nil
	}
	return io.NopCloser(bytes.NewReader(n.text[offset : offset+length])), nil
}

// failing is a reader that has nothing but an error.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// Ingest implements can.Ingester: what a peer announced becomes a note. Nothing is
// kept unless the whole content came and has the size it was said to have. The
// error says what became of the note, so that cansync knows whether to try again.
func (c client) Ingest(ctx context.Context, in can.Ingest) (can.Asset, error) {
	switch {
	case in.Content == nil || in.Size < 0:
		return can.Asset{}, fmt.Errorf("%w: content and size are required", can.ErrContent)
	case in.Size > maxNote:
		return can.Asset{}, fmt.Errorf("%w: a note has at most %d bytes", can.ErrTooLarge, maxNote)
	}
	text, err := readAll(ctx, in)
	if err != nil {
		return can.Asset{}, errors.Join(can.ErrNotStored, err)
	}
	when := time.Now()
	if in.Timestamp != 0 {
		when = time.UnixMilli(in.Timestamp) // when it was first ingested, anywhere
	}
	return asset(c.book.add(note{
		Title: in.Filename, By: in.User, Kind: in.MIMEType, Tags: slices.Clone(in.Tags), Time: when,
		App: in.Application, About: in.Description, Path: in.Path, text: text,
	})), nil
}

// readAll reads a content of exactly in.Size bytes, or until ctx ends.
func readAll(ctx context.Context, in can.Ingest) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	rc, err := in.Content()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", can.ErrContent, err)
	}
	defer rc.Close() // it was only read
	text := bytes.NewBuffer(make([]byte, 0, in.Size))
	_, err = io.Copy(text, io.LimitReader(underContext{ctx, rc}, in.Size+1))
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, fmt.Errorf("%w: %w", can.ErrContent, err)
	case int64(text.Len()) != in.Size:
		return nil, fmt.Errorf("%w: %d bytes were promised", can.ErrContent, in.Size)
	}
	return text.Bytes(), nil
}

// underContext is a reader that stops when its context ends.
type underContext struct {
	ctx context.Context
	r   io.Reader
}

func (u underContext) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}

// Watch implements can.Watcher. The first call of fn says that the watch is in
// place; an event need not say what is new, cansync then looks.
func (c client) Watch(ctx context.Context, fn func(can.Event)) error {
	changed := c.book.next()
	fn(can.Event{})
	for {
		select {
		case <-changed:
			changed = c.book.next() // before the look that fn leads to
			fn(can.Event{Kind: can.EventNew})
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
