package session

import (
	"context"
	"fmt"
	"io"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/transport"
)

// Served is a stream that a member opened for a library.
type Served struct {
	Library [32]byte
	Peer    transport.PeerID
	Rights  capability.Rights
	Stream  transport.Stream
	// Context ends when the library is no longer shared with the peer.
	Context context.Context
}

// Open opens a stream of the protocol to a member, for a library that is shared
// with it now; otherwise it returns [ErrNoSession]. The caller owns the stream,
// which is reset when the session ends.
func (m *Manager) Open(ctx context.Context, lib [32]byte, peer transport.PeerID, proto string, opts transport.OpenOptions) (transport.Stream, error) {
	m.mu.Lock()
	var p *place
	if e := m.libs[lib]; e != nil {
		p = e.links[peer]
	}
	m.mu.Unlock()
	if p == nil {
		return nil, fmt.Errorf("%w: %s", ErrNoSession, peer.Short())
	}
	st, err := m.attach(ctx, p.s, p.handle, proto, opts)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(p.s.ctx, func() { _ = st.Reset() })
	return &held{Stream: st, stop: stop}, nil
}

// held is a stream that ends with its session.
type held struct {
	transport.Stream
	stop func() bool
}

func (h *held) Close() error { h.stop(); return h.Stream.Close() }
func (h *held) Reset() error { h.stop(); return h.Stream.Reset() }

// Serve answers streams of the protocol. fn owns the stream, returns soon after
// Context ends, and is joined by Close.
func (m *Manager) Serve(proto string, fn func(Served)) {
	m.mu.Lock()
	m.handlers[proto] = fn
	m.mu.Unlock()
	m.cfg.Transport.Handle(proto, func(st transport.Stream) {
		s, sh, ok := m.attached(st)
		if !ok {
			return
		}
		defer s.wg.Done()
		stop := context.AfterFunc(s.ctx, func() { _ = st.Reset() })
		defer stop()
		fn(Served{Library: sh.lib.ID, Peer: s.peer, Rights: sh.grant.Rights, Stream: st, Context: s.ctx})
	})
}

func readFull(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	return err
}
