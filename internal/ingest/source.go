package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/cansync/cansync/can"
)

// sourceClock tells the time that a content takes to be read from what the service
// takes: a content may still be on its way from a peer that is slow on purpose.
type sourceClock struct {
	mu    sync.Mutex
	spent time.Duration
	since time.Time // of the read under way; zero if there is none
	over  bool      // the content came to its end
}

// opener returns open with the clock on what it opens.
func (c *sourceClock) opener(open func() (io.ReadCloser, error)) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		c.begin()
		rc, err := open()
		c.end(nil)
		if err != nil {
			return nil, err
		}
		return clockedReader{rc, c}, nil
	}
}

func (c *sourceClock) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.since = time.Now()
}

func (c *sourceClock) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spent += time.Since(c.since)
	c.since = time.Time{}
	c.over = c.over || errors.Is(err, io.EOF)
}

// blame makes the error of a call that began at a time and ran out of it that of the
// content, if most of the time went into reading one that did not come to its end.
// Then nothing can have been stored, and it says nothing about the service.
func (c *sourceClock) blame(begun time.Time, err error) error {
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, can.ErrAmbiguous) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	spent := c.spent
	if !c.since.IsZero() {
		spent += time.Since(c.since)
	}
	if c.over || spent <= time.Since(begun)/2 {
		return err
	}
	return fmt.Errorf("%w: it came too slowly: %w", can.ErrContent, err)
}

type clockedReader struct {
	io.ReadCloser
	c *sourceClock
}

// Read implements io.Reader.
func (r clockedReader) Read(p []byte) (int, error) {
	r.c.begin()
	n, err := r.ReadCloser.Read(p)
	r.c.end(err)
	return n, err
}
