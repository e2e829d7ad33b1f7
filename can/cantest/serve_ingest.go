package cantest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"

	"github.com/cansync/cansync/can"
)

const maxField = 1 << 20 // of one form field

func (s *Service) serveIngest(w http.ResponseWriter, req *http.Request, act *Action) {
	mt, params, err := mime.ParseMediaType(req.Header.Get("Content-Type"))
	if err != nil || mt != "multipart/form-data" {
		refuse(w, http.StatusBadRequest, "not a form")
		return
	}
	in, got, err := s.readForm(multipart.NewReader(req.Body, params["boundary"]))
	switch {
	case errors.Is(err, can.ErrTooLarge):
		refuse(w, http.StatusRequestEntityTooLarge, "content too large")
		return
	case err != nil:
		refuse(w, http.StatusBadRequest, "bad form")
		return
	}
	// The request must have ended as it said it would.
	if _, err := io.Copy(io.Discard, req.Body); err != nil {
		refuse(w, http.StatusBadRequest, "bad form")
		return
	}
	success(w, toWire(s.finish(got, in, act)))
}

// readForm reads the fields and the file, which may come in any order.
func (s *Service) readForm(form *multipart.Reader) (m can.Metadata, got received, err error) {
	var ts int64
	file := false
	for {
		part, err := form.NextRawPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			return m, got, err
		}
		if part.FormName() == "file" {
			if got, err = s.receive(part, ts); err != nil {
				return m, got, err
			}
			file = true
			continue
		}
		b, err := io.ReadAll(io.LimitReader(part, maxField))
		if err != nil {
			return m, got, err
		}
		v := string(b)
		switch part.FormName() {
		case "mime_type":
			m.MIMEType = v
		case "human_file_name":
			m.Filename = v
		case "human_readable_path":
			m.Path = v
		case "application":
			m.Application = v
		case "user":
			m.User = v
		case "description":
			m.Description = v
		case "tags":
			m.Tags = splitTags(v)
		case "timestamp":
			if ts, err = strconv.ParseInt(v, 10, 64); err != nil {
				return m, got, err
			}
		}
	}
	if !file {
		return m, got, errors.New("no file")
	}
	return m, got, nil
}

func splitTags(v string) (tags []string) {
	for tag := range strings.SplitSeq(v, ",") {
		if tag = strings.TrimSpace(tag); tag != "" {
			tags = append(tags, tag)
		}
	}
	return tags
}

func (s *Service) serveIngestData(w http.ResponseWriter, req *http.Request, act *Action) {
	var in struct {
		Data        json.RawMessage `json:"data"`
		Tags        string          `json:"tags"`
		Application string          `json:"application"`
		User        string          `json:"user"`
		Description string          `json:"description"`
		Filename    string          `json:"human_file_name"`
		Path        string          `json:"human_readable_path"`
	}
	if err := json.NewDecoder(io.LimitReader(req.Body, 16<<20)).Decode(&in); err != nil || len(in.Data) == 0 {
		refuse(w, http.StatusBadRequest, "bad JSON")
		return
	}
	got, err := s.receive(bytes.NewReader(in.Data), 0)
	if err != nil {
		refuse(w, http.StatusRequestEntityTooLarge, "content too large")
		return
	}
	success(w, toWire(s.finish(got, can.Metadata{
		MIMEType: "application/json", Tags: splitTags(in.Tags), Application: in.Application,
		User: in.User, Description: in.Description, Filename: in.Filename, Path: in.Path,
	}, act)))
}

// finish stores what was received, unless a fault forgets it, notes it in the
// ledger and returns the asset to answer with.
func (s *Service) finish(got received, m can.Metadata, act *Action) can.Asset {
	rec := Received{Digest: got.digest, Size: got.size, Answered: true}
	if act != nil && act.Kind == ActForget {
		rec.Answered = false
		s.record(rec)
		return can.Asset{Handle: got.handle, Timestamp: got.ts, Size: got.size, Metadata: m}
	}
	rec.Created = !s.exists(got.handle)
	a := s.store(got, m)
	rec.Handle = a.Handle
	if act != nil {
		switch act.Kind {
		case ActHangAfter, ActHangMid, ActAnswerLost, ActStatusAfter, ActCut:
			rec.Answered = false
		case ActWrongHash:
			rec.Answered = false
			a.Handle = s.randomHandle()
		}
	}
	s.record(rec)
	return a
}
