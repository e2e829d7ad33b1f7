package can

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds on numbers and handles that a service reports.
const (
	maxSize      = 1<<53 - 1       // the largest integer that every JSON reader keeps
	maxTimestamp = 253402300799999 // end of the year 9999
	maxHandle    = 256
	maxTotal     = math.MaxInt32
)

// flexString accepts a string, null (empty) and a number.
type flexString string

func (s *flexString) UnmarshalJSON(b []byte) error {
	switch {
	case bytes.Equal(b, []byte("null")):
		*s = ""
		return nil
	case b[0] == '"':
		return json.Unmarshal(b, (*string)(s))
	case b[0] == '-' || b[0] >= '0' && b[0] <= '9':
		*s = flexString(b)
		return nil
	}
	return errors.New("want a string")
}

// flexInt accepts an integer, also written as a float without fraction or as a
// string, and null (absent).
type flexInt struct {
	v   int64
	set bool
}

func (n *flexInt) UnmarshalJSON(b []byte) error {
	*n = flexInt{}
	if bytes.Equal(b, []byte("null")) {
		return nil
	}
	s := string(b)
	if b[0] == '"' {
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		if s = strings.TrimSpace(s); s == "" {
			return nil
		}
	}
	if v, err := strconv.ParseInt(s, 10, 64); err == nil {
		*n = flexInt{v, true}
		return nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > maxSize {
		return errors.New("want an integer")
	}
	*n = flexInt{int64(f), true}
	return nil
}

// flexBool accepts a boolean, 0, 1 and null (false).
type flexBool bool

func (v *flexBool) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case "true", "1":
		*v = true
	case "false", "0", "null":
		*v = false
	default:
		return errors.New("want a boolean")
	}
	return nil
}

// flexTags accepts an array of strings, one string of tags separated by commas,
// and null (none).
type flexTags []string

func (t *flexTags) UnmarshalJSON(b []byte) error {
	*t = nil
	switch b[0] {
	case '"':
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		*t = splitTags(s)
		return nil
	case '[':
		var list []flexString
		if err := json.Unmarshal(b, &list); err != nil {
			return err
		}
		for _, tag := range list {
			if tag != "" {
				*t = append(*t, string(tag))
			}
		}
		return nil
	case 'n':
		return nil
	}
	return errors.New("want tags")
}

func splitTags(s string) (t flexTags) {
	for tag := range strings.SplitSeq(s, ",") {
		if tag = strings.TrimSpace(tag); tag != "" {
			t = append(t, tag)
		}
	}
	return t
}

// assetJSON is an asset as services write it, with the names that the contract
// allows.
type assetJSON struct {
	Hash        flexString `json:"hash"`
	Timestamp   flexInt    `json:"timestamp"`
	MIMEType    flexString `json:"mime_type"`
	Size        flexInt    `json:"size"`
	Application flexString `json:"application"`
	User        flexString `json:"user"`
	Description flexString `json:"description"`
	Tags        flexTags   `json:"tags"`
	Filename    flexString `json:"human_filename"`
	FileName    flexString `json:"human_file_name"`
	Path        flexString `json:"human_path"`
	ReadPath    flexString `json:"human_readable_path"`
	Trashed     flexBool   `json:"is_trashed"`
	Corrupted   flexBool   `json:"is_corrupted"`
}

func (j *assetJSON) asset() (Asset, error) {
	a := Asset{
		Handle: string(j.Hash), Timestamp: j.Timestamp.v, Size: -1,
		Trashed: bool(j.Trashed), Corrupted: bool(j.Corrupted),
		Metadata: Metadata{
			MIMEType: string(j.MIMEType), Application: string(j.Application), User: string(j.User),
			Description: string(j.Description), Tags: j.Tags,
			Filename: string(j.Filename), Path: string(j.Path),
		},
	}
	if a.Filename == "" {
		a.Filename = string(j.FileName)
	}
	if a.Path == "" {
		a.Path = string(j.ReadPath)
	}
	if j.Size.set {
		a.Size = j.Size.v
		if a.Size < 0 || a.Size > maxSize {
			return Asset{}, fmt.Errorf("%w: size %d", ErrInvalid, a.Size)
		}
	}
	if a.Timestamp < 0 || a.Timestamp > maxTimestamp {
		return Asset{}, fmt.Errorf("%w: timestamp %d", ErrInvalid, a.Timestamp)
	}
	if err := checkHandle(a.Handle); err != nil {
		return Asset{}, fmt.Errorf("%w: hash %w", ErrInvalid, err)
	}
	return a, nil
}

