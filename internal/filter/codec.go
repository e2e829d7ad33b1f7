package filter

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/wire"
)

const version = 1

func (f Filter) size() int {
	n := 1 + 2 + len(f.Application) + 2 + len(f.User) + 2 + len(f.MIMEPrefix) + 2 + 2 + 32*len(f.Hashes)
	for _, t := range f.Tags {
		n += 2 + len(t)
	}
	return n
}

// Encode returns the encoding of the normal form, the same for filters that are
// equal; it fails as [Filter.Validate] does. The layout: version, then
// application, user, MIME prefix and the tags as texts with two-byte lengths, the
// tags after their number, then the number of hashes and the hashes.
func (f Filter) Encode() ([]byte, error) {
	f = f.Normalize()
	if err := f.Validate(); err != nil {
		return nil, err
	}
	dst := append(make([]byte, 0, f.size()), version)
	dst = wire.AppendString(dst, f.Application)
	dst = wire.AppendString(dst, f.User)
	dst = wire.AppendString(dst, f.MIMEPrefix)
	dst = wire.AppendU16(dst, uint16(len(f.Tags)))
	for _, t := range f.Tags {
		dst = wire.AppendString(dst, t)
	}
	dst = wire.AppendU16(dst, uint16(len(f.Hashes)))
	for _, h := range f.Hashes {
		dst = append(dst, h[:]...)
	}
	return dst, nil
}

// Decode reads exactly one encoded filter. What it returns is valid and in normal
// form. Errors match wire.ErrMalformed.
func Decode(b []byte) (Filter, error) {
	r := wire.NewReader(b)
	if len(b) > MaxEncoded {
		r.Fail("a filter of %d bytes, more than %d", len(b), MaxEncoded)
	}
	if v := r.U8(); r.Err() == nil && v != version {
		r.Fail("filter version %d, want %d", v, version)
	}
	f := Filter{Application: r.String(MaxText), User: r.String(MaxText), MIMEPrefix: r.String(MaxText)}
	if f.MIMEPrefix != lowerASCII(f.MIMEPrefix) {
		r.Fail("a MIME prefix with capital letters")
	}
	last := ""
	for range r.Count(MaxTags) {
		t := r.String(MaxTag)
		if r.Err() == nil && t <= last {
			r.Fail("tags are not in ascending order")
		}
		f.Tags, last = append(f.Tags, t), t
	}
	var prev can.Digest
	for range r.Count(MaxHashes) {
		h := can.Digest(r.B32())
		if r.Err() == nil && bytes.Compare(h[:], prev[:]) <= 0 {
			r.Fail("hashes are not in ascending order")
		}
		f.Hashes, prev = append(f.Hashes, h), h
	}
	if err := r.End(); err != nil {
		return Filter{}, fmt.Errorf("filter: %w", err)
	}
	return f, nil
}

// The keys of the JSON form.
const (
	keyApplication = "application"
	keyTags        = "tags"
	keyUser        = "user"
	keyMIMEPrefix  = "mime_prefix"
	keyHashes      = "hashes"
)

type jsonFilter struct {
	Application string       `json:"application,omitempty"`
	Tags        []string     `json:"tags,omitempty"`
	User        string       `json:"user,omitempty"`
	MIMEPrefix  string       `json:"mime_prefix,omitempty"`
	Hashes      []can.Digest `json:"hashes,omitempty"`
}

// MarshalJSON implements json.Marshaler: an object with the keys application,
// tags, user, mime_prefix and hashes as far as they are set.
func (f Filter) MarshalJSON() ([]byte, error) { return json.Marshal(jsonFilter(f)) }

// UnmarshalJSON implements json.Unmarshaler. An absent key, null and an empty
// value leave a field unset. Keys that are unknown or occur twice are refused by
// name, as are values of another type; such errors match [ErrInvalid]. It does not
// call [Filter.Validate]. On an error f is as it was.
func (f *Filter) UnmarshalJSON(b []byte) error {
	if string(bytes.TrimSpace(b)) == "null" {
		return nil // by convention a no-op
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	tok, err := dec.Token()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if tok != json.Delim('{') {
		return fmt.Errorf("%w: want an object", ErrInvalid)
	}
	var out Filter
	seen := map[string]bool{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		key, _ := tok.(string) // a key is a string, or Token has failed
		var dst any
		want := "a string"
		switch key {
		case keyApplication:
			dst = &out.Application
		case keyUser:
			dst = &out.User
		case keyMIMEPrefix:
			dst = &out.MIMEPrefix
		case keyTags:
			dst, want = &out.Tags, "an array of strings"
		case keyHashes:
			dst, want = &out.Hashes, "an array of hashes, each of 64 lower-case hexadecimal digits"
		default:
			return fmt.Errorf("%w: unknown key %q", ErrInvalid, key)
		}
		if seen[key] {
			return fmt.Errorf("%w: key %q occurs twice", ErrInvalid, key)
		}
		seen[key] = true
		if err := dec.Decode(dst); err != nil {
			return fmt.Errorf("%w: key %q: want %s", ErrInvalid, key, want)
		}
	}
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if dec.More() {
		return fmt.Errorf("%w: more than one object", ErrInvalid)
	}
	if len(out.Tags) == 0 {
		out.Tags = nil
	}
	if len(out.Hashes) == 0 {
		out.Hashes = nil
	}
	*f = out
	return nil
}
