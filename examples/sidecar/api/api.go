// Package api is the HTTP API of the sidecar: a node's libraries, tickets, peers
// and status as JSON, made to stand beside a web browser on the same machine.
//
// Every answer is {"status":"success","data":…} or {"status":"error","error":"…"}.
// The handler checks Host and Origin (DNS rebinding, cross-site requests), an
// optional bearer token, and sends no CORS headers. Tickets travel in bodies only
// and are never logged.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cansync/cansync"
)

// Limits of the API.
const (
	// MaxBody is the largest body of a request in bytes.
	MaxBody = 1 << 20
	// maxRequests and maxStreams bound what is served at a time.
	maxRequests = 32
	maxStreams  = 16
	// requestTime bounds the work on a request that is not an event stream.
	requestTime = 90 * time.Second
	// bodyTime bounds the reading of a request's body.
	bodyTime = 30 * time.Second
	// writeTime bounds the writing of an answer, and of each event.
	writeTime = 30 * time.Second
)

// Options say what a Handler serves. Node and Addr are required.
type Options struct {
	Node *cansync.Node
	// Addr is where the listener listens, as host:port with a numeric port, or
	// "unix" for a socket in the file system. Requests must name it in Host.
	Addr string
	// Host is the host name under which the listener was configured, when it is
	// neither an IP address nor localhost; it is allowed in Host too.
	Host string
	// Token, when not empty, must come with each request as a bearer token.
	Token string
	// ServiceURL is shown in the status as the URL of the CAN Service.
	ServiceURL string
	// Probe asks the CAN Service whether it answers. It is called for the status
	// until the node itself has listed the service once; nil means not to ask.
	Probe func(context.Context) error
	// Network is shown in the status.
	Network cansync.Network
	// Heartbeat is the time between signs of life in an event stream; 0 means 15 s.
	Heartbeat time.Duration
	// Logger takes an access log at debug level, without bodies, queries or paths'
	// variable parts, and failures at warn; nil discards both.
	Logger *slog.Logger
}

// Handler serves the API. It is safe for concurrent use.
type Handler struct {
	node  *cansync.Node
	opts  Options
	log   *slog.Logger
	guard guard
	mux   *http.ServeMux

	requests chan struct{} // a token for each request under way
	streams  chan struct{} // a token for each event stream
	panics   atomic.Int64
	stop     context.Context // ends when draining begins
	halt     context.CancelFunc

	mu      sync.Mutex
	under   int           // requests under way
	drained chan struct{} // closed when draining and none is under way
	closing bool
}

var _ http.Handler = (*Handler)(nil)

// New returns a handler for the node, which stays the caller's.
func New(o Options) (*Handler, error) {
	if o.Node == nil {
		return nil, errors.New("api: Node is required")
	}
	g, err := newGuard(o.Addr, o.Host, o.Token)
	if err != nil {
		return nil, err
	}
	if o.Heartbeat <= 0 {
		o.Heartbeat = 15 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	h := &Handler{
		node: o.Node, opts: o, log: o.Logger, guard: g,
		requests: make(chan struct{}, maxRequests), streams: make(chan struct{}, maxStreams),
		drained: make(chan struct{}),
	}
	h.opts.Token = "" // the guard has what it needs
	h.stop, h.halt = context.WithCancel(context.Background())
	h.mux = h.routes()
	return h, nil
}

// action serves one route. What it returns becomes the data of the answer.
type action func(r *http.Request, body []byte) (any, error)

// routes lays out every path with its methods.
func (h *Handler) routes() *http.ServeMux {
	mux := http.NewServeMux()
	for pattern, methods := range map[string]map[string]action{
		"/status":                          {http.MethodGet: h.status},
		"/peers":                           {http.MethodGet: h.peers},
		"/peers/{peer}/limits":             {http.MethodGet: h.peerLimits, http.MethodPatch: h.changePeerLimits},
		"/limits":                          {http.MethodGet: h.limits, http.MethodPatch: h.changeLimits},
		"/join":                            {http.MethodPost: h.join},
		"/events":                          {http.MethodGet: nil},
		"/libraries":                       {http.MethodGet: h.libraries, http.MethodPost: h.create},
		"/libraries/{id}":                  {http.MethodGet: h.library, http.MethodDelete: h.leave, http.MethodPatch: h.change},
		"/libraries/{id}/invite":           {http.MethodPost: h.invite},
		"/libraries/{id}/members":          {http.MethodGet: h.members},
		"/libraries/{id}/progress":         {http.MethodGet: h.progress},
		"/libraries/{id}/fetch":            {http.MethodPost: h.fetch},
		"/libraries/{id}/prioritize":       {http.MethodPost: h.prioritize},
		"/libraries/{id}/pause":            {http.MethodPost: h.pause},
		"/libraries/{id}/resume":           {http.MethodPost: h.resume},
		"/libraries/{id}/removals/confirm": {http.MethodPost: h.confirmRemovals},
		"/libraries/{id}/removals/dismiss": {http.MethodPost: h.dismissRemovals},
		"/libraries/{id}/approvals":        {http.MethodGet: h.approvals},
		"/libraries/{id}/approve":          {http.MethodPost: h.approve},
		"/libraries/{id}/decline":          {http.MethodPost: h.decline},
		"/libraries/{id}/assets":           {http.MethodGet: h.assets},
		"/libraries/{id}/assets/{digest}":  {http.MethodGet: h.asset, http.MethodDelete: h.removeAsset},

		"/libraries/{id}/assets/{digest}/holders": {http.MethodGet: h.holders},
	} {
		for method, do := range methods {
			if pattern == "/events" {
				mux.HandleFunc(method+" "+pattern, h.events)
				continue
			}
			mux.Handle(method+" "+pattern, h.serve(do))
		}
		allow := allowed(methods)
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", allow)
			h.fail(w, r, failf(http.StatusMethodNotAllowed, "%s is not possible here; the path takes %s", clip(r.Method), allow))
		})
	}
	mux.HandleFunc("/", h.unknown)
	return mux
}

