// Package transport says what cansync needs of a network: authenticated,
// encrypted streams to peers that are known by their public key.
//
// The default is package transport/libp2p; transport/memory connects nodes of
// one process and can be partitioned. Package transporttest holds the suite that
// every implementation must pass.
package transport

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// Errors of a transport, to be matched with errors.Is.
var (
	// ErrClosed says that the transport was closed.
	ErrClosed = errors.New("transport: closed")
	// ErrUnreachable says that no address of the peer could be reached.
	ErrUnreachable = errors.New("transport: peer unreachable")
	// ErrNoProtocol says that the peer does not speak the protocol.
	ErrNoProtocol = errors.New("transport: protocol not spoken by peer")
	// ErrReset says that a stream was torn down by either side or with its
	// connection.
	ErrReset = errors.New("transport: stream reset")
	// ErrLimited says that the peer is reached through a relay that carries
	// little, and that the stream was asked to avoid such.
	ErrLimited = errors.New("transport: only a limited connection to peer")
)

// PeerInfo is a peer and the addresses under which it may be reached.
type PeerInfo struct {
	ID PeerID
	// Addrs are in the transport's own notation; for libp2p they are multiaddrs
	// without the trailing /p2p part. Empty means whatever the transport already
	// knows of the peer.
	Addrs []string
}

// Peer is a connected peer.
type Peer struct {
	PeerInfo
	// Relayed says that every connection to the peer passes a relay.
	Relayed bool
	// Latency is the last measured round trip, or 0 when unknown.
	Latency time.Duration
}

// EventKind says what happened to a peer.
type EventKind uint8

const (
	// Connected says that a first connection to the peer stands.
	Connected EventKind = iota + 1
	// Disconnected says that the last connection to the peer is gone.
	Disconnected
	// Found says that a peer was met on the local network; it may speak another
	// library's language, or none.
	Found
	// Addresses says that the node's own addresses changed. Peer is empty.
	Addresses
)

// Event is a change among the peers.
type Event struct {
	Kind EventKind
	Peer PeerInfo
}

// OpenOptions say what a stream is for.
type OpenOptions struct {
	// Bulk asks for the connection that carries the most and refuses limited
	// ones with [ErrLimited].
	Bulk bool
}

// Stream is a reliable, ordered, encrypted byte stream to one peer. Read and
// Write may be called by one goroutine each; the other methods by any.
type Stream interface {
	io.Reader
	io.Writer
	// CloseWrite says that nothing more will be written; the peer reads io.EOF.
	CloseWrite() error
	// Close ends the stream in both directions in good order. What was written
	// is still delivered. Where the peer closed first, Close may say [ErrReset],
	// since it can't be known whether the peer took everything.
	Close() error
	// Reset ends the stream at once; pending and later calls on both sides fail
	// with [ErrReset].
	Reset() error
	// SetReadDeadline and SetWriteDeadline bound pending and later calls, which fail
	// with os.ErrDeadlineExceeded behind it; the zero time is no bound.
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
	// Peer is the authenticated identity of the other side.
	Peer() PeerID
	// Relayed says that the stream passes a relay.
	Relayed() bool
}

// Transport connects a node to its peers. All methods are safe for concurrent
// use. Close is idempotent, ends every stream, waits for every handler, and
// unblocks every caller; later calls fail with [ErrClosed].
type Transport interface {
	// ID is the node's own identity.
	ID() PeerID
	// Addrs are the addresses at which others may try to reach the node now.
	Addrs() []string
	// Open opens a stream to the peer for the protocol, dialling where needed.
	// ctx bounds the opening, not the stream. The peer's addresses are added to
	// those already known.
	Open(ctx context.Context, peer PeerInfo, protocol string, opts OpenOptions) (Stream, error)
	// Handle serves incoming streams of the protocol: fn runs in a goroutine of
	// its own and owns the stream. A nil fn ends it. Handlers must return soon
	// after their stream fails.
	Handle(protocol string, fn func(Stream))
	// Peers are the peers connected now.
	Peers() []Peer
	// Disconnect closes every connection to the peer. A dial of it that is under way
	// may connect it again.
	Disconnect(peer PeerID)
	// Events returns the changes among the peers from now on. The channel holds a
	// bounded number; when the reader is late, the oldest are dropped, so that
	// Peers is the truth and an event a hint. The channel is closed by stop and
	// by Close.
	Events() (events <-chan Event, stop func())
	Close() error
}

// Discovery is implemented by transports that can find peers by a key known to
// both sides. The key tells nothing about what it stands for.
type Discovery interface {
	// Advertise announces the node under the key until the ttl ends.
	Advertise(ctx context.Context, key [32]byte, ttl time.Duration) error
	// Find yields peers that advertised themselves under the key; it ends with
	// ctx, or when the network has no more to say.
	Find(ctx context.Context, key [32]byte) iter.Seq2[PeerInfo, error]
}
