// Package transfer moves the contents of assets between members of a library.
//
// A [Client] asks for a content by library and record, never by its hash alone, and
// a [Server] answers only if the record's asset is live in that very library. Small
// contents come many to a frame on one warm stream; large ones come in runs of
// verified chunk groups from all peers that have them, into a stage that survives
// restarts. The server reads straight from its CAN Service and lets nothing leave
// that does not fit the hashes it announced.
//
// The bytes on the stream are described in proto.go.
package transfer

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/session"
	"github.com/cansync/cansync/transport"
)

// SmallLimit is the largest content, in bytes, that [Client.Small] fetches.
const SmallLimit = 64 << 10

// Errors of a fetch, to be matched with errors.Is.
var (
	// ErrNoPeer says that no peer that the library is shared with now gave the
	// content: nobody is connected, or all that were asked failed. Try again when
	// a peer comes.
	ErrNoPeer = errors.New("transfer: no connected peer has the content")
	// ErrNotServed says that a peer answered that it does not have the content, or
	// does not hold the record. As the kind of a [FetchError]: all peers did.
	ErrNotServed = errors.New("transfer: not served")
	// ErrUnavailable says that a peer has the content and can't give it now.
	ErrUnavailable = errors.New("transfer: unavailable at the peer for now")
	// ErrConflict says that a peer holds content with the digest, but of another
	// length or BLAKE3 root than the record claims. If true the record's author
	// lied; the peer's word alone does not prove that.
	ErrConflict = errors.New("transfer: peer's content has another root or length than the record")
	// ErrWrong says that a peer sent bytes that are not what the record promises.
	ErrWrong = errors.New("transfer: peer sent wrong bytes")
	// ErrStalled says that a peer stopped answering.
	ErrStalled = errors.New("transfer: peer stalled")
	// ErrProtocol says that a peer broke the protocol.
	ErrProtocol = errors.New("transfer: protocol violated")
	// ErrBadContent says that content which fits everything else that the record
	// claims does not have its SHA-256, or has it and another length: the record's
	// author is at fault. Mark the record bad; fetching again does not help.
	ErrBadContent = errors.New("transfer: the record contradicts itself about the content")
	// ErrNoSpace says that the content can't be staged: the disk or quota is full,
	// or, without a disk, the memory set aside for contents.
	ErrNoSpace = errors.New("transfer: no space for the content")
	// ErrOpen says that the same content is being fetched for the library already,
	// or that its [Content] has not been closed or discarded.
	ErrOpen = errors.New("transfer: already open")
	// ErrTooLarge says that a content is larger than the call fetches.
	ErrTooLarge = errors.New("transfer: content too large")
	// ErrClosed says that the client was closed.
	ErrClosed = errors.New("transfer: closed")
)

// Network opens streams to the members that a library is shared with now.
type Network interface {
	Peers(lib [32]byte) []session.Peer
	Open(ctx context.Context, lib [32]byte, peer transport.PeerID, proto string, opts transport.OpenOptions) (transport.Stream, error)
}

var _ Network = (*session.Manager)(nil)

// Want is a content to fetch, as a valid record describes it.
type Want struct {
	Library [32]byte
	Record  record.ID
	// Asset is the SHA-256 of the content, the record's subject.
	Asset can.Digest
	// Root and Size are what the record's body says.
	Root [32]byte
	Size uint64
}

// PeerError is what went wrong with one peer.
type PeerError struct {
	Peer transport.PeerID
	Err  error
}

// Error implements error.
func (e *PeerError) Error() string { return e.Peer.Short() + ": " + e.Err.Error() }

// Unwrap implements the errors package's unwrapping.
func (e *PeerError) Unwrap() error { return e.Err }

// FetchError is a fetch that no peer could complete. It matches its kind and the
// errors of all peers that were asked.
type FetchError struct {
	// Kind is [ErrNoPeer] or [ErrNotServed].
	Kind error
	// Peers has an entry for each peer that was asked.
	Peers []*PeerError
}

// Error implements error.
func (e *FetchError) Error() string {
	var b strings.Builder
	b.WriteString(e.Kind.Error())
	for i, p := range e.Peers {
		if i == 8 {
			fmt.Fprintf(&b, "; and %d more", len(e.Peers)-i)
			break
		}
		b.WriteString("; ")
		b.WriteString(p.Error())
	}
	return b.String()
}

// Unwrap implements the errors package's unwrapping.
func (e *FetchError) Unwrap() []error {
	all := []error{e.Kind}
	for _, p := range e.Peers {
		all = append(all, p)
	}
	return all
}

// fetchError makes the error of a fetch from the failures of the peers asked.
func fetchError(peers []*PeerError) error {
	kind := ErrNoPeer
	for i, p := range peers {
		if !errors.Is(p.Err, ErrNotServed) {
			kind = ErrNoPeer
			break
		}
		if i == len(peers)-1 {
			kind = ErrNotServed
		}
	}
	return &FetchError{Kind: kind, Peers: peers}
}

// noSpace lets a full stage match the package's own sentinel too.
func noSpace(err error) error {
	if errors.Is(err, blob.ErrNoSpace) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}
