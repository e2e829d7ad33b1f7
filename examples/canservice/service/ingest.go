package service

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"
)

const (
	// maxParts and maxField bound a form: its parts, and the bytes of one field.
	maxParts = 64
	// maxEpilogue bounds what may follow a form's last boundary.
	maxEpilogue = 4 << 10
	maxField    = maxDescription
	// maxDataBody bounds the body of POST /ingest/data, which is held in memory.
	maxDataBody  = 16 << 20
	maxPatchBody = 1 << 20
)

// form is what an upload said besides its content.
type form struct {
	metadata
	uploadName string // of the file part
	timestamp  int64
	chosen     bool
	tags       []string
	seen       map[string]bool
}

// set takes one field. Unknown ones are ignored, as forms carry many.
func (f *form) set(name, value string) error {
	var to *optional
	switch name {
	case "tags":
		f.tags = append(f.tags, splitTags(value)...)
		return nil // may be repeated
	case "mime_type":
		f.MIMEType = value
	case "application":
		to = &f.Application
	case "user":
		to = &f.User
	case "description":
		to = &f.Description
	case "human_file_name", "human_filename":
		name, to = "human_file_name", &f.Filename
	case "human_readable_path", "human_path":
		name, to = "human_readable_path", &f.Path
	case "timestamp":
		if strings.TrimSpace(value) == "" {
			return nil
		}
		ts, err := parseTimestamp(value)
		if err != nil {
			return err
		}
		f.timestamp, f.chosen = ts, true
	default:
		return nil
	}
	if f.seen[name] {
		return badRequest("field %q is given more than once", name)
	}
	if f.seen == nil {
		f.seen = make(map[string]bool)
	}
	f.seen[name] = true
	if to != nil {
		*to = optional(value)
	}
	return nil
}

func parseTimestamp(value string) (int64, error) {
	ts, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
	if err != nil || ts < 1 || ts > maxTimestamp {
		return 0, badRequest("timestamp %.40q is not a time in Unix milliseconds", value)
	}
	return ts, nil
}

// finish returns the metadata in the form in which it is kept.
func (f *form) finish() (metadata, error) {
	m := f.metadata
	m.Tags = f.tags
	if strings.TrimSpace(m.MIMEType) == "" {
		name := string(m.Filename)
		if name == "" {
			name = f.uploadName
		}
		m.MIMEType = guessMIME(name)
	}
	return m.check()
}

// handleIngest streams the file part to a temporary file, wherever in the form
// it stands, and commits it when the form has ended.
func (s *Service) handleIngest(w http.ResponseWriter, r *http.Request) error {
	t, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	boundary := params["boundary"]
	if err != nil || t != "multipart/form-data" || boundary == "" || len(boundary) > 70 {
		return badRequest("want multipart/form-data with a part named file")
	}
	if err := s.slot(r.Context()); err != nil {
		return err
	}
	defer s.uploads.Release(1)
	in := &staged{}
	defer s.discard(in)
	// The parser reads in steps of 4 KiB; the buffer spares system calls.
	body := bufio.NewReaderSize(s.body(w, r), 64<<10)
	f, err := s.readForm(multipart.NewReader(body, boundary), in)
	if err != nil {
		return err
	}
	// The request must have ended as it said it would.
	if n, err := io.Copy(io.Discard, io.LimitReader(body, maxEpilogue+1)); err != nil || n > maxEpilogue {
		return badRequest("the form is followed by something else, or was cut off")
	}
	return s.finishIngest(w, in, f)
}

// slot waits for one of the places for uploads.
func (s *Service) slot(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	return s.uploads.Acquire(ctx, 1)
}

func (s *Service) readForm(mr *multipart.Reader, in *staged) (*form, error) {
	f := &form{}
	for parts := 0; ; parts++ {
		p, err := mr.NextRawPart() // NextPart would decode a transfer encoding
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, s.formError(err)
		}
		if parts == maxParts {
			return nil, badRequest("the form has more than %d parts", maxParts)
		}
		if p.FormName() == "file" {
			if in.temp != "" {
				return nil, badRequest("the form has more than one file")
			}
			f.uploadName = p.FileName()
			if err := s.stage(in, p); err != nil {
				return nil, err
			}
			continue
		}
		value, err := io.ReadAll(io.LimitReader(p, maxField+1))
		if err != nil {
			return nil, s.formError(err)
		}
		if len(value) > maxField {
			return nil, badRequest("field %.64q has more than %d bytes", p.FormName(), maxField)
		}
		if err := f.set(p.FormName(), string(value)); err != nil {
			return nil, err
		}
	}
	if in.temp == "" {
		return nil, badRequest("the form has no part named file")
	}
	return f, nil
}

