package record

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/wire"
)

const assetVersion = 1

// AssetBody is the body of an announcement or edit: what an author says about an
// asset whose content has the digest in the header.
type AssetBody struct {
	// Size is the length of the content in bytes, at most 2⁶³−1.
	Size uint64
	// Root is the BLAKE3 hash of the content.
	Root [32]byte
	// Timestamp is the original time of ingest in Unix milliseconds.
	Timestamp int64

	MIMEType    string
	Application string
	User        string
	Description string
	// Tags in the order in which the author's service reports them.
	Tags     []string
	Filename string
	Path     string
}

// FromAsset makes a body of what a service says about an asset, with the BLAKE3
// hash and the length of the content as read. Each run of bytes that is not UTF-8
// becomes one U+FFFD, which is what JSON would have made of it; everything else
// is kept as it is, empty and repeated tags too.
func FromAsset(a can.Asset, root [32]byte, size uint64) AssetBody {
	b := AssetBody{
		Size:        size,
		Root:        root,
		Timestamp:   a.Timestamp,
		MIMEType:    toUTF8(a.MIMEType),
		Application: toUTF8(a.Application),
		User:        toUTF8(a.User),
		Description: toUTF8(a.Description),
		Filename:    toUTF8(a.Filename),
		Path:        toUTF8(a.Path),
	}
	if len(a.Tags) > 0 {
		b.Tags = make([]string, len(a.Tags))
		for i, t := range a.Tags {
			b.Tags[i] = toUTF8(t)
		}
	}
	return b
}

func toUTF8(s string) string { return strings.ToValidUTF8(s, string(utf8.RuneError)) }

// Metadata returns the part that a service keeps. It shares no memory with b.
func (b AssetBody) Metadata() can.Metadata {
	return can.Metadata{
		MIMEType:    b.MIMEType,
		Application: b.Application,
		User:        b.User,
		Description: b.Description,
		Tags:        slices.Clone(b.Tags),
		Filename:    b.Filename,
		Path:        b.Path,
	}
}

// Equal reports whether the bodies say the same. No tags and an empty list of
// tags are the same; the order of tags counts.
func (b AssetBody) Equal(o AssetBody) bool {
	return b.Size == o.Size && b.Root == o.Root && b.Timestamp == o.Timestamp &&
		b.MIMEType == o.MIMEType && b.Application == o.Application && b.User == o.User &&
		b.Description == o.Description && b.Filename == o.Filename && b.Path == o.Path &&
		slices.Equal(b.Tags, o.Tags)
}

// field is one bounded text of a body.
type field struct {
	name  string
	limit int
}

// Texts come in this order, tags between description and file name.
var (
	textsBefore = [...]field{{"MIME type", MaxName}, {"application", MaxName}, {"user", MaxName}, {"description", MaxDescription}}
	textsAfter  = [...]field{{"file name", MaxName}, {"path", MaxPath}}
)

func (b *AssetBody) before() [4]*string {
	return [4]*string{&b.MIMEType, &b.Application, &b.User, &b.Description}
}
func (b *AssetBody) after() [2]*string { return [2]*string{&b.Filename, &b.Path} }

// Fits reports what keeps a body from being put into a record, naming the field;
// errors match [ErrTooLarge], or [ErrInvalid] for text that is not UTF-8.
func Fits(b AssetBody) error {
	if b.Size > math.MaxInt64 {
		return fmt.Errorf("%w: a size of %d bytes", ErrTooLarge, b.Size)
	}
	total := 1 + 8 + 32 + 8 + 2
	check := func(f field, s string) error {
		if len(s) > f.limit {
			return fmt.Errorf("%w: %s has %d bytes, more than %d", ErrTooLarge, f.name, len(s), f.limit)
		}
		if !utf8.ValidString(s) {
			return fmt.Errorf("%w: %s is not UTF-8", ErrInvalid, f.name)
		}
		total += 2 + len(s)
		return nil
	}
	for i, s := range b.before() {
		if err := check(textsBefore[i], *s); err != nil {
			return err
		}
	}
	if len(b.Tags) > MaxTags {
		return fmt.Errorf("%w: %d tags, more than %d", ErrTooLarge, len(b.Tags), MaxTags)
	}
	for _, t := range b.Tags {
		if err := check(field{"tag", MaxTag}, t); err != nil {
			return err
		}
	}
	for i, s := range b.after() {
		if err := check(textsAfter[i], *s); err != nil {
			return err
		}
	}
	if total > MaxBody {
		return fmt.Errorf("%w: the metadata has %d bytes, more than %d", ErrTooLarge, total, MaxBody)
	}
	return nil
}

// Encode returns the encoding, or the error of [Fits].
func (b AssetBody) Encode() ([]byte, error) {
	if err := Fits(b); err != nil {
		return nil, err
	}
	n := 128 + len(b.MIMEType) + len(b.Application) + len(b.User) + len(b.Description) + len(b.Filename) + len(b.Path)
	for _, t := range b.Tags {
		n += 2 + len(t)
	}
	dst := append(make([]byte, 0, n), assetVersion)
	dst = wire.AppendU64(dst, b.Size)
	dst = append(dst, b.Root[:]...)
	dst = wire.AppendU64(dst, uint64(b.Timestamp))
	for _, s := range b.before() {
		dst = wire.AppendString(dst, *s)
	}
	dst = wire.AppendU16(dst, uint16(len(b.Tags)))
	for _, t := range b.Tags {
		dst = wire.AppendString(dst, t)
	}
	for _, s := range b.after() {
		dst = wire.AppendString(dst, *s)
	}
	return dst, nil
}

// DecodeAsset reads the body of an asset record; errors match wire.ErrMalformed.
func DecodeAsset(body []byte) (AssetBody, error) {
	r := wire.NewReader(body)
	b := AssetBody{}
	readAssetHead(r, len(body), &b)
	for i, s := range b.before() {
		*s = r.String(textsBefore[i].limit)
	}
	if n := r.Count(MaxTags); n > 0 && r.Err() == nil {
		b.Tags = make([]string, n)
		for i := range b.Tags {
			b.Tags[i] = r.String(MaxTag)
		}
	}
	for i, s := range b.after() {
		*s = r.String(textsAfter[i].limit)
	}
	if err := r.End(); err != nil {
		return AssetBody{}, fmt.Errorf("record: asset: %w", err)
	}
	return b, nil
}

// checkAsset fails where DecodeAsset does, without taking memory.
func checkAsset(body []byte) error {
	r := wire.NewReader(body)
	var b AssetBody
	readAssetHead(r, len(body), &b)
	for _, f := range textsBefore {
		skipText(r, f.limit)
	}
	for range r.Count(MaxTags) {
		skipText(r, MaxTag)
	}
	for _, f := range textsAfter {
		skipText(r, f.limit)
	}
	return r.End()
}

func readAssetHead(r *wire.Reader, size int, b *AssetBody) {
	if size > MaxBody {
		r.Fail("a body of %d bytes, more than %d", size, MaxBody)
	}
	if v := r.U8(); r.Err() == nil && v != assetVersion {
		r.Fail("asset version %d, want %d", v, assetVersion)
	}
	if b.Size = r.U64(); b.Size > math.MaxInt64 {
		r.Fail("a size of %d bytes", b.Size)
	}
	b.Root = r.B32()
	b.Timestamp = r.I64()
}

func skipText(r *wire.Reader, limit int) {
	n := int(r.U16())
	if r.Err() == nil && n > limit {
		r.Fail("length %d exceeds %d", n, limit)
	}
	if !utf8.Valid(r.Take(n)) {
		r.Fail("text is not UTF-8")
	}
}
