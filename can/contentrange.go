package can

import (
	"errors"
	"strconv"
	"strings"
)

var errContentRange = errors.New("invalid Content-Range")

// contentRange is a parsed Content-Range (RFC 9110, 14.4).
type contentRange struct {
	first, last int64 // inclusive; first is -1 in an unsatisfied range
	total       int64 // -1 when unknown
}

func (r contentRange) String() string {
	s := "bytes */"
	if r.first >= 0 {
		s = "bytes " + strconv.FormatInt(r.first, 10) + "-" + strconv.FormatInt(r.last, 10) + "/"
	}
	if r.total < 0 {
		return s + "*"
	}
	return s + strconv.FormatInt(r.total, 10)
}

func parseContentRange(s string) (contentRange, error) {
	var none contentRange
	if len(s) > 128 {
		return none, errContentRange
	}
	unit, rest, ok := strings.Cut(strings.TrimSpace(s), " ")
	if !ok || !strings.EqualFold(unit, "bytes") {
		return none, errContentRange
	}
	span, total, ok := strings.Cut(strings.TrimSpace(rest), "/")
	if !ok {
		return none, errContentRange
	}
	r := contentRange{first: -1, last: -1, total: -1}
	if total != "*" {
		if r.total, ok = decimal(total); !ok {
			return none, errContentRange
		}
	}
	if span == "*" {
		if r.total < 0 {
			return none, errContentRange
		}
		return r, nil
	}
	first, last, ok := strings.Cut(span, "-")
	if !ok {
		return none, errContentRange
	}
	var ok1, ok2 bool
	r.first, ok1 = decimal(first)
	r.last, ok2 = decimal(last)
	if !ok1 || !ok2 || r.last < r.first || r.total >= 0 && r.last >= r.total {
		return none, errContentRange
	}
	return r, nil
}

// decimal reads digits only, without sign.
func decimal(s string) (int64, bool) {
	if s == "" || strings.TrimLeft(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n <= maxSize
}
