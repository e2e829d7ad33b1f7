package service

import (
	"fmt"
	"mime"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits of metadata, in bytes where not said otherwise.
const (
	maxMIME        = 255
	maxName        = 1 << 10 // application, user, file name
	maxPath        = 4 << 10
	maxDescription = 64 << 10
	maxTags        = 256 // tags of one asset
	maxTag         = 256
)

const defaultMIME = "application/octet-stream"

// requestError is an error of the request's own making.
type requestError struct {
	status int
	msg    string
}

func (e *requestError) Error() string { return e.msg }

func badRequest(format string, args ...any) error {
	return &requestError{status: 400, msg: fmt.Sprintf(format, args...)}
}

func checkText(field, s string, limit int) error {
	if len(s) > limit {
		return badRequest("%s has %d bytes, at most %d are taken", field, len(s), limit)
	}
	if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
		return badRequest("%s is not valid UTF-8 text", field)
	}
	return nil
}

// check returns the metadata in the form in which it is kept, or what is wrong
// with it.
func (m metadata) check() (metadata, error) {
	m.MIMEType = strings.TrimSpace(m.MIMEType)
	if m.MIMEType == "" {
		m.MIMEType = defaultMIME
	}
	for _, f := range []struct {
		name  string
		value string
		limit int
	}{
		{"mime_type", m.MIMEType, maxMIME},
		{"application", string(m.Application), maxName},
		{"user", string(m.User), maxName},
		{"description", string(m.Description), maxDescription},
		{"human_filename", string(m.Filename), maxName},
		{"human_path", string(m.Path), maxPath},
	} {
		if err := checkText(f.name, f.value, f.limit); err != nil {
			return m, err
		}
	}
	for _, r := range m.MIMEType {
		if r < ' ' || r > '~' {
			return m, badRequest("mime_type holds characters outside printable ASCII")
		}
	}
	tags, err := cleanTags(m.Tags)
	m.Tags = tags
	return m, err
}

// cleanTags trims tags and drops empty and repeated ones; the order is kept.
func cleanTags(in []string) ([]string, error) {
	tags := make([]string, 0, len(in))
	for _, t := range in {
		t = strings.TrimSpace(t)
		if t == "" || slices.Contains(tags, t) {
			continue
		}
		if strings.IndexByte(t, ',') >= 0 {
			return nil, badRequest("tag %.64q holds a comma, which separates tags", t)
		}
		if err := checkText("tag", t, maxTag); err != nil {
			return nil, err
		}
		if len(tags) == maxTags {
			return nil, badRequest("more than %d tags", maxTags)
		}
		tags = append(tags, t)
	}
	return tags, nil
}

// splitTags reads tags separated by commas.
func splitTags(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// guessMIME guesses a type from a file name. The common types are listed here,
// because the system's own table differs from machine to machine.
func guessMIME(name string) string {
	ext := strings.ToLower(path.Ext(name))
	if t, ok := commonTypes()[ext]; ok {
		return t
	}
	if t := mime.TypeByExtension(ext); t != "" && len(t) <= maxMIME {
		return t
	}
	return defaultMIME
}

func commonTypes() map[string]string {
	return map[string]string{
		".txt": "text/plain", ".md": "text/markdown", ".csv": "text/csv", ".html": "text/html", ".htm": "text/html",
		".css": "text/css", ".js": "text/javascript", ".json": "application/json", ".xml": "application/xml",
		".yaml": "application/yaml", ".yml": "application/yaml", ".pdf": "application/pdf", ".zip": "application/zip",
		".gz": "application/gzip", ".tar": "application/x-tar", ".png": "image/png", ".jpg": "image/jpeg",
		".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp", ".svg": "image/svg+xml", ".bmp": "image/bmp",
		".tif": "image/tiff", ".tiff": "image/tiff", ".avif": "image/avif", ".heic": "image/heic", ".ico": "image/vnd.microsoft.icon",
		".mp3": "audio/mpeg", ".wav": "audio/wav", ".ogg": "audio/ogg", ".flac": "audio/flac", ".m4a": "audio/mp4",
		".mp4": "video/mp4", ".webm": "video/webm", ".mov": "video/quicktime", ".mkv": "video/x-matroska",
		".epub": "application/epub+zip", ".bin": defaultMIME,
		".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
		".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
		".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
	}
}