func (h *Handler) unknown(w http.ResponseWriter, r *http.Request) {
	h.fail(w, r, failf(http.StatusNotFound, "no such path; see the README for those there are"))
}

// allowed returns the value of an Allow header.
func allowed(methods map[string]action) string {
	var out []string
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodDelete} {
		base := m
		if m == http.MethodHead {
			base = http.MethodGet
		}
		if _, ok := methods[base]; ok {
			out = append(out, m)
		}
	}
	return strings.Join(out, ", ")
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w}
	began := time.Now()
	defer h.recovered(rec, r)
	defer func() {
		h.log.Debug("request", "method", clip(r.Method), "route", r.Pattern, "status", rec.code, "duration", time.Since(began))
	}()
	secure(rec.Header())
	if err := h.guard.check(r); err != nil {
		h.fail(rec, r, err)
		return
	}
	if !h.begin() {
		rec.Header().Set("Connection", "close")
		h.fail(rec, r, errStopping)
		return
	}
	defer h.end()
	// The mux answers unclean paths with a redirect of its own, which would be no
	// envelope.
	if p := r.URL.Path; p == "" || p[0] != '/' || path.Clean(p) != p || r.URL.RawPath != "" {
		h.unknown(rec, r)
		return
	}
	h.mux.ServeHTTP(rec, r)
}

// recovered turns a panic into an answer. The value is not logged unless it is
// one of the runtime's: it might hold what a request said.
func (h *Handler) recovered(w *recorder, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler { //nolint:errorlint // it is compared as net/http does
		panic(v)
	}
	h.panics.Add(1)
	what := "a panic"
	if e, ok := v.(runtime.Error); ok {
		what = e.Error()
	}
	h.log.Error("request failed", "route", r.Pattern, "error", what, "stack", string(debug.Stack()))
	if w.code == 0 {
		h.fail(w, r, failf(http.StatusInternalServerError, "internal error; the log says more"))
	}
}

// Panics returns how many requests ended in a panic. It is 0 in good order.
func (h *Handler) Panics() int64 { return h.panics.Load() }

// begin admits a request until draining begins.
func (h *Handler) begin() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing {
		return false
	}
	h.under++
	return true
}

func (h *Handler) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.under--; h.closing && h.under == 0 {
		close(h.drained)
	}
}

// Drain makes the handler answer 503 from now on, ends event streams, and waits
// for the requests under way, or for the end of ctx, at which they are cancelled.
// It may be called several times.
func (h *Handler) Drain(ctx context.Context) error {
	h.mu.Lock()
	if !h.closing {
		h.closing = true
		if h.under == 0 {
			close(h.drained)
		}
	}
	h.mu.Unlock()
	// Streams go by themselves; other requests may finish.
	h.halt()
	select {
	case <-h.drained:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// serve wraps an action: limits, body, deadline, envelope.
func (h *Handler) serve(do action) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case h.requests <- struct{}{}:
			defer func() { <-h.requests }()
		default:
			w.Header().Set("Retry-After", "1")
			h.fail(w, r, failf(http.StatusServiceUnavailable, "too many requests at a time; try again"))
			return
		}
		body, err := readBody(w, r)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), requestTime)
		defer cancel()
		data, err := do(r.WithContext(ctx), body)
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime))
		if err != nil {
			h.fail(w, r, err)
			return
		}
		succeed(w, data)
	})
}