func (s *Service) formError(err error) error {
	if s.ctx.Err() != nil {
		return s.ctx.Err()
	}
	return badRequest("the form ends too early or is malformed: %.200s", err.Error())
}

// stage receives content into a temporary file.
func (s *Service) stage(in *staged, r io.Reader) error {
	f, name, err := s.files.temp()
	if err != nil {
		return err
	}
	in.temp = name
	src := &sourceError{r: r}
	in.a.Size, in.sum, err = receive(f, src)
	if err == nil && s.cfg.Durable {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	switch {
	case src.err != nil:
		return s.formError(src.err)
	case err != nil:
		return fmt.Errorf("storing content: %w", err)
	}
	return nil
}

// sourceError remembers an error of the source, to tell it from one of the
// destination.
type sourceError struct {
	r   io.Reader
	err error
}

func (s *sourceError) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // a bare io.EOF is the end
		s.err = err
	}
	return n, err
}

// finishIngest commits staged content and answers the asset.
func (s *Service) finishIngest(w http.ResponseWriter, in *staged, f *form) error {
	m, err := f.finish()
	if err != nil {
		return err
	}
	in.a.metadata = m
	in.a.Timestamp, in.chosen = f.timestamp, f.chosen
	if !f.chosen {
		in.a.Timestamp = s.cfg.Now().UnixMilli()
	}
	if s.cfg.HashRule == HashTimestamp {
		in.a.Hash = sumTimestamp(in.sum, in.a.Timestamp)
	} else {
		in.sum.Sum(in.a.Hash[:0])
	}
	if in.meta, err = s.files.writeMeta(&in.a, s.cfg.Durable); err != nil {
		return err
	}
	a, err := s.commitIngest(in)
	if err != nil {
		return err
	}
	return answer(w, &a)
}

// dataBody is the body of POST /ingest/data.
type dataBody struct {
	Data         json.RawMessage `json:"data"`
	Timestamp    *int64          `json:"timestamp"`
	MIMEType     text            `json:"mime_type"`
	Application  text            `json:"application"`
	User         text            `json:"user"`
	Description  text            `json:"description"`
	Tags         tagList         `json:"tags"`
	Filename     text            `json:"human_file_name"`
	FilenameToo  text            `json:"human_filename"`
	Path         text            `json:"human_readable_path"`
	PathReadable text            `json:"human_path"`
}

// parseData reads the body of POST /ingest/data.
func parseData(body []byte) (*form, []byte, error) {
	var d dataBody
	if err := decodeStrict(body, &d); err != nil {
		return nil, nil, err
	}
	if len(d.Data) == 0 {
		return nil, nil, badRequest("data is missing; want {\"data\": any JSON value}")
	}
	f := &form{tags: d.Tags}
	f.MIMEType = d.MIMEType.value
	if strings.TrimSpace(f.MIMEType) == "" {
		f.MIMEType = "application/json"
	}
	f.Application, f.User, f.Description = optional(d.Application.value), optional(d.User.value), optional(d.Description.value)
	f.Filename, f.Path = optional(d.Filename.value), optional(d.Path.value)
	if f.Filename == "" {
		f.Filename = optional(d.FilenameToo.value)
	}
	if f.Path == "" {
		f.Path = optional(d.PathReadable.value)
	}
	if d.Timestamp != nil {
		if *d.Timestamp < 1 || *d.Timestamp > maxTimestamp {
			return nil, nil, badRequest("timestamp %d is not a time in Unix milliseconds", *d.Timestamp)
		}
		f.timestamp, f.chosen = *d.Timestamp, true
	}
	if _, err := f.finish(); err != nil {
		return nil, nil, err
	}
	return f, d.Data, nil
}

// handleIngestData stores the text of a JSON value as it was sent.
func (s *Service) handleIngestData(w http.ResponseWriter, r *http.Request) error {
	if err := s.slot(r.Context()); err != nil {
		return err
	}
	defer s.uploads.Release(1)
	body, err := s.readJSON(w, r, maxDataBody)
	if err != nil {
		return err
	}
	f, data, err := parseData(body)
	if err != nil {
		return err
	}
	in := &staged{}
	defer s.discard(in)
	if err := s.stage(in, strings.NewReader(string(data))); err != nil {
		return err
	}
	return s.finishIngest(w, in, f)
}
