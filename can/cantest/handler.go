package cantest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cansync/cansync/can"
)

// Handler returns the service as an http.Handler under can.DefaultPath. Faults
// that break a connection panic with http.ErrAbortHandler, which net/http
// servers and [Service.RoundTripper] understand.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	p := can.DefaultPath
	route := func(pattern string, r Route, lacks Features, h func(http.ResponseWriter, *http.Request, *Action)) {
		if s.lacks(lacks) {
			return
		}
		method, rest, _ := strings.Cut(pattern, " ")
		mux.HandleFunc(method+" "+p+rest, func(w http.ResponseWriter, req *http.Request) {
			kind := r
			if r == RouteList && !s.lacks(FeatureChanges) && req.URL.Query().Has("changed_since") {
				kind = RouteChanges
			}
			act := s.enter(Call{kind, req.PathValue("hash")})
			if s.before(w, req, act) {
				return
			}
			fw, finish := s.distort(w, req, act)
			h(fw, req, act)
			finish()
		})
	}
	route("POST /ingest", RouteIngest, 0, s.serveIngest)
	route("POST /ingest/data", RouteIngest, 0, s.serveIngestData)
	route("GET /list", RouteList, 0, s.serveList)
	route("GET /search", RouteSearch, FeatureSearch, s.serveSearch)
	route("GET /asset/{hash}", RouteAsset, 0, s.serveAsset)
	route("GET /asset/{hash}/meta", RouteMeta, FeatureMeta, s.serveMeta)
	route("PATCH /asset/{hash}", RouteUpdate, FeatureUpdate, s.serveUpdate)
	route("DELETE /asset/{hash}", RouteTrash, FeatureTrash, s.serveTrash)
	route("GET /asset/{hash}/thumb/{w}/{h}", RouteThumb, FeatureThumbs, s.serveThumb)
	route("GET /events", RouteEvents, FeatureEvents, s.serveEvents)
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if s.isDown() {
			panic(http.ErrAbortHandler)
		}
		mux.ServeHTTP(w, req)
	})
}

// hang waits until the client goes away or the service is closed, and breaks the
// connection.
func (s *Service) hang(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-s.done:
	}
	panic(http.ErrAbortHandler)
}

