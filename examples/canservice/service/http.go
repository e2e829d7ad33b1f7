package service

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Prefix is the path below which all routes lie; the 0 is the container's id.
const Prefix = "/api/v1/can/0"

// handler answers a request or returns why it can't.
type handler func(w http.ResponseWriter, r *http.Request) error

func (s *Service) routes() http.Handler {
	mux := http.NewServeMux()
	for path, methods := range map[string]map[string]handler{
		"/ingest":                     {"POST": s.handleIngest},
		"/ingest/data":                {"POST": s.handleIngestData},
		"/list":                       {"GET": s.handleList},
		"/search":                     {"GET": s.handleSearch},
		"/asset/{hash}":               {"GET": s.handleAsset, "PATCH": s.handlePatch, "DELETE": s.handleTrash},
		"/asset/{hash}/meta":          {"GET": s.handleMeta},
		"/asset/{hash}/thumb/{w}/{h}": {"GET": s.handleThumb},
		"/events":                     {"GET": s.handleEvents},
		"/admin/verify":               {"POST": s.admin(s.handleVerify)},
		"/admin/rebuild":              {"POST": s.admin(s.handleRebuild)},
	} {
		mux.Handle(Prefix+path, s.serve(byMethod(methods)))
	}
	mux.Handle("/", s.serve(func(_ http.ResponseWriter, r *http.Request) error {
		return &requestError{status: http.StatusNotFound, msg: "no such route; the API lies below " + Prefix}
	}))
	return mux
}

func byMethod(methods map[string]handler) handler {
	allowed := make([]string, 0, len(methods)+1)
	for m := range methods {
		allowed = append(allowed, m)
		if m == http.MethodGet {
			allowed = append(allowed, http.MethodHead)
		}
	}
	slices.Sort(allowed)
	allow := strings.Join(allowed, ", ")
	return func(w http.ResponseWriter, r *http.Request) error {
		m := r.Method
		if m == http.MethodHead {
			m = http.MethodGet
		}
		h, ok := methods[m]
		if !ok {
			w.Header().Set("Allow", allow)
			return &requestError{status: http.StatusMethodNotAllowed, msg: "this route takes " + allow}
		}
		return h(w, r)
	}
}

// serve wraps a handler in what all routes share.
func (s *Service) serve(h handler) http.Handler {
	cross := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if !s.enter() {
			w.Header().Set("Connection", "close")
			s.fail(w, r, &requestError{status: http.StatusServiceUnavailable, msg: "the service is stopping"})
			return
		}
		defer s.active.Done()
		if !s.hostAllowed(r.Host) {
			s.fail(w, r, &requestError{status: http.StatusForbidden, msg: "the Host header names neither localhost nor a loopback address"})
			return
		}
		if err := cross.Check(r); err != nil {
			s.fail(w, r, &requestError{status: http.StatusForbidden, msg: "requests from other web sites are refused"})
			return
		}
		// When Close has waited long enough, a stalled client is cut off.
		rc := http.NewResponseController(w)
		defer context.AfterFunc(s.ctx, func() {
			_ = rc.SetReadDeadline(time.Unix(1, 0))
			_ = rc.SetWriteDeadline(time.Unix(1, 0))
		})()
		_ = rc.SetWriteDeadline(time.Now().Add(answerDeadline))
		// What a handler left unread of the body is read by net/http afterwards.
		defer func() { _ = rc.SetReadDeadline(time.Now().Add(leftoverDeadline)) }()
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler { //nolint:errorlint // compared as net/http does
					panic(p)
				}
				s.log.Error("request handler panicked", "method", r.Method, "route", r.Pattern, "panic", p)
				panic(http.ErrAbortHandler)
			}
		}()
		if err := h(w, r); err != nil {
			s.fail(w, r, err)
		}
	})
}

const (
	bodyDeadline   = 60 * time.Second // without a byte of the body
	answerDeadline = 60 * time.Second
	// leftoverDeadline bounds the reading of a body nobody wanted.
	leftoverDeadline = 5 * time.Second
)

// hostAllowed refuses names that a web page's owner could have point here.
func (s *Service) hostAllowed(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
	if host == "localhost" {
		return true
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap().IsLoopback() {
		return true
	}
	return slices.ContainsFunc(s.cfg.AllowedHosts, func(a string) bool { return strings.EqualFold(a, host) })
}

type envelope struct {
	Status string `json:"status"`
	Data   any    `json:"data,omitempty"`
	Error  string `json:"error,omitempty"`
}

// answer sends data in the envelope.
func answer(w http.ResponseWriter, data any) error {
	body, err := json.Marshal(envelope{Status: "success", Data: data})
	if err != nil {
		return err
	}
	send(w, http.StatusOK, body)
	return nil
}

func send(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}

// fail sends an error in the envelope. What went wrong inside is logged, and the
// client learns only that it did.
func (s *Service) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, msg := http.StatusInternalServerError, "internal error; the service's log says more"
	var re *requestError
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &re):
		status, msg = re.status, re.msg
	case errors.As(err, &tooLarge):
		status, msg = http.StatusRequestEntityTooLarge, "the body is larger than "+strconv.FormatInt(tooLarge.Limit, 10)+" bytes"
	case errors.Is(err, ErrClosed) || r.Context().Err() != nil || s.ctx.Err() != nil:
		status, msg = http.StatusServiceUnavailable, "the request was cut off"
	default:
		s.log.Error("request failed", "method", r.Method, "route", r.Pattern, "err", err)
	}
	switch status {
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="canservice"`)
	}
	body, merr := json.Marshal(envelope{Status: "error", Error: msg})
	if merr != nil {
		body = []byte(`{"status":"error","error":"internal error"}`)
	}
	send(w, status, body)
}
