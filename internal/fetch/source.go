package fetch

import (
	"context"
	"io"

	"github.com/cansync/cansync/internal/transfer"
)

// Source fetches contents from the members of a library and verifies them. Errors
// match those of package transfer.
type Source interface {
	// Small fetches a content of at most transfer.SmallLimit bytes.
	Small(ctx context.Context, w transfer.Want) ([]byte, error)
	// Large fetches any content into a stage. progress, if not nil, is called now
	// and then with the bytes that are there.
	Large(ctx context.Context, w transfer.Want, progress func(done, total int64)) (Content, error)
}

// Content is a content that was fetched and verified as a whole.
type Content interface {
	// Open opens it from its start.
	Open() (io.ReadCloser, error)
	// Outboard returns its BLAKE3 tree, nil for content of one chunk group.
	Outboard() ([]byte, error)
	// Discard removes it, and Close keeps it for the next fetch; the first one
	// called counts.
	Discard() error
	Close() error
}

var _ Content = (*transfer.Content)(nil)

// From returns the client as a source.
func From(c *transfer.Client) Source { return client{c} }

type client struct{ *transfer.Client }

// Large implements Source.
func (c client) Large(ctx context.Context, w transfer.Want, progress func(done, total int64)) (Content, error) {
	got, err := c.Client.Large(ctx, w, progress)
	if err != nil {
		return nil, err // not a nil pointer in an interface
	}
	return got, nil
}
