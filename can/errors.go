package can

import (
	"errors"
	"strconv"
	"time"
)

// Errors of a CAN Service, to be matched with errors.Is. Context errors pass
// through as they are.
var (
	// ErrNotFound says that the service does not know the asset.
	ErrNotFound = errors.New("can: no such asset")
	// ErrUnsupported says that the service lacks an optional call.
	ErrUnsupported = errors.New("can: not supported by this service")
	// ErrBadRequest says that the service refused the request; sending it again
	// unchanged will not help.
	ErrBadRequest = errors.New("can: request refused")
	// ErrDenied says that the service wants credentials that were not given.
	ErrDenied = errors.New("can: access denied")
	// ErrTooLarge says that the content is larger than the service takes.
	ErrTooLarge = errors.New("can: content too large")
	// ErrConflict says that the asset, or another with its content, is there
	// already.
	ErrConflict = errors.New("can: conflict")
	// ErrCorrupted says that the service failed on this one asset.
	ErrCorrupted = errors.New("can: asset unreadable")
	// ErrUnavailable says that the service can't be reached or can't answer now.
	ErrUnavailable = errors.New("can: service unavailable")
	// ErrBusy says that the service asked to be left alone for a while; see
	// [RetryAfter]. Such errors are [ErrUnavailable] too.
	ErrBusy = errors.New("can: service busy")
	// ErrTruncated says that content or an answer ended too early.
	ErrTruncated = errors.New("can: content ends too early")
	// ErrInvalid says that the service's answer breaks the contract.
	ErrInvalid = errors.New("can: invalid answer from service")
	// ErrAmbiguous says that an ingest may or may not have happened. Look for the
	// content in the service before sending it again.
	ErrAmbiguous = errors.New("can: outcome unknown")
	// ErrNotStored says that an ingest certainly stored nothing, whatever else
	// went wrong: sending it again can't make a duplicate. It is never joined
	// with [ErrAmbiguous].
	ErrNotStored = errors.New("can: nothing was stored")
	// ErrContent says that the content handed to an ingest failed to open or to
	// read, or does not have the size it was said to have. The service is not at
	// fault.
	ErrContent = errors.New("can: content to ingest is not as described")
	// ErrClosed says that the client was closed.
	ErrClosed = errors.New("can: client closed")
)

// Outcome says what an ingest did to the service.
type Outcome uint8

const (
	// OutcomeUnknown means that the asset may be there: look for its content
	// before sending it again. It is the zero value.
	OutcomeUnknown Outcome = iota
	// OutcomeStored means that the service confirmed the asset.
	OutcomeStored
	// OutcomeNotStored means that nothing was stored: sending again is safe as far
	// as duplicates go. Whether it is of any use the error's other sentinels say,
	// such as [ErrBadRequest] (no) or [ErrBusy] (after a while).
	OutcomeNotStored
)

// String returns "unknown", "stored" or "not stored".
func (o Outcome) String() string {
	switch o {
	case OutcomeStored:
		return "stored"
	case OutcomeNotStored:
		return "not stored"
	default:
		return "unknown"
	}
}

// OutcomeOf reads the outcome of an ingest from the error that it returned.
//
// [ErrAmbiguous] wins over everything else. Without it, [ErrNotStored] and the
// errors by which a service or client refuses an ingest ([ErrBadRequest],
// [ErrDenied], [ErrTooLarge], [ErrBusy], [ErrContent]) mean that nothing was
// stored. [ErrConflict] is unknown: the content is there already, or the service
// believes so, and looking for it finds its handle. Any other error, a bare
// context error or [ErrUnavailable] of a client that does not say more included,
// is unknown as well: a mistake in this direction costs one look, in the other
// it makes a duplicate.
func OutcomeOf(err error) Outcome {
	switch {
	case err == nil:
		return OutcomeStored
	case errors.Is(err, ErrAmbiguous), errors.Is(err, ErrConflict):
		return OutcomeUnknown
	}
	for _, sure := range [...]error{ErrNotStored, ErrBadRequest, ErrDenied, ErrTooLarge, ErrBusy, ErrContent} {
		if errors.Is(err, sure) {
			return OutcomeNotStored
		}
	}
	return OutcomeUnknown
}

// Error is an error of a CAN Service with what is known of its cause. Its
// message never contains credentials.
type Error struct {
	// Op is the call that failed, such as "list" or "ingest".
	Op string
	// Handle is the asset concerned, or empty.
	Handle string
	// Status is the HTTP status, or 0 when there was no answer.
	Status int
	// Message is what the service said, shortened and free of control characters.
	Message string
	// RetryAfter is how long the service asked to be left alone, capped at 30 s.
	RetryAfter time.Duration
	// Err holds the sentinels and causes that the error matches.
	Err error

	enveloped bool // the service itself wrote the answer
}

// Error implements error.
func (e *Error) Error() string {
	s := "can: " + e.Op
	if e.Handle != "" {
		s += " " + e.Handle
	}
	if e.Status != 0 {
		s += ": status " + strconv.Itoa(e.Status)
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap implements the errors package's unwrapping.
func (e *Error) Unwrap() error { return e.Err }

func retryAfter(err error) (time.Duration, bool) {
	var e *Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		return min(e.RetryAfter, 30*time.Second), true
	}
	return 0, false
}
