package capability

import (
	"fmt"
	"io"
	"log/slog"
)

// redactedText stands for a secret wherever it would be printed.
const redactedText = "[redacted]"

// redacted, embedded, makes a type print as [redacted] through fmt, log/slog,
// encoding/json and every encoder that honours encoding.TextMarshaler. fmt does
// not call methods on unexported fields; the types that embed it therefore keep
// their bytes in a hidden.
type redacted struct{}

// hidden holds a value that fmt cannot reach by reflection: it prints what one
// pointer points to, at the top and for verbs that do not fit, but never follows
// a second. The zero value holds nothing.
type hidden[T any] struct{ p **T }

func hide[T any](v T) hidden[T] {
	p := &v
	return hidden[T]{&p}
}

// get returns the value, or nil. It must not be changed.
func (h hidden[T]) get() *T {
	if h.p == nil {
		return nil
	}
	return *h.p
}

// String returns "[redacted]".
func (redacted) String() string { return redactedText }

// GoString returns "[redacted]".
func (redacted) GoString() string { return redactedText }

// Format writes "[redacted]" for every verb.
func (redacted) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redactedText) }

// LogValue returns "[redacted]".
func (redacted) LogValue() slog.Value { return slog.StringValue(redactedText) }

// MarshalText returns "[redacted]": a secret is exported by name or not at all.
func (redacted) MarshalText() ([]byte, error) { return []byte(redactedText), nil }

// MarshalJSON returns "[redacted]" as a JSON string.
func (redacted) MarshalJSON() ([]byte, error) { return []byte(`"` + redactedText + `"`), nil }
