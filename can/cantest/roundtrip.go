package cantest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
)

// RoundTripper returns a transport that hands requests to [Service.Handler]
// without sockets. It works inside a testing/synctest bubble; a bubble can end
// once the bodies of all answers are closed or read to their end.
func (s *Service) RoundTripper() http.RoundTripper { return &roundTripper{s, s.Handler()} }

type roundTripper struct {
	s *Service
	h http.Handler
}

var errReset = &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}

// RoundTrip implements http.RoundTripper.
func (t *roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := req.Context().Err(); err != nil || t.s.isDown() {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		if err == nil {
			err = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
		}
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	pr, pw := io.Pipe()
	w := &pipeWriter{head: make(chan struct{}), header: http.Header{}, pw: pw, left: -1}
	in := req.Clone(ctx)
	in.RequestURI = req.URL.RequestURI()
	in.RemoteAddr = "127.0.0.1:1"
	if in.Host == "" {
		in.Host = req.URL.Host
	}
	up := &uploaded{ctx: ctx, body: http.NoBody, left: req.ContentLength}
	up.fail = func(err error) {
		w.fail(err)
		cancel(err)
	}
	if req.Body != nil {
		up.body = req.Body
	}
	in.Body = up
	go func() {
		defer up.finish()
		err := w.serve(t.h, in)
		w.end(err)
	}()
	// The pipe ends with the request.
	stop := context.AfterFunc(ctx, func() {
		_ = pr.CloseWithError(context.Cause(ctx))
		w.fail(context.Cause(ctx))
	})
	<-w.head
	if w.err != nil {
		stop()
		_ = pr.CloseWithError(w.err) // the handler may be about to answer
		cancel(w.err)
		return nil, w.err
	}
	resp := &http.Response{
		Status: fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)), StatusCode: w.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.sent, ContentLength: w.length, Request: req,
		Body: &pipeBody{r: pr, left: w.length, end: func() { stop(); cancel(context.Canceled); _ = pr.Close() }},
	}
	return resp, nil
}

// uploaded is the request body as the server sees it: it never yields more than
// its length, and a client that fails to send it breaks the connection.
type uploaded struct {
	ctx  context.Context
	body io.ReadCloser
	left int64
	fail func(error)
}

func (u *uploaded) Read(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		u.fail(context.Cause(u.ctx))
		return 0, io.ErrUnexpectedEOF
	}
	n, err := u.body.Read(p)
	if u.left -= int64(n); err == io.EOF && u.left > 0 {
		err = errors.New("http: ContentLength with Body length too short")
	}
	if err != nil && err != io.EOF {
		u.fail(err)
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

func (u *uploaded) Close() error { return nil }
func (u *uploaded) finish()      { _ = u.body.Close() }

// pipeWriter is the ResponseWriter of a handler.
type pipeWriter struct {
	header http.Header
	pw     *io.PipeWriter

	once   sync.Once
	head   chan struct{} // closed when the fields below are set
	status int
	sent   http.Header
	length int64
	err    error

	left int64
}

func (w *pipeWriter) serve(h http.Handler, in *http.Request) (err error) {
	defer func() {
		if v := recover(); v != nil {
			if v != any(http.ErrAbortHandler) {
				panic(v)
			}
			err = errReset
		}
	}()
	h.ServeHTTP(w, in)
	w.WriteHeader(http.StatusOK)
	if w.left > 0 {
		return io.ErrUnexpectedEOF // net/http breaks the connection
	}
	return nil
}

// Header implements http.ResponseWriter.
func (w *pipeWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *pipeWriter) WriteHeader(status int) {
	w.once.Do(func() {
		w.status, w.sent, w.length = status, w.header.Clone(), -1
		if n, err := strconv.ParseInt(w.header.Get("Content-Length"), 10, 64); err == nil && n >= 0 {
			w.length = n
		}
		w.left = w.length
		close(w.head)
	})
}

// Write implements http.ResponseWriter.
func (w *pipeWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	total, long := len(p), false
	if w.left >= 0 {
		long = int64(len(p)) > w.left
		p = p[:min(int64(len(p)), w.left)]
		w.left -= int64(len(p))
	}
	if len(p) > 0 {
		if n, err := w.pw.Write(p); err != nil {
			return n, err
		}
	}
	if long {
		return len(p), http.ErrContentLength
	}
	return total, nil
}

// Flush implements http.Flusher.
func (w *pipeWriter) Flush() { w.WriteHeader(http.StatusOK) }

func (w *pipeWriter) fail(err error) {
	w.once.Do(func() {
		w.err = err
		close(w.head)
	})
}

func (w *pipeWriter) end(err error) {
	if err == nil {
		_ = w.pw.Close()
		return
	}
	w.fail(err)
	_ = w.pw.CloseWithError(err)
}

// pipeBody is the body of an answer; it holds the peer to its Content-Length.
type pipeBody struct {
	r    *io.PipeReader
	left int64
	end  func()
}

// Read implements io.Reader.
func (b *pipeBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	if b.left > 0 {
		p = p[:min(int64(len(p)), b.left)]
	}
	n, err := b.r.Read(p)
	if b.left > 0 {
		b.left -= int64(n)
		if err == io.EOF && b.left > 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	return n, err
}

// Close implements io.Closer.
func (b *pipeBody) Close() error {
	b.end()
	return nil
}
