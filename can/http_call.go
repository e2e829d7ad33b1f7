package can

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

// request is one call as the client knows it.
type request struct {
	op     string
	handle string
	method string
	path   []string
	query  url.Values
	body   []byte // JSON, or nil
	rng    string // Range header, or empty
	accept string
	once   bool // not to be repeated
	asset  bool // a 500 is about this one asset
}

func (c *HTTPClient) newRequest(ctx context.Context, r *request) (*http.Request, error) {
	u := c.base.JoinPath(r.path...)
	u.RawQuery = r.query.Encode()
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	// Set here, it also keeps the transport from asking for gzip by itself.
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "cansync")
	if r.accept != "" {
		req.Header.Set("Accept", r.accept)
	}
	if r.rng != "" {
		req.Header.Set("Range", r.rng)
	}
	if c.opts.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.opts.Token)
	}
	return req, nil
}

// send carries out r, repeating it where that is allowed, and returns the answer
// whatever its status.
func (c *HTTPClient) send(ctx context.Context, r *request, deadline time.Time) (*http.Response, error) {
	if !r.once {
		ctx = context.WithValue(ctx, attemptKey{}, &attempt{deadline: deadline, asset: r.asset})
	}
	req, err := c.newRequest(ctx, r)
	if err != nil {
		return nil, err
	}
	rr, err := retryablehttp.FromRequest(req)
	if err != nil {
		return nil, err
	}
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
		if err := rr.SetBody(r.body); err != nil {
			return nil, err
		}
	}
	resp, err := c.retry.Do(rr)
	if err != nil {
		if resp != nil {
			_ = resp.Body.Close()
		}
		return nil, err
	}
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("%w: content encoding that was not asked for", ErrInvalid)
	}
	return resp, nil
}

// callJSON carries out a call with a JSON answer within CallTimeout and returns
// the data of the envelope.
func (c *HTTPClient) callJSON(parent context.Context, r *request, limit int64) (json.RawMessage, error) {
	body, status, err := c.callRaw(parent, r, limit)
	if err != nil || body == nil {
		return nil, err
	}
	data, err := decodeEnvelope(body)
	if err != nil {
		return nil, c.envelopeError(r, status, err)
	}
	return data, nil
}

// callPage is callJSON for an answer with a page of assets.
func (c *HTTPClient) callPage(parent context.Context, r *request) (page, error) {
	body, status, err := c.callRaw(parent, r, maxListBytes)
	if err != nil {
		return page{}, err
	}
	if p, ok := plainPage(body); ok {
		return p, nil
	}
	var data json.RawMessage
	if body != nil {
		if data, err = decodeEnvelope(body); err != nil {
			return page{}, c.envelopeError(r, status, err)
		}
	}
	p, err := decodePage(data)
	if err != nil {
		return page{}, c.wrap(r, err)
	}
	return p, nil
}

