package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/store"
)

// success and failed are the two envelopes.
type success struct {
	Status string `json:"status"`
	Data   any    `json:"data"`
}

type failed struct {
	Status string `json:"status"`
	Error  string `json:"error"`
}

// failure is an error with the status code it is answered with.
type failure struct {
	code int
	text string
}

func (f *failure) Error() string { return f.text }

func failf(code int, format string, args ...any) error {
	return &failure{code, fmt.Sprintf(format, args...)}
}

var errStopping = failf(http.StatusServiceUnavailable, "the sidecar is stopping; try again when it runs")

// answers says how errors are answered: the first that matches counts. Hint tells
// what to do, where the error itself does not.
var answers = []struct {
	err  error
	code int
	hint string
}{
	{cansync.ErrClosed, http.StatusServiceUnavailable, "the sidecar is stopping"},
	{cansync.ErrNoLibrary, http.StatusNotFound, "GET /libraries lists those there are"},
	{cansync.ErrNoAsset, http.StatusNotFound, "GET /libraries/{id}/assets lists those there are"},
	{cansync.ErrExists, http.StatusConflict, "GET /libraries shows it; to use another ticket, DELETE it and join again"},
	{cansync.ErrOnlyOwner, http.StatusConflict, "add &confirm=<name>, or leave out purge to keep the keys archived"},
	{cansync.ErrNotJoined, http.StatusConflict, "wait until its state is no longer \"joining\""},
	{cansync.ErrTooMany, http.StatusConflict, "wait until some of them have come"},
	{cansync.ErrForbidden, http.StatusForbidden, "ask a member with more rights"},
	{cansync.ErrTicketExpired, http.StatusBadRequest, ""},
	{cansync.ErrTicket, http.StatusBadRequest, "copy the whole ticket again, or ask for a new one"},
	{cansync.ErrName, http.StatusBadRequest, ""},
	{cansync.ErrFilter, http.StatusBadRequest, ""},
	{cansync.ErrConfig, http.StatusBadRequest, ""},
	{store.ErrNoSpace, http.StatusServiceUnavailable, "free some space on the disk of data_dir and try again"},
	{can.ErrUnavailable, http.StatusServiceUnavailable, "see that the CAN Service runs and try again"},
	{context.DeadlineExceeded, http.StatusServiceUnavailable, "it took too long; try again"},
	{context.Canceled, http.StatusServiceUnavailable, "it was cancelled; try again"},
}

// classify returns the code and the text that an error is answered with.
func classify(err error) (int, string) {
	var f *failure
	if errors.As(err, &f) {
		return f.code, f.text
	}
	for _, a := range answers {
		if !errors.Is(err, a.err) {
			continue
		}
		text := plain(err.Error())
		if a.hint != "" {
			text += "; " + a.hint
		}
		return a.code, text
	}
	return http.StatusInternalServerError, plain(err.Error())
}

// ticketLike is what begins like a ticket.
var ticketLike = regexp.MustCompile(`(?i)cansync1[a-z0-9]{4,}`)

// packages are names that begin an error, or a part of one, in this module.
var packages = regexp.MustCompile(`(^|: |; )(?:(?:cansync|announce|blob|can|capability|control|fetch|filter|ingest|inventory|` +
	`keyring|kv|libp2p|library|reconcile|record|replica|session|store|transfer|transport|wire): )+`)

// rights is how the lack of a right is said.
var rights = regexp.MustCompile(`^not allowed: .*?(\S+) needed, (\S+) granted`)

// Plain makes the text of an error one line for users: without names of packages,
// and without what looks like a ticket, which users put in the wrong place.
func Plain(err error) string { return plain(err.Error()) }

func plain(text string) string {
	text = ticketLike.ReplaceAllString(text, "(a ticket)")
	text = strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ")
	text = packages.ReplaceAllString(text, "$1")
	text = strings.ReplaceAll(text, "invalid configuration: invalid configuration: ", "invalid configuration: ")
	return rights.ReplaceAllString(text, "not allowed: it takes the right to $1, and this node's membership gives $2")
}

func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	code, text := classify(err)
	if code >= http.StatusInternalServerError && code != http.StatusServiceUnavailable {
		h.log.Warn("request failed", "route", r.Pattern, "status", code, "error", text)
	}
	write(w, code, failed{"error", text})
}

func succeed(w http.ResponseWriter, data any) { write(w, http.StatusOK, success{"success", data}) }

func write(w http.ResponseWriter, code int, v any) {
	b, err := encode(v)
	if err != nil {
		code, b = http.StatusInternalServerError, []byte(`{"status":"error","error":"internal error: the answer can't be written as JSON"}`+"\n")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(b) // who asked may be gone
}

// encode writes JSON and a line feed. It leaves <, > and & as they are: the answers
// are read in terminals and said to be JSON, not HTML.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

// recorder remembers the status code.
type recorder struct {
	http.ResponseWriter
	code int
}

func (r *recorder) WriteHeader(code int) {
	if r.code == 0 {
		r.code = code
	}
	r.ResponseWriter.WriteHeader(code)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.code == 0 {
		r.code = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController find the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// clip shortens what came from outside for an error, and hides what looks like a
// ticket.
func clip(s string) string {
	if strings.Contains(strings.ToLower(s), "cansync1") {
		return "(a ticket)"
	}
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}
