package can

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Ingest implements [Ingester]. The content is streamed once; nothing is repeated.
//
// What became of the asset is decided by how far the request came. The last
// bytes of the body, the closing boundary without which no service can take the
// asset for complete, are handed to the transport only after the content was
// read to its end and found to have the announced size. A failure before that
// point (connection refused, reset half way, content at fault, context ended) is
// [ErrNotStored]. After it:
//
//   - 4xx is [ErrNotStored]: the service looked at the request and refused it. A
//     409 says that the content is there already and is [ErrConflict], for which
//     [OutcomeOf] advises to look; a 408 can come from something in between and
//     is [ErrAmbiguous].
//   - 429 is [ErrBusy] and [ErrNotStored]: refusing before doing the work is what
//     it is for. So is a 503 that bears Retry-After or the contract's envelope,
//     for these the service or its own limiter wrote. A bare 503 is what proxies
//     make of a lost upstream, and is [ErrAmbiguous].
//   - Everything else is [ErrAmbiguous], joined with its cause: no answer in time,
//     a reset, 500, 502, 504, a redirect, an error envelope under 200. An answer
//     that is not the contract's, or tells of another size, is [ErrInvalid] too.
func (c *HTTPClient) Ingest(parent context.Context, in Ingest) (Asset, error) {
	r := &request{
		op: "ingest", method: http.MethodPost, path: []string{"ingest"},
		accept: "application/json", once: true,
	}
	fail := func(err error) (Asset, error) {
		return Asset{}, c.wrap(r, fmt.Errorf("%w: %w", ErrNotStored, err))
	}
	if in.Content == nil || in.Size < 0 || in.Size > maxSize {
		return fail(fmt.Errorf("%w: content or size missing", ErrBadRequest))
	}
	head, tail, contentType := multipartFrame(in)
	ctx, cancel, release, err := c.begin(parent)
	if err != nil {
		return fail(err)
	}
	defer c.calls.Done()
	defer release()
	defer cancel(context.Canceled)
	req, err := c.newRequest(ctx, r)
	if err != nil {
		return fail(err)
	}
	src, err := in.Content()
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ErrContent, err))
	}
	m := newMeter(c.opts.IdleTimeout, c.opts.MinRate, cancel)
	defer m.stop()
	up := newUpload(head, src, in.Size, tail, m, c.opts.AnswerTimeout)
	req.Header.Set("Content-Type", contentType)
	req.Body = up
	req.ContentLength = int64(len(head)) + in.Size + int64(len(tail))

	m.wait()
	resp, err := c.http.Do(req)
	if err == nil && !up.sealed() {
		// The answer came before the body was sent and gets a deadline of its own.
		m.waitFor(c.opts.AnswerTimeout, errTimeout)
	}
	a, err := c.ingestAnswer(ctx, r, up, resp, err, in.Size)
	// The transport may still hold the body; the caller must not see its content
	// read after this call.
	cancel(context.Canceled)
	up.await()
	return a, err
}

// ingestAnswer judges the outcome of the request.
func (c *HTTPClient) ingestAnswer(ctx context.Context, r *request, up *upload, resp *http.Response, err error, size int64) (Asset, error) {
	if err != nil {
		e := &Error{Op: r.op, Err: transportCause(ctx, err)}
		if src := up.sourceError(); src != nil && ctx.Err() == nil {
			e.Err = fmt.Errorf("%w: %w", ErrContent, src)
		}
		return Asset{}, up.judge(e)
	}
	defer func() { _ = resp.Body.Close() }()
	if src := up.sourceError(); src != nil {
		// A service may answer to the half request that this leaves.
		return Asset{}, up.judge(&Error{Op: r.op, Status: resp.StatusCode, Err: fmt.Errorf("%w: %w", ErrContent, src)})
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		e := c.statusError(r, resp)
		switch {
		case resp.StatusCode == http.StatusRequestTimeout:
		case resp.StatusCode >= 400 && resp.StatusCode < 500 && resp.StatusCode != http.StatusConflict,
			resp.StatusCode == http.StatusServiceUnavailable && (e.enveloped || resp.Header.Get("Retry-After") != ""):
			if errors.Is(e.Err, ErrNotFound) {
				// There is no asset to be found yet: the route is not there.
				e.Err = ErrUnsupported
			}
			e.Err = fmt.Errorf("%w: %w", ErrNotStored, e.Err)
			return Asset{}, e
		case resp.StatusCode == http.StatusConflict:
			return Asset{}, e
		}
		return Asset{}, up.judge(e)
	}
	body, err := readAll(resp.Body, resp.ContentLength, maxAnswerBytes)
	if err != nil {
		return Asset{}, ambiguous(&Error{Op: r.op, Status: resp.StatusCode, Err: transportCause(ctx, err)})
	}
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return Asset{}, ambiguous(&Error{Op: r.op, Status: resp.StatusCode, Err: ErrInvalid})
	}
	a, plain := plainAnswer(body)
	if !plain {
		data, derr := decodeEnvelope(body)
		if derr != nil {
			var e *Error
			errors.As(c.envelopeError(r, resp.StatusCode, derr), &e)
			return Asset{}, ambiguous(e)
		}
		a, err = decodeAssetAny(data)
	}
	if err == nil && a.Size >= 0 && a.Size != size {
		err = fmt.Errorf("%w: stored %d bytes of %d", ErrInvalid, a.Size, size)
	}
	if err == nil && !up.complete() {
		err = fmt.Errorf("%w: confirmed before the content was sent", ErrInvalid)
	}
	if err != nil {
		return Asset{}, ambiguous(&Error{Op: r.op, Handle: a.Handle, Status: resp.StatusCode, Err: err})
	}
	return a, nil
}

