package libp2p

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cansync/cansync/transport"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"
)

const (
	// openTimeout bounds an Open whose context has no deadline.
	openTimeout = 30 * time.Second
	// givenAddrTTL is how long addresses given to Open are remembered.
	givenAddrTTL = time.Hour
	maxProtocol  = 256 // bytes of a protocol's name
)

// Open implements [transport.Transport]. Without Bulk a stream may pass any
// relay; with it, a direct TCP connection is preferred over a direct QUIC one,
// which is preferred over an unlimited relay.
func (t *Transport) Open(ctx context.Context, to transport.PeerInfo, proto string, opts transport.OpenOptions) (transport.Stream, error) {
	if !t.begin() {
		return nil, transport.ErrClosed
	}
	defer t.wg.Done()
	if proto == "" || len(proto) > maxProtocol {
		return nil, fmt.Errorf("libp2p: protocol name has %d bytes, want 1 to %d", len(proto), maxProtocol)
	}
	id, err := toHostID(to.ID)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", transport.ErrUnreachable, err)
	}
	if id == t.host.ID() {
		return nil, fmt.Errorf("%w: peer is the node itself", transport.ErrUnreachable)
	}
	ctx, cancel := t.join(ctx)
	defer cancel()
	ctx, cancel = withTimeout(ctx, openTimeout)
	defer cancel()
	if addrs := parseAddrs(id, to.Addrs, t.gater.dialable); len(addrs) > 0 {
		t.host.Peerstore().AddAddrs(id, addrs, givenAddrTTL)
	}
	s, err := t.open(ctx, id, to.ID, protocol.ID(proto), opts)
	if err == nil {
		return s, nil
	}
	switch {
	case t.closed():
		return nil, transport.ErrClosed
	case errors.Is(err, transport.ErrNoProtocol), errors.Is(err, transport.ErrLimited):
		return nil, err
	case ctx.Err() != nil && !errors.Is(err, ctx.Err()):
		err = fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return nil, fmt.Errorf("%w: %s: %w", transport.ErrUnreachable, to.ID.Short(), err)
}

func withTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}

func (t *Transport) open(ctx context.Context, id peer.ID, name transport.PeerID, proto protocol.ID, opts transport.OpenOptions) (transport.Stream, error) {
	ctx = network.WithAllowLimitedConn(ctx, "cansync")
	// A connection may die between being chosen and being used.
	var failed error
	for range 3 {
		c, err := t.connect(ctx, id, opts.Bulk)
		if err != nil {
			return nil, errors.Join(err, failed)
		}
		s, err := c.NewStream(ctx)
		if err != nil {
			if failed = err; c.IsClosed() && ctx.Err() == nil {
				continue
			}
			return nil, err
		}
		out, err := t.negotiate(ctx, s, id, proto)
		if err != nil {
			return nil, err
		}
		out.peer, out.relayed = name, isRelayed(c.RemoteMultiaddr())
		if !t.remember(out) {
			_ = s.Reset()
			return nil, transport.ErrClosed
		}
		return out, nil
	}
	return nil, failed
}

// connect returns the connection to use, dialling if there is none.
func (t *Transport) connect(ctx context.Context, id peer.ID, bulk bool) (network.Conn, error) {
	if best := t.bestConn(id, bulk); best != nil {
		return best, nil
	}
	if err := t.host.Connect(ctx, peer.AddrInfo{ID: id}); err != nil {
		return nil, err
	}
	if best := t.bestConn(id, bulk); best != nil {
		return best, nil
	}
	if !bulk {
		return nil, network.ErrNoConn
	}
	// Only limited connections stand: a direct dial is worth a try, for the peer
	// may have moved or learned of an address since.
	if err := t.host.Connect(network.WithForceDirectDial(ctx, "bulk"), peer.AddrInfo{ID: id}); err != nil {
		return nil, fmt.Errorf("%w: %w", transport.ErrLimited, err)
	}
	if best := t.bestConn(id, bulk); best != nil {
		return best, nil
	}
	return nil, transport.ErrLimited
}

func (t *Transport) bestConn(id peer.ID, bulk bool) network.Conn {
	var best network.Conn
	score := -1
	for _, c := range t.host.Network().ConnsToPeer(id) {
		if c.IsClosed() {
			continue
		}
		if s := scoreConn(c, bulk); s > score {
			best, score = c, s
		}
	}
	return best
}

// scoreConn ranks a connection; below 0 it must not be used. Bulk goes over TCP
// where it can, other streams over QUIC, where they do not queue behind bulk.
func scoreConn(c network.Conn, bulk bool) int {
	a := c.RemoteMultiaddr()
	switch {
	case c.Stat().Limited && bulk:
		return -1
	case c.Stat().Limited:
		return 0
	case isRelayed(a):
		return 1
	case isTCP(a) == bulk:
		return 3
	default:
		return 2
	}
}

// negotiate agrees on the protocol. When the peer is known to speak it, the
// agreement travels with the first bytes and costs no round trip.
func (t *Transport) negotiate(ctx context.Context, s network.Stream, id peer.ID, proto protocol.ID) (*stream, error) {
	select {
	case <-t.ids.IdentifyWait(s.Conn()):
	case <-ctx.Done():
		_ = s.Reset()
		return nil, ctx.Err()
	}
	out := &stream{t: t, in: s, rw: s}
	if err := s.SetProtocol(proto); err != nil {
		_ = s.ResetWithError(network.StreamResourceLimitExceeded)
		return nil, err
	}
	known, err := t.host.Peerstore().SupportsProtocols(id, proto)
	if err == nil && slices.Contains(known, proto) {
		out.rw = multistream.NewMSSelect(s, proto)
		return out, nil
	}
	stop := context.AfterFunc(ctx, func() { _ = s.SetDeadline(time.Unix(1, 0)) })
	err = multistream.SelectProtoOrFail(proto, s)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = s.ResetWithError(network.StreamProtocolNegotiationFailed)
		if errors.Is(err, multistream.ErrNotSupported[protocol.ID]{}) {
			return nil, fmt.Errorf("%w: %s", transport.ErrNoProtocol, proto)
		}
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	return out, nil
}
