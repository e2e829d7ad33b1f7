// Package filter says which assets belong to a library or to a member's view of
// it. It is pure.
package filter

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/cansync/cansync/can"
)

// Limits of a filter. An encoded filter travels in the library's description,
// which is one record, and in every ticket.
const (
	// MaxText bounds application, user and MIME prefix, in bytes; as much as the
	// metadata itself may have.
	MaxText = 1 << 10
	// MaxTags and MaxTag bound the number of tags and the bytes of each.
	MaxTags = 64
	MaxTag  = 256
	// MaxHashes bounds the number of content digests. A larger choice of assets is
	// better made with a tag.
	MaxHashes = 384
	// MaxEncoded bounds the encoding in bytes.
	MaxEncoded = 14 << 10
)

// ErrInvalid says that a filter is beyond its limits or makes no sense.
var ErrInvalid = errors.New("filter: invalid")

// Filter selects assets: an asset matches when it satisfies every field that is
// set. The zero value is set in no field and matches everything. A Filter may be
// read concurrently.
type Filter struct {
	// Application is compared exactly, with regard to case.
	Application string
	// Tags are satisfied by an asset that has at least one of them, compared
	// exactly.
	Tags []string
	// User is compared exactly.
	User string
	// MIMEPrefix is what the asset's MIME type, as its service reports it with any
	// parameters, has to start with. ASCII letters compare without regard to case,
	// as media types do (RFC 6838, section 4.2): "image/" takes "Image/PNG", and
	// "text/plain" takes "text/plain; charset=utf-8".
	MIMEPrefix string
	// Hashes are the digests of the only contents that match.
	Hashes []can.Digest
}

// IsZero reports whether the filter is set in no field and so matches everything.
func (f Filter) IsZero() bool {
	return f.Application == "" && len(f.Tags) == 0 && f.User == "" && f.MIMEPrefix == "" && len(f.Hashes) == 0
}

// Match reports whether an asset with this content and metadata is selected.
func (f Filter) Match(digest can.Digest, m can.Metadata) bool {
	if f.Application != "" && f.Application != m.Application {
		return false
	}
	if f.User != "" && f.User != m.User {
		return false
	}
	if f.MIMEPrefix != "" && !hasPrefixFold(m.MIMEType, f.MIMEPrefix) {
		return false
	}
	if len(f.Tags) > 0 && !slices.ContainsFunc(m.Tags, func(t string) bool { return slices.Contains(f.Tags, t) }) {
		return false
	}
	return len(f.Hashes) == 0 || slices.Contains(f.Hashes, digest)
}

// hasPrefixFold is strings.HasPrefix without regard to the case of ASCII letters.
func hasPrefixFold(s, prefix string) bool {
	if len(s) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		if lowerByte(s[i]) != lowerByte(prefix[i]) {
			return false
		}
	}
	return true
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}

func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		b[i] = lowerByte(c)
	}
	return string(b)
}

// Normalize returns the one form of all filters that say the same: tags and
// hashes sorted and without repetition, the MIME prefix in lower case, empty
// lists nil. It shares no memory with f.
func (f Filter) Normalize() Filter {
	f.MIMEPrefix = lowerASCII(f.MIMEPrefix)
	f.Tags = unique(f.Tags, strings.Compare)
	f.Hashes = unique(f.Hashes, compareDigest)
	return f
}

func compareDigest(a, b can.Digest) int { return bytes.Compare(a[:], b[:]) }

func unique[T comparable](in []T, cmp func(a, b T) int) []T {
	if len(in) == 0 {
		return nil
	}
	out := slices.Clone(in)
	slices.SortFunc(out, cmp)
	return slices.Clip(slices.Compact(out))
}

// Validate reports what keeps a filter from being used, naming the field as in
// JSON; errors match [ErrInvalid].
func (f Filter) Validate() error {
	for _, t := range [...]struct{ name, text string }{
		{"application", f.Application}, {"user", f.User}, {"mime_prefix", f.MIMEPrefix},
	} {
		if err := checkText(t.name, t.text, MaxText); err != nil {
			return err
		}
	}
	if len(f.Tags) > MaxTags {
		return fmt.Errorf("%w: tags: %d tags, at most %d", ErrInvalid, len(f.Tags), MaxTags)
	}
	for _, t := range f.Tags {
		if t == "" {
			return fmt.Errorf("%w: tags: an empty tag", ErrInvalid)
		}
		if err := checkText("tags", t, MaxTag); err != nil {
			return err
		}
	}
	if len(f.Hashes) > MaxHashes {
		return fmt.Errorf("%w: hashes: %d hashes, at most %d", ErrInvalid, len(f.Hashes), MaxHashes)
	}
	for _, h := range f.Hashes {
		if h.IsZero() {
			return fmt.Errorf("%w: hashes: an all-zero hash", ErrInvalid)
		}
	}
	if n := f.size(); n > MaxEncoded {
		return fmt.Errorf("%w: %d bytes in all, at most %d", ErrInvalid, n, MaxEncoded)
	}
	return nil
}

func checkText(name, s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%w: %s: %d bytes, at most %d", ErrInvalid, name, len(s), limit)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%w: %s: not UTF-8", ErrInvalid, name)
	}
	return nil
}

// Equal reports whether the filters say the same, whatever the order of their
// lists and the case of their MIME prefixes.
func (f Filter) Equal(o Filter) bool {
	f, o = f.Normalize(), o.Normalize()
	return f.Application == o.Application && f.User == o.User && f.MIMEPrefix == o.MIMEPrefix &&
		slices.Equal(f.Tags, o.Tags) && slices.Equal(f.Hashes, o.Hashes)
}

// Narrower reports whether everything that a selects is selected by b too, which
// includes that they select the same. For valid filters it is exact: where it
// says no, some asset tells the two apart.
func Narrower(a, b Filter) bool {
	if b.Application != "" && a.Application != b.Application {
		return false
	}
	if b.User != "" && a.User != b.User {
		return false
	}
	if !hasPrefixFold(a.MIMEPrefix, b.MIMEPrefix) {
		return false
	}
	return within(a.Tags, b.Tags) && within(a.Hashes, b.Hashes)
}

// within reports whether a list of alternatives leaves no more open than another;
// an empty list leaves everything open.
func within[T comparable](a, b []T) bool {
	if len(b) == 0 {
		return true
	}
	return len(a) > 0 && !slices.ContainsFunc(a, func(v T) bool { return !slices.Contains(b, v) })
}
