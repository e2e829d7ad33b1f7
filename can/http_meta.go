package can

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// List implements [Lister].
func (c *HTTPClient) List(ctx context.Context, opts ListOptions) (Page, error) {
	q := url.Values{"order": {"desc"}}
	if opts.Order == Oldest {
		q.Set("order", "asc")
	}
	if opts.Offset > 0 {
		q.Set("offset", strconv.Itoa(opts.Offset))
	}
	r := &request{op: "list", method: http.MethodGet, path: []string{"list"}, query: q, accept: "application/json"}
	p, err := c.callFitting(ctx, r, opts.Limit)
	if err != nil {
		return Page{}, err
	}
	return Page{Assets: p.assets, Total: p.total}, nil
}

// Changes implements [ChangeLister]. A service that ignores the request for
// changes and answers with a plain listing, which has no cursor, counts as not
// having the call.
func (c *HTTPClient) Changes(ctx context.Context, cursor string, limit int) (ChangePage, error) {
	r := &request{
		op: "changes", method: http.MethodGet, path: []string{"list"},
		query: url.Values{"changed_since": {cursor}}, accept: "application/json",
	}
	if c.changes.missing(c.opts.Now()) {
		return ChangePage{}, c.wrap(r, ErrUnsupported)
	}
	p, err := c.callFitting(ctx, r, limit)
	var e *Error
	if errors.As(err, &e) {
		// A service that checks its parameters may refuse the one it does not know.
		refused := errors.Is(e.Err, ErrBadRequest) && cursor == "" && !c.changes.known()
		if refused || e.Status == http.StatusNotFound || errors.Is(e.Err, ErrUnsupported) {
			return ChangePage{}, c.unsupported(&c.changes, e)
		}
	}
	if err != nil {
		return ChangePage{}, err
	}
	if p.next == "" {
		return ChangePage{}, c.unsupported(&c.changes, &Error{Op: r.op})
	}
	c.changes.found()
	out := ChangePage{Assets: p.assets, Next: p.next, More: len(p.assets) > 0 && p.next != cursor}
	if p.more != nil {
		// A page that does not advance is never followed: it would be for ever.
		out.More = *p.more && p.next != cursor
	}
	return out, nil
}

// Meta implements [MetaReader].
func (c *HTTPClient) Meta(ctx context.Context, handle string) (Asset, error) {
	r := &request{
		op: "meta", handle: handle, method: http.MethodGet,
		path: []string{"asset", handle, "meta"}, accept: "application/json", asset: true,
	}
	return c.callAsset(ctx, r, &c.meta)
}

// UpdateMeta implements [MetaUpdater].
func (c *HTTPClient) UpdateMeta(ctx context.Context, handle string, up Update) (Asset, error) {
	r := &request{
		op: "update", handle: handle, method: http.MethodPatch,
		path: []string{"asset", handle}, accept: "application/json", asset: true, once: true,
	}
	fields := map[string]any{}
	for name, v := range map[string]*string{
		"application": up.Application, "user": up.User, "description": up.Description,
		"human_filename": up.Filename, "human_path": up.Path,
	} {
		if v != nil {
			fields[name] = *v
		}
	}
	if up.Tags != nil {
		fields["tags"] = append([]string{}, *up.Tags...)
	}
	body, err := json.Marshal(fields)
	if err != nil {
		return Asset{}, c.wrap(r, fmt.Errorf("%w: %w", ErrBadRequest, err))
	}
	r.body = body
	return c.callAsset(ctx, r, &c.update)
}

// Trash implements [Trasher].
func (c *HTTPClient) Trash(ctx context.Context, handle string) error {
	r := &request{
		op: "trash", handle: handle, method: http.MethodDelete,
		path: []string{"asset", handle}, accept: "application/json", asset: true,
	}
	_, err := c.callAbility(ctx, r, &c.trash)
	return err
}

// callAsset makes an optional call that answers with the asset.
func (c *HTTPClient) callAsset(ctx context.Context, r *request, ab *ability) (Asset, error) {
	data, err := c.callAbility(ctx, r, ab)
	if err != nil {
		return Asset{}, err
	}
	a, err := decodeAsset(data)
	if err != nil {
		return Asset{}, c.wrap(r, err)
	}
	if a.Handle != r.handle {
		return Asset{}, c.wrap(r, fmt.Errorf("%w: another asset than asked for", ErrInvalid))
	}
	return a, nil
}

// callAbility makes an optional call about one asset and learns from its outcome
// whether the service has it.
func (c *HTTPClient) callAbility(ctx context.Context, r *request, ab *ability) (json.RawMessage, error) {
	if err := checkHandle(r.handle); err != nil {
		return nil, c.wrap(r, fmt.Errorf("%w: handle %w", ErrNotFound, err))
	}
	if ab.missing(c.opts.Now()) {
		return nil, c.wrap(r, ErrUnsupported)
	}
	data, err := c.callJSON(ctx, r, maxAnswerBytes)
	if err == nil {
		if isJSON(data) || r.method == http.MethodDelete {
			ab.found()
		}
		return data, nil
	}
	var e *Error
	if !errors.As(err, &e) {
		return nil, err
	}
	if errors.Is(e.Err, ErrUnsupported) {
		return nil, c.unsupported(ab, e)
	}
	// The 404 of an unknown route looks like that of an unknown asset, and some
	// frameworks wrap both in the same envelope. Only where the asset can be read
	// is it the route that is missing.
	if e.Status == http.StatusNotFound && !ab.known() && c.exists(ctx, r.handle) {
		return nil, c.unsupported(ab, e)
	}
	return nil, err
}

func isJSON(b []byte) bool { return len(bytes.TrimSpace(b)) > 0 }

// exists reports whether the service serves at least the beginning of an asset.
func (c *HTTPClient) exists(ctx context.Context, handle string) bool {
	rc, err := c.Open(ctx, handle, 0, 0)
	if err != nil {
		return false
	}
	return rc.Close() == nil
}

func (c *HTTPClient) unsupported(ab *ability, e *Error) error {
	ab.lost(c.opts.Now().Add(c.opts.Reprobe))
	e.Err = ErrUnsupported
	return e
}
