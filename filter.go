package cansync

import (
	"fmt"
	"slices"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/filter"
)

// Filter says which assets belong to a library: those that satisfy every field
// that is set. The zero value is satisfied by every asset.
//
// The fields it looks at are what users say about their assets. A filter that is
// too wide shows members what was not meant for them: see [Node.Preview].
type Filter struct {
	// Application is compared exactly.
	Application string `json:"application,omitempty"`
	// Tags are satisfied by an asset that has at least one of them, compared
	// exactly.
	Tags []string `json:"tags,omitempty"`
	// User is compared exactly.
	User string `json:"user,omitempty"`
	// MIMEPrefix is what the asset's MIME type starts with, such as "image/";
	// ASCII letters compare without regard to case.
	MIMEPrefix string `json:"mime_prefix,omitempty"`
	// Hashes choose single assets by the SHA-256 of their content, in lower-case
	// hexadecimal digits. [Node.CreateLibrary], [Node.Preview] and
	// [Library.SetFilter] also take the CAN Service's own hashes and replace them
	// by digests of the content.
	Hashes []string `json:"hashes,omitempty"`
}

// IsZero reports whether the filter is satisfied by every asset.
func (f Filter) IsZero() bool {
	return f.Application == "" && len(f.Tags) == 0 && f.User == "" && f.MIMEPrefix == "" && len(f.Hashes) == 0
}

// Match reports whether an asset with the content and the metadata belongs.
// Hashes that are not digests of contents never match.
func (f Filter) Match(digest can.Digest, m can.Metadata) bool {
	if len(f.Hashes) > 0 && !slices.Contains(f.Hashes, digest.String()) {
		return false
	}
	f.Hashes = nil
	return f.parse(nil).Match(digest, m)
}

// Validate reports whether the filter can be used; errors match [ErrFilter] and
// name the field.
func (f Filter) Validate() error {
	digests, err := f.digests()
	if err != nil {
		return err
	}
	return f.parse(digests).Validate()
}

func (f Filter) digests() ([]can.Digest, error) {
	var ds []can.Digest
	for _, h := range f.Hashes {
		d, err := can.ParseDigest(h)
		if err != nil {
			return nil, fmt.Errorf("%w: hashes: %q is neither the SHA-256 of a content nor a hash that the CAN Service knows", ErrFilter, clip(h))
		}
		ds = append(ds, d)
	}
	return ds, nil
}

func (f Filter) parse(digests []can.Digest) filter.Filter {
	return filter.Filter{Application: f.Application, Tags: f.Tags, User: f.User, MIMEPrefix: f.MIMEPrefix, Hashes: digests}.Normalize()
}

func filterOf(f filter.Filter) Filter {
	out := Filter{Application: f.Application, Tags: slices.Clone(f.Tags), User: f.User, MIMEPrefix: f.MIMEPrefix}
	for _, d := range f.Hashes {
		out.Hashes = append(out.Hashes, d.String())
	}
	return out
}

// clip shortens what came from outside for an error message.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
