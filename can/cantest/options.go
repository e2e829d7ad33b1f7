package cantest

import (
	"cmp"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/cansync/cansync/can"
)

// HashRule says how a Service derives an asset's handle.
type HashRule uint8

const (
	// HashContent is the SHA-256 of the content. The same content ingested again
	// is answered with the asset that is there. It is the zero value.
	HashContent HashRule = iota
	// HashTimestamp is the SHA-256 of the ingest time and the content: the same
	// content ingested twice makes two assets.
	HashTimestamp
	// HashRandom is a random handle for each ingest.
	HashRandom
)

// String returns "content", "timestamp" or "random".
func (h HashRule) String() string { return [...]string{"content", "timestamp", "random"}[h%3] }

// Features are the parts of the contract that a service may lack.
type Features uint16

// The features. A service without a feature answers 404 to its route, or ignores
// its parameter.
const (
	FeatureMeta         Features = 1 << iota // GET /asset/{hash}/meta
	FeatureUpdate                            // PATCH /asset/{hash}
	FeatureTrash                             // DELETE /asset/{hash}
	FeatureEvents                            // GET /events with new_asset
	FeatureChangeEvents                      // asset_changed and asset_trashed
	FeatureRange                             // Range on GET /asset/{hash}
	FeatureChanges                           // changed_since on GET /list
	FeatureTimestamp                         // timestamp on POST /ingest
	FeatureThumbs                            // GET /asset/{hash}/thumb/{w}/{h}
	FeatureSearch                            // GET /search

	// AllFeatures are all of them. A service that lacks them all has only ingest,
	// list and asset.
	AllFeatures Features = 1<<iota - 1
)

// Options describes a Service. The zero value is a whole service with the
// content hash rule, the real clock and no faults.
type Options struct {
	Rule HashRule
	// Lacks names the features that the service does not have.
	Lacks Features
	// Now is the service's clock; nil is time.Now.
	Now func() time.Time
	// Seed seeds random handles and the probabilities of faults.
	Seed uint64
	// PageCap is the largest page of a listing; 0 is 500.
	PageCap int
	// MaxSize is the largest content that is taken; 0 is unlimited.
	MaxSize int64
	// Echo changes the metadata that the service keeps, on ingest and update, in
	// the order given.
	Echo []func(*can.Metadata)
	// KeepAlive is the interval of comments in the event stream; 0 is 15 s.
	KeepAlive time.Duration
	// DiscardContent makes ingests be hashed and not kept. Such an asset is read
	// back through Reopen; where that is nil or returns nil, reading fails as for
	// a corrupted asset.
	DiscardContent bool
	// Reopen returns the content of an asset that was discarded.
	Reopen func(d can.Digest, size int64) io.ReadSeeker
	// Faults are in force from the start; see [Service.Inject].
	Faults []Fault
}

// DropDescription is an Echo of a service that keeps no description.
func DropDescription(m *can.Metadata) { m.Description = "" }

// SortTags is an Echo of a service that sorts tags and drops repeated ones.
func SortTags(m *can.Metadata) {
	m.Tags = slices.Clone(m.Tags)
	slices.Sort(m.Tags)
	m.Tags = slices.Compact(m.Tags)
}

// TrimNames is an Echo of a service that trims space from texts and keeps no
// directories in names.
func TrimNames(m *can.Metadata) {
	for _, s := range []*string{&m.Application, &m.User, &m.Description, &m.Filename, &m.Path} {
		*s = strings.TrimSpace(*s)
	}
	m.Filename = m.Filename[strings.LastIndexByte(m.Filename, '/')+1:]
}

// CapTags returns an Echo of a service that keeps the first n tags.
func CapTags(n int) func(*can.Metadata) {
	return func(m *can.Metadata) { m.Tags = m.Tags[:min(n, len(m.Tags))] }
}

func (o Options) withDefaults() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.PageCap = cmp.Or(o.PageCap, 500)
	o.KeepAlive = cmp.Or(o.KeepAlive, 15*time.Second)
	return o
}