func ambiguous(e *Error) error {
	e.Err = fmt.Errorf("%w: %w", ErrAmbiguous, e.Err)
	return e
}

// judge marks e by whether the service can have the whole asset.
func (u *upload) judge(e *Error) error {
	if u.complete() {
		return ambiguous(e)
	}
	e.Err = fmt.Errorf("%w: %w", ErrNotStored, e.Err)
	return e
}

// multipartFrame returns what comes before and after the content in the body, as
// mime/multipart would write it: each ingest needs one, and of a small asset it is
// the larger half.
func multipartFrame(in Ingest) (head, tail []byte, contentType string) {
	var random [30]byte
	_, _ = rand.Read(random[:])
	boundary := hex.EncodeToString(random[:])
	ts := ""
	if in.Timestamp > 0 {
		ts = strconv.FormatInt(in.Timestamp, 10)
	}
	fields := [...]struct{ name, value string }{
		{"mime_type", in.MIMEType}, {"human_file_name", in.Filename},
		{"human_readable_path", in.Path}, {"application", in.Application},
		{"user", in.User}, {"tags", strings.Join(in.Tags, ",")},
		{"description", in.Description}, {"timestamp", ts},
	}
	filename := quoteFilename(in.Filename)
	room := len(filename) + len(in.MIMEType) + 256
	for _, f := range fields {
		room += len(f.value) + 160
	}
	head = make([]byte, 0, room)
	for _, f := range fields {
		if f.value == "" {
			continue
		}
		head = append(append(append(head, "--"...), boundary...), "\r\nContent-Disposition: form-data; name=\""...)
		head = append(append(head, f.name...), "\"\r\n\r\n"...)
		head = append(append(head, f.value...), "\r\n"...)
	}
	head = append(append(append(head, "--"...), boundary...), "\r\nContent-Disposition: form-data; name=\"file\"; filename=\""...)
	head = append(append(head, filename...), "\"\r\nContent-Type: "...)
	if in.MIMEType != "" && plainHeader(in.MIMEType) {
		head = append(head, in.MIMEType...)
	} else {
		head = append(head, "application/octet-stream"...)
	}
	head = append(head, "\r\n\r\n"...)
	return head, []byte("\r\n--" + boundary + "--\r\n"), "multipart/form-data; boundary=" + boundary
}

var filenameQuoter = newFilenameQuoter()

func newFilenameQuoter() *strings.Replacer {
	pairs := []string{"\"", "%22", "\\", "%5C", "\x7f", "%7F"}
	for c := range byte(' ') {
		pairs = append(pairs, string(rune(c)), fmt.Sprintf("%%%02X", c))
	}
	return strings.NewReplacer(pairs...)
}

// quoteFilename escapes as browsers do (WHATWG HTML, multipart/form-data), and what no
// header may hold besides, for which services would refuse the part.
func quoteFilename(s string) string {
	if s == "" {
		return "asset"
	}
	return filenameQuoter.Replace(s)
}

func plainHeader(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