// callRaw carries out a call within CallTimeout and returns the body of an answer
// that says success, nil when it has none, and its status.
func (c *HTTPClient) callRaw(parent context.Context, r *request, limit int64) (body []byte, status int, err error) {
	ctx, cancel, release, err := c.begin(parent)
	if err != nil {
		return nil, 0, c.wrap(r, err)
	}
	defer c.calls.Done()
	defer release()
	defer cancel(context.Canceled)
	deadline := time.Now().Add(c.opts.CallTimeout)
	timer := time.AfterFunc(c.opts.CallTimeout, func() { cancel(errTimeout) })
	defer timer.Stop()

	resp, err := c.send(ctx, r, deadline)
	if err != nil {
		return nil, 0, c.transportError(ctx, r, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return nil, 0, c.statusError(r, resp)
	}
	if resp.StatusCode == http.StatusNoContent {
		return nil, resp.StatusCode, nil
	}
	body, err = readAll(resp.Body, resp.ContentLength, limit)
	if err != nil {
		return nil, 0, c.transportError(ctx, r, err)
	}
	return body, resp.StatusCode, nil
}

// readAll reads at most limit bytes and takes a longer body for invalid. It reads in
// pieces, so that one that is too long costs no more memory than the limit; one
// whose length was announced, which is -1 for unknown, is read in one.
func readAll(r io.Reader, length, limit int64) ([]byte, error) {
	var pieces [][]byte
	size, total := int64(4<<10), int64(0)
	if length >= 0 && length <= limit {
		size = length + 1 // with room to meet the end
	}
	p := make([]byte, 0, size)
	for {
		n, err := r.Read(p[len(p):cap(p)])
		p = p[:len(p)+n]
		if total += int64(n); total > limit {
			return nil, fmt.Errorf("%w: %w: more than %d bytes", ErrInvalid, errLong, limit)
		}
		switch {
		case err == io.EOF && pieces == nil:
			return p, nil
		case err == io.EOF:
			return bytes.Join(append(pieces, p), nil), nil
		case err != nil:
			return nil, err
		case len(p) == cap(p):
			pieces = append(pieces, p)
			size = min(2*size, 1<<20)
			p = make([]byte, 0, min(size, limit+1-total))
		}
	}
}

func (c *HTTPClient) wrap(r *request, err error) error {
	return &Error{Op: r.op, Handle: r.handle, Err: err}
}

// transportError classifies a failure without a usable answer.
func (c *HTTPClient) transportError(ctx context.Context, r *request, err error) error {
	return c.wrap(r, transportCause(ctx, err))
}

func transportCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		switch cause := context.Cause(ctx); {
		case ownCause(cause):
			return fmt.Errorf("%w: %w", ErrUnavailable, cause)
		case errors.Is(cause, ErrClosed):
			return ErrClosed
		default:
			return ctx.Err()
		}
	}
	if errors.Is(err, ErrInvalid) || errors.Is(err, ErrTruncated) {
		return err
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // the URL says nothing that Op and Handle don't
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w: %w", ErrUnavailable, ErrTruncated, err)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// statusError turns an answer with a status that is no success into an error. It
// reads a little of the body, bounded in size; in time the call's context bounds
// it.
func (c *HTTPClient) statusError(r *request, resp *http.Response) *Error {
	e := &Error{Op: r.op, Handle: r.handle, Status: resp.StatusCode}
	e.RetryAfter = parseRetryAfter(resp.Header.Get("Retry-After"), c.opts.Now())
	e.Err = statusKind(resp.StatusCode, r.asset)
	if body, err := readAll(resp.Body, resp.ContentLength, maxErrorBytes); err == nil {
		var se *serviceError
		if _, err := decodeEnvelope(body); errors.As(err, &se) {
			e.Message, e.enveloped = se.message, true
		}
	}
	return e
}

// envelopeError classifies an answer whose status says success and whose body
// does not.
func (c *HTTPClient) envelopeError(r *request, status int, err error) error {
	e := &Error{Op: r.op, Handle: r.handle, Status: status, Err: err}
	var se *serviceError
	if errors.As(err, &se) {
		e.Message = se.message
		e.Err = fmt.Errorf("%w: %w", statusKind(http.StatusInternalServerError, r.asset), err)
	}
	return e
}

// statusKind maps a status to the sentinel that says what to do. asset says that
// the call is about one asset, in which case a 500 is blamed on it: the contract
// has no other code for a corrupted asset.
func statusKind(status int, asset bool) error {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return ErrDenied
	case http.StatusNotFound, http.StatusGone:
		return ErrNotFound
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return ErrUnsupported
	case http.StatusConflict:
		return ErrConflict
	case http.StatusRequestEntityTooLarge:
		return ErrTooLarge
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return fmt.Errorf("%w: %w", ErrUnavailable, ErrBusy)
	case http.StatusRequestTimeout:
		return ErrUnavailable
	case http.StatusInternalServerError:
		if asset {
			return ErrCorrupted
		}
		return ErrUnavailable
	}
	switch {
	case status >= 500 && status < 600:
		return ErrUnavailable
	case status >= 400 && status < 500:
		return ErrBadRequest
	default:
		return ErrInvalid // a redirect elsewhere, or no status at all
	}
}
