package transfer

import (
	"context"
	"io"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
)

// brokenService says of every content that it can't be read, at once or on the way.
type brokenService struct {
	can.Opener
	late   bool
	faults *atomic.Int64
}

func (s brokenService) Open(ctx context.Context, handle string, offset, n int64) (io.ReadCloser, error) {
	if !s.late {
		s.faults.Add(1)
		return nil, can.ErrCorrupted
	}
	rc, err := s.Opener.Open(ctx, handle, offset, n)
	return brokenBody{rc, s.faults}, err
}

type brokenBody struct {
	io.ReadCloser
	faults *atomic.Int64
}

func (b brokenBody) Read([]byte) (int, error) {
	b.faults.Add(1)
	return 0, can.ErrCorrupted
}

// A service that says itself that a content is damaged raises the alarm, as one does
// that gives other bytes; nothing of it reaches a peer, and no peer is blamed.
func TestContentThatTheServiceCallsCorruptedIsReported(t *testing.T) {
	for _, late := range []bool{false, true} {
		for _, size := range []int{1000, 1 << 20} {
			inBubble(t, func(t *testing.T) {
				var faults atomic.Int64
				a, b, lib := pair(t, nodeOptions{server: func(c *ServerConfig) {
					c.Service = brokenService{c.Service, late, &faults}
				}}, nodeOptions{})
				w := a.announce(lib, a.hold(random(t, 1, size)))
				blib, _ := b.library(lib.ID())
				knows(t, blib, w)
				_, err := b.client.Large(t.Context(), w, nil)
				require.ErrorIs(t, err, ErrUnavailable)
				require.Positive(t, faults.Load())
				require.Equal(t, faults.Load(), a.rotten.Load(), "each is reported")
				require.Zero(t, b.liars.Load())
			})
		}
	}
}
