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
	// and then with the bytes that are there, and early before that, where the
	// content can be read while it comes, by the same goroutine.
	Large(ctx context.Context, w transfer.Want, progress func(done, total int64), early func(Early)) (Content, error)
}

// Early is a content that is being fetched.
type Early interface {
	// Open opens it from its start. Reading waits for what is still to come, and
	// fails when that does not come in time or the whole is not what was wanted.
	Open() (io.ReadCloser, error)
	// Outboard returns its BLAKE3 tree once it was read to its end.
	Outboard() (*io.SectionReader, error)
}

// Content is a content that was fetched and verified as a whole.
type Content interface {
	// Open opens it from its start.
	Open() (io.ReadCloser, error)
	// Outboard returns its BLAKE3 tree, readable until Discard or Close and empty for
	// content of one chunk group.
	Outboard() (*io.SectionReader, error)
	// Discard removes it, and Close keeps it for the next fetch; the first one
	// called counts.
	Discard() error
	Close() error
}

var (
	_ Content = (*transfer.Content)(nil)
	_ Early   = (*transfer.Early)(nil)
)

// From returns the client as a source.
func From(c *transfer.Client) Source { return client{c} }

type client struct{ *transfer.Client }

// Large implements Source.
func (c client) Large(ctx context.Context, w transfer.Want, progress func(done, total int64), early func(Early)) (Content, error) {
	got, err := c.LargeEarly(ctx, w, progress, func(e *transfer.Early) { early(e) })
	if err != nil {
		return nil, err // not a nil pointer in an interface
	}
	return got, nil
}
