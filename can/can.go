// Package can is the Go form of the CAN Service contract: a local
// content-addressable store that keeps a user's assets behind an HTTP API.
//
// cansync reaches the store only through the small interfaces of this package.
// A host that already has a client of its own implements [Client] (list, open,
// ingest) and as many of the optional abilities ([MetaReader], [MetaUpdater],
// [Trasher], [Watcher], [ChangeLister]) as it can; abilities are found by type
// assertion. [NewHTTPClient] returns the client for a service reached over HTTP,
// and package cantest holds an in-memory service and the conformance suite for
// clients written elsewhere.
package can

import (
	"context"
	"io"
	"time"
)

// Asset is what a CAN Service says about one stored asset.
//
// Empty strings and a nil Tags mean that the service keeps nothing in that
// field; a service does not distinguish absent from empty.
type Asset struct {
	// Handle is the service's own address of the asset (its JSON field is
	// "hash"). Some services derive it from the content alone, others from the
	// ingest time and the content, so it identifies the asset in that one
	// service and nowhere else.
	Handle string
	// Timestamp is the time of ingest in Unix milliseconds.
	Timestamp int64
	// Size is the length of the content in bytes, or -1 when the service does
	// not say.
	Size int64
	// Trashed is set on an asset that was soft-deleted.
	Trashed bool
	// Corrupted is set by a service whose own verification of the bytes failed.
	Corrupted bool

	Metadata
}

// Metadata is the part of an asset that travels with it from service to service.
type Metadata struct {
	MIMEType    string
	Application string
	User        string
	Description string
	// Tags in the order in which the service reports them.
	Tags []string
	// Filename and Path are the human-readable name and path; they are never
	// used as a path on any file system by cansync.
	Filename string
	Path     string
}

// Order is the order of a listing by timestamp.
type Order uint8

const (
	// Newest lists the newest asset first. It is the zero value.
	Newest Order = iota
	// Oldest lists the oldest asset first.
	Oldest
)

// ListOptions selects a page of a listing.
type ListOptions struct {
	// Limit is the largest number of assets wanted; 0 leaves it to the service.
	// A service may return fewer even when there are more.
	Limit int
	// Offset is the number of assets to skip.
	Offset int
	Order  Order
}

// Page is one page of a listing. Trashed assets are not listed.
type Page struct {
	Assets []Asset
	// Total is the number of assets that the service holds, or -1 when it does
	// not say.
	Total int
}

// Lister lists the assets of a service.
type Lister interface {
	List(ctx context.Context, opts ListOptions) (Page, error)
}

// Opener reads the content of an asset.
type Opener interface {
	// Open returns the bytes [offset, offset+length) of the asset's content; a
	// negative length means to the end. A service without range support is read
	// from the start and the implementation skips up to offset, so the bytes
	// returned are always the ones asked for. The reader fails with an error
	// that is [ErrTruncated] when the content ends before length bytes.
	// The caller closes the reader.
	Open(ctx context.Context, handle string, offset, length int64) (io.ReadCloser, error)
}

// Ranger is implemented by an [Opener] that knows whether its service reads from
// the middle of an asset.
type Ranger interface {
	// Ranges reports whether a read at an offset costs only the bytes asked for.
	// When it is false each such read transfers the asset from its start, so a
	// caller is better off with one sequential read. The answer may change as
	// more is learned of the service; an Opener without this method is taken to
	// support ranges.
	Ranges() bool
}

// Ingester stores an asset.
type Ingester interface {
	// Ingest stores the content with its metadata and returns the asset as the
	// service reports it, at least with its Handle.
	//
	// Ingest is not idempotent on every service. An implementation must not send
	// the content twice on its own account. [OutcomeOf] reads from its error what
	// became of the asset: where the implementation can't tell, the error is
	// [ErrAmbiguous], where it knows that nothing was stored, the error should be
	// [ErrNotStored], and what it can't classify counts as unknown. A content
	// that fails, or is shorter or longer than Size, is [ErrContent] and must
	// leave nothing in the service.
	//
	// Content that the service has in its trash is taken out of it or stored anew:
	// an answer with Trashed set is taken for a failure, and tried again later.
	Ingest(ctx context.Context, in Ingest) (Asset, error)
}