// checkHandle refuses what can't be one segment of a URL path.
func checkHandle(h string) error {
	switch {
	case h == "":
		return errors.New("is empty")
	case len(h) > maxHandle:
		return errors.New("is too long")
	case isWord(h):
		return nil
	case h == "." || h == ".." || strings.ContainsAny(h, `/\?#%`):
		return errors.New("is not a name")
	}
	for _, r := range h {
		if r <= ' ' || r == utf8.RuneError || !unicode.IsPrint(r) {
			return errors.New("holds characters that can't be printed")
		}
	}
	return nil
}

// isWord reports whether h is made of ASCII letters and digits, as handles are.
func isWord(h string) bool {
	for i := range len(h) {
		if c := h[i]; (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}

func decodeAsset(data []byte) (Asset, error) {
	if a, ok := plainOne(data); ok {
		return a, nil
	}
	return decodeAssetAny(data)
}

// decodeAssetAny reads an asset in whatever form the contract allows.
func decodeAssetAny(data []byte) (Asset, error) {
	if data = bytes.TrimSpace(data); len(data) == 0 || data[0] != '{' {
		return Asset{}, fmt.Errorf("%w: no asset in the answer", ErrInvalid)
	}
	var j assetJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return Asset{}, fmt.Errorf("%w: asset: %w", ErrInvalid, err)
	}
	return j.asset()
}

// pageJSON is a page of a listing or of changes.
type pageJSON struct {
	Items  []assetJSON `json:"items"`
	Assets []assetJSON `json:"assets"`
	Total  flexInt     `json:"total"`
	Next   flexString  `json:"next_cursor"`
	More   *flexBool   `json:"more"`
}

type page struct {
	assets []Asset
	total  int
	next   string
	more   *bool
}

func decodePage(data []byte) (page, error) {
	data = bytes.TrimSpace(data)
	var j pageJSON
	var err error
	switch {
	case len(data) == 0 || bytes.Equal(data, []byte("null")):
	case data[0] == '[':
		err = json.Unmarshal(data, &j.Items)
	case data[0] == '{':
		err = json.Unmarshal(data, &j)
	default:
		err = errors.New("want a list")
	}
	if err != nil {
		return page{}, fmt.Errorf("%w: list: %w", ErrInvalid, err)
	}
	if len(j.Items) == 0 {
		j.Items = j.Assets
	}
	p := page{total: -1, next: string(j.Next), more: (*bool)(j.More)}
	if j.Total.set {
		if j.Total.v < 0 || j.Total.v > maxTotal {
			return page{}, fmt.Errorf("%w: total %d", ErrInvalid, j.Total.v)
		}
		p.total = int(j.Total.v)
	}
	if len(j.Items) > 0 {
		p.assets = make([]Asset, len(j.Items))
	}
	for i := range j.Items {
		if p.assets[i], err = j.Items[i].asset(); err != nil {
			return page{}, fmt.Errorf("item %d: %w", i, err)
		}
	}
	return p, nil
}

// serviceError is an error envelope: what the service says went wrong.
type serviceError struct{ message string }

func (e *serviceError) Error() string { return "the service reports an error" }

// decodeEnvelope returns the data of an answer. An error envelope is returned as
// a *serviceError. A bare array is taken for the data itself.
func decodeEnvelope(b []byte) (json.RawMessage, error) {
	b = bytes.TrimSpace(b)
	if len(b) == 0 {
		return nil, fmt.Errorf("%w: empty: %w", ErrInvalid, ErrTruncated)
	}
	if b[0] == '[' {
		return b, nil
	}
	if b[0] != '{' {
		return nil, fmt.Errorf("%w: not JSON", ErrInvalid)
	}
	var env struct {
		Status flexString      `json:"status"`
		Data   json.RawMessage `json:"data"`
		Error  json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(b, &env); err != nil {
		if !json.Valid(b) && cutShort(b) {
			return nil, fmt.Errorf("%w: %w: %w", ErrInvalid, ErrTruncated, err)
		}
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	switch env.Status {
	case "success":
		return env.Data, nil
	case "error":
		var msg string
		if json.Unmarshal(env.Error, &msg) != nil {
			msg = string(env.Error)
		}
		return nil, &serviceError{cleanMessage(msg)}
	}
	return nil, fmt.Errorf("%w: no status in the answer", ErrInvalid)
}

// cutShort reports whether b is the beginning of a JSON text.
func cutShort(b []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(b))
	for {
		if _, err := dec.Token(); err != nil {
			return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		}
	}
}

// cleanMessage shortens a text of the service and drops what could disturb a log.
func cleanMessage(s string) string {
	const limit = 200
	var b strings.Builder
	for _, r := range s {
		if b.Len() >= limit {
			b.WriteString("…")
			break
		}
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			r = ' '
		}
		b.WriteRune(r)
	}
	return strings.TrimSpace(b.String())
}
