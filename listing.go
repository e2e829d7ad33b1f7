package cansync

import (
	"context"
	"errors"
	"iter"

	"github.com/cansync/cansync/internal/library"
)

// maxListed is how many entries of a listing are read ahead of who reads it.
const maxListed = 64

// listed is an entry of a listing, or the error that ends it.
type listed[T any] struct {
	v   T
	err error
}

// listing yields what read yields of a library. It is read in a goroutine of its
// own, which ends before the loop does: that one and not the loop holds the node
// open, so that the body of a loop may close the node. The loop then ends with
// ErrClosed.
func listing[T any](ctx context.Context, l *Library, read func(context.Context, *library.Library) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		lib, done, err := l.member()
		if err != nil {
			yield(none, err)
			return
		}
		inner, cancel := context.WithCancel(ctx)
		pages := make(chan []listed[T])
		whole := false // that nothing was left out; to be read when pages is closed
		go func() {
			defer close(pages)
			defer done()
			defer context.AfterFunc(l.n.ctx, cancel)()
			whole = send(inner, pages, read(inner, lib))
		}()
		defer func() {
			cancel()
			for range pages { // until the goroutine has ended
			}
		}()
		for page := range pages {
			for _, e := range page {
				if l.n.ctx.Err() != nil {
					yield(none, ErrClosed)
					return
				}
				if !yield(e.v, e.err) || e.err != nil {
					return
				}
			}
		}
		switch {
		case whole:
		case l.n.ctx.Err() != nil:
			yield(none, ErrClosed)
		default:
			yield(none, ctx.Err())
		}
	}
}

// send hands out a listing in pages, the first small so that it comes at once, and
// reports whether all of it was taken. What ends with ctx is not whole.
func send[T any](ctx context.Context, pages chan<- []listed[T], list iter.Seq2[T, error]) bool {
	var page []listed[T]
	give := func() bool {
		select {
		case pages <- page:
			page = nil
			return true
		case <-ctx.Done():
			return false
		}
	}
	size := 1
	for v, err := range list {
		if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return false
		}
		page = append(page, listed[T]{v, err})
		if len(page) == size || err != nil {
			if !give() || err != nil {
				return err != nil
			}
			size = min(2*size, maxListed)
		}
	}
	return len(page) == 0 || give()
}