// Ingest is an asset to be stored.
type Ingest struct {
	// Content opens the content from its start. It is called at most once for
	// each attempt, and the reader is closed by the ingester.
	Content func() (io.ReadCloser, error)
	// Size is the exact length of the content in bytes.
	Size int64
	// Timestamp is the original time of ingest in Unix milliseconds, or 0. A
	// service may ignore it.
	Timestamp int64

	// Metadata is stored with the content. The contract sends Tags separated by
	// commas, so a tag with a comma in it comes back as two.
	Metadata
}

// Client is what cansync needs of a CAN Service. Implementations are safe for
// concurrent use, honour the context of each call, and return errors that match
// the sentinels of this package.
type Client interface {
	Lister
	Opener
	Ingester
}

// MetaReader reads what a service says about one asset, trashed assets included.
type MetaReader interface {
	// Meta returns [ErrNotFound] for an asset that the service does not know and
	// [ErrUnsupported] when the service has no such call.
	Meta(ctx context.Context, handle string) (Asset, error)
}

// Update changes the metadata of an asset; a nil field is left as it is.
type Update struct {
	Application *string
	User        *string
	Description *string
	Filename    *string
	Path        *string
	// Tags replaces all tags when not nil; a pointer to an empty list clears them.
	Tags *[]string
}

// MetaUpdater changes metadata in place.
type MetaUpdater interface {
	// UpdateMeta returns the asset as it stands after the change. It returns
	// [ErrUnsupported] when the service has no such call.
	UpdateMeta(ctx context.Context, handle string, up Update) (Asset, error)
}

// Trasher soft-deletes assets.
type Trasher interface {
	// Trash returns [ErrUnsupported] when the service has no such call. Trashing
	// a trashed asset succeeds.
	Trash(ctx context.Context, handle string) error
}

// EventKind says what a service event reports.
type EventKind uint8

const (
	// EventHint means that something may have changed. It is the zero value.
	EventHint EventKind = iota
	// EventNew reports a new asset.
	EventNew
	// EventChanged reports changed metadata.
	EventChanged
	// EventTrashed reports a trashed asset.
	EventTrashed
)

// Event is a hint that the service's assets changed. Events may be lost,
// repeated or out of order.
type Event struct {
	Kind EventKind
	// Asset is the asset concerned where the service says so, else its Handle is
	// empty.
	Asset Asset
}

// Watcher reports changes as they happen.
type Watcher interface {
	// Watch calls fn for each event, one at a time, until ctx ends or the
	// connection to the service breaks, and then returns a non-nil error. The
	// first call of fn, with a zero [Event], says that the watch is in place. It
	// returns [ErrUnsupported] when the service has no events.
	Watch(ctx context.Context, fn func(Event)) error
}

// ChangePage is one page of changes.
type ChangePage struct {
	// Assets that were created, changed or trashed since the cursor.
	Assets []Asset
	// Next is the cursor for the next call.
	Next string
	// More says that further changes are waiting.
	More bool
}

// ChangeLister lists what changed since a cursor.
type ChangeLister interface {
	// Changes lists assets created, changed or trashed since the cursor; an empty
	// cursor asks for everything from the beginning. limit 0 leaves the page size
	// to the service. It returns [ErrUnsupported] when the service has no such
	// call, and [ErrBadRequest] for a cursor that it no longer understands.
	Changes(ctx context.Context, cursor string, limit int) (ChangePage, error)
}

// RetryAfter returns how long a service asked to be left alone, where err
// carries such a wish, capped at 30 seconds.
func RetryAfter(err error) (time.Duration, bool) { return retryAfter(err) }
