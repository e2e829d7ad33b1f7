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
// not call methods on unexported fields; the types that embed it therefore hold
// their bytes behind a pointer, of which fmt prints the address only.
type redacted struct{}

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