// before carries out faults in which the service does nothing of what it was
// asked. It reports whether the request is answered.
func (s *Service) before(w http.ResponseWriter, req *http.Request, act *Action) bool {
	if act == nil {
		return false
	}
	drain := func() {
		if !act.Early {
			_, _ = io.Copy(io.Discard, req.Body)
		}
	}
	switch act.Kind {
	case ActStatus:
		drain()
		if act.RetryAfter != "" {
			w.Header().Set("Retry-After", act.RetryAfter)
		}
		refuse(w, act.Status, "injected")
	case ActErrorEnvelope:
		drain()
		refuse(w, http.StatusOK, "injected")
	case ActHTML:
		drain()
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(orInt(act.Status, http.StatusOK))
		_, _ = io.WriteString(w, "<!DOCTYPE html><html><body><h1>Bad gateway</h1></body></html>")
	case ActBadJSON:
		drain()
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"status":"success","data":{"items":[{"hash":"ab`)
	case ActEmptyList:
		drain()
		success(w, map[string]any{"items": []any{}, "total": 0})
	case ActRedirect:
		drain()
		w.Header().Set("Location", act.Location)
		w.WriteHeader(orInt(act.Status, http.StatusTemporaryRedirect))
	case ActReset:
		drain()
		panic(http.ErrAbortHandler)
	case ActHangBefore:
		drain()
		s.hang(req.Context())
	case ActEndless:
		drain()
		s.endless(w, req, act)
	default:
		return false
	}
	return true
}

func (s *Service) endless(w http.ResponseWriter, req *http.Request, act *Action) {
	if act.Gzip {
		w.Header().Set("Content-Encoding", "gzip")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_, _ = io.WriteString(w, `{"status":"success","data":"`)
	junk := []byte(strings.Repeat("0", 32<<10))
	for req.Context().Err() == nil {
		select {
		case <-s.done:
			panic(http.ErrAbortHandler)
		default:
		}
		if _, err := w.Write(junk); err != nil {
			break
		}
	}
	panic(http.ErrAbortHandler)
}

func orInt(a, b int) int {
	if a == 0 {
		return b
	}
	return a
}

// distort wraps w so that the answer is changed as the fault demands. finish must
// be called when the answer is complete.
func (s *Service) distort(w http.ResponseWriter, req *http.Request, act *Action) (http.ResponseWriter, func()) {
	if act == nil {
		return w, func() {}
	}
	switch act.Kind {
	case ActHangMid, ActHangAfter, ActSlow, ActCut, ActWrongLength, ActExtra, ActWrongBytes, ActAnswerLost, ActStatusAfter:
		d := &distorter{s: s, w: w, ctx: req.Context(), act: *act, at: act.At}
		return d, d.finish
	}
	return w, func() {}
}

// distorter is a ResponseWriter that carries out faults of an answer.
type distorter struct {
	s    *Service
	w    http.ResponseWriter
	ctx  context.Context
	act  Action
	at   int64 // offset at which something happens
	off  int64
	head bool
}

func (d *distorter) Header() http.Header { return d.w.Header() }

func (d *distorter) WriteHeader(status int) {
	if d.head {
		return
	}
	d.head = true
	h := d.w.Header()
	size, _ := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
	if d.at == 0 {
		d.at = size / 2
	}
	switch d.act.Kind {
	case ActAnswerLost:
		panic(http.ErrAbortHandler)
	case ActStatusAfter:
		h.Del("Content-Length")
		refuse(d.w, orInt(d.act.Status, http.StatusInternalServerError), "injected")
		return
	case ActHangAfter:
		if d.act.At == 0 && h.Get("Content-Type") == "application/json" {
			d.s.hang(d.ctx)
		}
		h.Del("Content-Length")
	case ActExtra:
		h.Del("Content-Length")
	case ActWrongLength:
		h.Set("Content-Length", strconv.FormatInt(max(0, size+d.act.N), 10))
	}
	d.w.WriteHeader(status)
}

func (d *distorter) Write(p []byte) (int, error) {
	d.WriteHeader(http.StatusOK)
	total := len(p)
	switch d.act.Kind {
	case ActStatusAfter:
		return total, nil
	case ActHangMid, ActCut:
		if left := d.at - d.off; left <= int64(len(p)) {
			_, _ = d.w.Write(p[:max(0, left)])
			d.flush()
			if d.act.Kind == ActCut {
				panic(http.ErrAbortHandler)
			}
			d.s.hang(d.ctx)
		}
	case ActWrongBytes:
		if i := d.at - d.off; i >= 0 && i < int64(len(p)) {
			p = append([]byte(nil), p...)
			p[i] ^= 0x5a
		}
	case ActSlow:
		return total, d.slow(p)
	}
	n, err := d.w.Write(p)
	d.off += int64(n)
	return n, err
}

func (d *distorter) slow(p []byte) error {
	step := max(1, int(d.act.N))
	every := d.act.Every
	if every <= 0 {
		every = time.Second
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for len(p) > 0 {
		n := min(step, len(p))
		if _, err := d.w.Write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
		d.flush()
		select {
		case <-t.C:
		case <-d.ctx.Done():
			panic(http.ErrAbortHandler)
		case <-d.s.done:
			panic(http.ErrAbortHandler)
		}
	}
	return nil
}

func (d *distorter) flush() { _ = http.NewResponseController(d.w).Flush() }

// Unwrap lets http.ResponseController through.
func (d *distorter) Unwrap() http.ResponseWriter { return d.w }

func (d *distorter) finish() {
	d.WriteHeader(http.StatusOK)
	switch d.act.Kind {
	case ActExtra:
		_, _ = fmt.Fprint(d.w, strings.Repeat("x", max(1, int(d.act.N))))
	case ActHangAfter:
		d.flush()
		d.s.hang(d.ctx)
	}
}
