package service

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"time"
)

// bodyReader reads a request body with a deadline that moves with every read, so
// that a slow upload may take its time and a stalled one may not.
type bodyReader struct {
	r  io.Reader
	rc *http.ResponseController
	s  *Service
}

func (b *bodyReader) Read(p []byte) (int, error) {
	if err := b.s.ctx.Err(); err != nil {
		return 0, err
	}
	_ = b.rc.SetReadDeadline(time.Now().Add(bodyDeadline))
	n, err := b.r.Read(p)
	if err != nil {
		// Past the body a deadline would cut the connection under the answer.
		_ = b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

func (s *Service) body(w http.ResponseWriter, r *http.Request) io.Reader {
	return &bodyReader{r: r.Body, rc: http.NewResponseController(w), s: s}
}

// readJSON reads a JSON body of at most limit bytes.
func (s *Service) readJSON(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if ct := r.Header.Get("Content-Type"); ct != "" {
		if t, _, err := mime.ParseMediaType(ct); err != nil || t != "application/json" {
			return nil, badRequest("the body's Content-Type is %.100q, not application/json", ct)
		}
	}
	r.Body = http.MaxBytesReader(w, r.Body, limit)
	data, err := io.ReadAll(s.body(w, r))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, err
	case err != nil:
		return nil, badRequest("the body could not be read to its end")
	}
	return data, nil
}

// decodeStrict reads exactly one JSON object and refuses unknown keys by name.
func decodeStrict(data []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		var re *requestError
		if errors.As(err, &re) {
			return re
		}
		if errors.Is(err, io.EOF) {
			return badRequest("the body is empty; want a JSON object")
		}
		return badRequest("body: %s", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return badRequest("body: more than one JSON value")
	}
	return nil
}

// tagList is tags in JSON: a list, one text with commas, or null.
type tagList []string

// UnmarshalJSON implements json.Unmarshaler.
func (t *tagList) UnmarshalJSON(b []byte) error {
	*t = tagList{}
	var one string
	if json.Unmarshal(b, &one) == nil { // null leaves one empty
		*t = append(*t, splitTags(one)...)
		return nil
	}
	var list []string
	if json.Unmarshal(b, &list) != nil {
		return badRequest("tags is neither a list of texts nor one text with commas")
	}
	*t = append(*t, list...)
	return nil
}

// text is a text in JSON where null stands for empty; set tells absent from
// empty.
type text struct {
	value string
	set   bool
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *text) UnmarshalJSON(b []byte) error {
	t.value, t.set = "", true
	return json.Unmarshal(b, &t.value)
}

// update is the body of a change of metadata; both spellings of the readable
// name and path are taken.
type update struct {
	MIMEType     text     `json:"mime_type"`
	Application  text     `json:"application"`
	User         text     `json:"user"`
	Description  text     `json:"description"`
	Tags         *tagList `json:"tags"`
	Filename     text     `json:"human_filename"`
	FilenameToo  text     `json:"human_file_name"`
	Path         text     `json:"human_path"`
	PathReadable text     `json:"human_readable_path"`
	nullTags     bool
}

// parseUpdate reads the body of a PATCH.
func parseUpdate(data []byte) (update, error) {
	var up update
	if err := decodeStrict(data, &up); err != nil {
		return up, err
	}
	// encoding/json does not tell a null pointer from an absent one.
	var probe map[string]json.RawMessage
	if err := json.Unmarshal(data, &probe); err != nil || probe == nil {
		return up, badRequest("body: want a JSON object")
	}
	if raw, ok := probe["tags"]; ok && string(raw) == "null" {
		up.nullTags = true
	}
	_, err := up.apply(metadata{})
	return up, err
}

// apply returns m with the changes made.
func (up update) apply(m metadata) (metadata, error) {
	if up.MIMEType.set {
		m.MIMEType = up.MIMEType.value
	}
	for _, f := range []struct {
		to   *optional
		from text
	}{
		{&m.Application, up.Application}, {&m.User, up.User}, {&m.Description, up.Description},
		{&m.Filename, up.FilenameToo}, {&m.Filename, up.Filename}, {&m.Path, up.PathReadable}, {&m.Path, up.Path},
	} {
		if f.from.set {
			*f.to = optional(f.from.value)
		}
	}
	switch {
	case up.nullTags:
		m.Tags = nil
	case up.Tags != nil:
		m.Tags = *up.Tags
	}
	return m.check()
}
