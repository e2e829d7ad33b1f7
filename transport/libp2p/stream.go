package libp2p

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/cansync/cansync/transport"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"
)

// stream is a libp2p stream on which a protocol was agreed, or will be with the
// first bytes.
type stream struct {
	t       *Transport
	in      network.Stream
	rw      io.ReadWriteCloser // in, or in with a negotiation still to finish
	peer    transport.PeerID
	relayed bool
	state   atomic.Uint32
}

var _ transport.Stream = (*stream)(nil)

// resetWait is how long Reset waits for the connection to take it.
const resetWait = 50 * time.Millisecond

const (
	stateOpen uint32 = iota
	stateClosed
	stateReset
)

func (s *stream) Read(b []byte) (int, error) {
	n, err := s.rw.Read(b)
	return n, s.mapErr(err)
}

func (s *stream) Write(b []byte) (int, error) {
	n, err := s.rw.Write(b)
	return n, s.mapErr(err)
}

func (s *stream) CloseWrite() error {
	// A negotiation that waits for the first bytes must not wait for ever.
	if f, ok := s.rw.(interface{ Flush() error }); ok {
		if err := f.Flush(); err != nil {
			return s.mapErr(err)
		}
	}
	return s.mapErr(s.in.CloseWrite())
}

// Close ends the stream. Its last frames may have to wait for a peer that does
// not read; after CloseTimeout the stream is reset.
func (s *stream) Close() error {
	if !s.state.CompareAndSwap(stateOpen, stateClosed) {
		return nil
	}
	defer s.t.forget(s)
	// The lazy negotiation reads and writes when it is closed.
	_ = s.in.SetDeadline(time.Now().Add(s.t.cfg.CloseTimeout))
	done := make(chan error, 1)
	if !s.t.spawn(func() { done <- s.rw.Close() }) {
		_ = s.in.Reset()
		return transport.ErrClosed
	}
	timer := time.NewTimer(s.t.cfg.CloseTimeout)
	defer timer.Stop()
	select {
	case err := <-done:
		if err != nil {
			_ = s.in.Reset()
			return mapErr(stateOpen, err) // it is not being closed that failed it
		}
		return nil
	case <-timer.C:
		// A reset may wait for the same peer, so it is not waited for.
		s.t.spawn(func() { _ = s.in.Reset() })
		return fmt.Errorf("%w: peer took nothing for %v", transport.ErrReset, s.t.cfg.CloseTimeout)
	}
}

func (s *stream) Reset() error {
	if s.state.Swap(stateReset) == stateReset {
		return nil
	}
	defer s.t.forget(s)
	// Both ends of the stream here fail at once; to say so to a peer that takes nothing
	// may need ten seconds, which are not for the caller to wait.
	done := make(chan error, 1)
	if !s.t.spawn(func() { done <- s.in.Reset() }) {
		return s.mapErr(s.in.Reset())
	}
	timer := time.NewTimer(resetWait)
	defer timer.Stop()
	select {
	case err := <-done:
		return s.mapErr(err)
	case <-timer.C:
		return nil
	}
}

func (s *stream) SetReadDeadline(t time.Time) error  { return s.mapErr(s.in.SetReadDeadline(t)) }
func (s *stream) SetWriteDeadline(t time.Time) error { return s.mapErr(s.in.SetWriteDeadline(t)) }
func (s *stream) Peer() transport.PeerID             { return s.peer }
func (s *stream) Relayed() bool                      { return s.relayed }

func (s *stream) mapErr(err error) error { return mapErr(s.state.Load(), err) }

// mapErr turns the errors of three layers into those of the interface. io.EOF
// and deadlines keep their names.
func mapErr(state uint32, err error) error {
	var timeout net.Error
	switch {
	case err == nil, err == io.EOF:
		return err
	case state == stateReset:
		return fmt.Errorf("%w: %w", transport.ErrReset, err)
	case errors.Is(err, network.ErrReset):
		return fmt.Errorf("%w: %w", transport.ErrReset, err)
	case errors.Is(err, multistream.ErrNotSupported[protocol.ID]{}):
		return fmt.Errorf("%w: %w", transport.ErrNoProtocol, err)
	case state == stateClosed:
		return fmt.Errorf("libp2p: stream closed: %w", io.ErrClosedPipe)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: %w", os.ErrDeadlineExceeded, err)
	default:
		// A connection that broke takes its streams with it.
		return fmt.Errorf("%w: %w", transport.ErrReset, err)
	}
}
