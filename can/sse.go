package can

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// sseEvent is one server-sent event (WHATWG HTML, 9.2).
type sseEvent struct {
	name string // empty: the default type
	data string
}

// sseReader reads an event stream with bounded lines and events.
type sseReader struct {
	r     *bufio.Reader
	limit int
	alive func() // called for each line, comments included
	start bool
	lf    bool // skip a line feed that belongs to the carriage return before
}

func newSSEReader(r io.Reader, limit int, alive func()) *sseReader {
	return &sseReader{r: bufio.NewReader(r), limit: limit, alive: alive, start: true}
}

// line reads one line that ends in CR, LF or CRLF. A line without an end is no
// line: a stream that breaks off in the middle of it never sent it.
func (s *sseReader) line() (string, error) {
	var b strings.Builder
	for {
		c, err := s.r.ReadByte()
		if err != nil {
			return "", err
		}
		if c == '\n' && s.lf {
			s.lf = false
			continue
		}
		s.lf = c == '\r'
		if c == '\r' || c == '\n' {
			break
		}
		if b.Len() >= s.limit {
			return "", fmt.Errorf("%w: line in the event stream longer than %d bytes", ErrInvalid, s.limit)
		}
		b.WriteByte(c)
	}
	s.alive()
	line := b.String()
	if s.start {
		line = strings.TrimPrefix(line, "\ufeff")
		s.start = false
	}
	return line, nil
}

// next returns the next event that has data or a name.
func (s *sseReader) next() (sseEvent, error) {
	var ev sseEvent
	var data strings.Builder
	seen := false
	for {
		line, err := s.line()
		if err != nil {
			return sseEvent{}, err
		}
		if line == "" {
			if seen {
				ev.data = strings.TrimSuffix(data.String(), "\n")
				return ev, nil
			}
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			ev.name, seen = value, true
		case "data":
			if data.Len()+len(value) >= s.limit {
				return sseEvent{}, fmt.Errorf("%w: event longer than %d bytes", ErrInvalid, s.limit)
			}
			data.WriteString(value)
			data.WriteByte('\n')
			seen = true
		}
	}
}

// event translates ev; known is false for types that say nothing about assets.
func (ev sseEvent) event() (out Event, known bool) {
	switch ev.name {
	case "new_asset":
		out.Kind = EventNew
	case "asset_changed":
		out.Kind = EventChanged
	case "asset_trashed":
		out.Kind = EventTrashed
	case "", "message":
		return Event{}, true
	default:
		return Event{}, false
	}
	// The payload is not promised: without one the event is still a hint.
	if a, err := decodeAsset([]byte(ev.data)); err == nil {
		out.Asset = a
	}
	return out, true
}
