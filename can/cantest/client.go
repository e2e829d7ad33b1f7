package cantest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/cansync/cansync/can"
)

var (
	_ can.Client       = (*Service)(nil)
	_ can.MetaReader   = (*Service)(nil)
	_ can.MetaUpdater  = (*Service)(nil)
	_ can.Trasher      = (*Service)(nil)
	_ can.Watcher      = (*Service)(nil)
	_ can.ChangeLister = (*Service)(nil)
	_ can.Ranger       = (*Service)(nil)
)

// Core returns a client with the required abilities only, for code that finds
// optional ones by type assertion.
func (s *Service) Core() can.Client { return struct{ can.Client }{s} }

// call begins an in-process call: it counts it, and carries out the faults in
// which the service does nothing. The action returned, if any, is for later.
func (s *Service) call(ctx context.Context, op string, c Call) (*Action, error) {
	fail := func(err error) (*Action, error) { return nil, &can.Error{Op: op, Handle: c.Handle, Err: err} }
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	if s.isDown() {
		return fail(can.ErrUnavailable)
	}
	act := s.enter(c)
	if act == nil {
		return nil, nil
	}
	asset := c.Handle != ""
	switch act.Kind {
	case ActStatus:
		return nil, statusError(op, c.Handle, act.Status, act.RetryAfter, asset)
	case ActErrorEnvelope:
		return nil, statusError(op, c.Handle, http.StatusInternalServerError, "", asset)
	case ActHTML:
		if act.Status != 0 && act.Status != http.StatusOK {
			return nil, statusError(op, c.Handle, act.Status, "", asset)
		}
		return fail(can.ErrInvalid)
	case ActBadJSON:
		return fail(fmt.Errorf("%w: %w", can.ErrInvalid, can.ErrTruncated))
	case ActRedirect, ActEndless:
		return fail(can.ErrInvalid)
	case ActReset:
		return fail(fmt.Errorf("%w: %w", can.ErrUnavailable, errReset))
	case ActHangBefore:
		return fail(s.wait(ctx))
	}
	return act, nil
}

// wait hangs until the caller or the service gives up.
func (s *Service) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		return fmt.Errorf("%w: %w", can.ErrUnavailable, errReset)
	}
}

// after carries out the faults of a call whose answer is JSON and whose work is
// done.
func (s *Service) after(ctx context.Context, op string, c Call, act *Action) error {
	if act == nil {
		return nil
	}
	fail := func(err error) error { return &can.Error{Op: op, Handle: c.Handle, Err: err} }
	switch act.Kind {
	case ActHangMid, ActHangAfter:
		return fail(s.wait(ctx))
	case ActAnswerLost:
		return fail(fmt.Errorf("%w: %w", can.ErrUnavailable, errReset))
	case ActCut, ActWrongLength:
		return fail(fmt.Errorf("%w: %w", can.ErrUnavailable, can.ErrTruncated))
	case ActExtra, ActWrongBytes:
		return fail(can.ErrInvalid)
	case ActStatusAfter:
		return statusError(op, c.Handle, orInt(act.Status, http.StatusInternalServerError), "", c.Handle != "")
	case ActSlow:
		t := time.NewTimer(act.Every)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return fail(ctx.Err())
		}
	}
	return nil
}

// statusError is what a client over HTTP makes of a status.
func statusError(op, handle string, status int, retryAfter string, asset bool) error {
	e := &can.Error{Op: op, Handle: handle, Status: status, Err: can.ErrUnavailable}
	var seconds int
	if n, err := fmt.Sscanf(retryAfter, "%d", &seconds); n == 1 && err == nil && seconds > 0 {
		e.RetryAfter = time.Duration(min(seconds, 30)) * time.Second
	}
	switch {
	case status == 401 || status == 403:
		e.Err = can.ErrDenied
	case status == 404 || status == 410:
		e.Err = can.ErrNotFound
	case status == 405 || status == 501:
		e.Err = can.ErrUnsupported
	case status == 409:
		e.Err = can.ErrConflict
	case status == 413:
		e.Err = can.ErrTooLarge
	case status == 429 || status == 503:
		e.Err = fmt.Errorf("%w: %w", can.ErrUnavailable, can.ErrBusy)
	case status == 500 && asset:
		e.Err = can.ErrCorrupted
	case status >= 400 && status < 500 && status != 408:
		e.Err = can.ErrBadRequest
	case status < 400:
		e.Err = can.ErrInvalid
	}
	return e
}

// List implements can.Lister.
func (s *Service) List(ctx context.Context, opts can.ListOptions) (can.Page, error) {
	c := Call{Route: RouteList}
	act, err := s.call(ctx, "list", c)
	if err != nil {
		return can.Page{}, err
	}
	if act != nil && act.Kind == ActEmptyList {
		return can.Page{}, nil
	}
	if err := s.after(ctx, "list", c, act); err != nil {
		return can.Page{}, err
	}
	return s.list(opts), nil
}

// Changes implements can.ChangeLister.
func (s *Service) Changes(ctx context.Context, cursor string, limit int) (can.ChangePage, error) {
	c := Call{Route: RouteChanges}
	if s.lacks(FeatureChanges) {
		return can.ChangePage{}, &can.Error{Op: "changes", Err: can.ErrUnsupported}
	}
	act, err := s.call(ctx, "changes", c)
	if err == nil {
		err = s.after(ctx, "changes", c, act)
	}
	if err != nil {
		return can.ChangePage{}, err
	}
	if act != nil && act.Kind == ActEmptyList {
		return can.ChangePage{Next: cursor}, nil
	}
	since, ok := parseCursor(cursor)
	if !ok {
		return can.ChangePage{}, &can.Error{Op: "changes", Status: 400, Err: can.ErrBadRequest}
	}
	as, next, more := s.changesSince(since, limit)
	return can.ChangePage{Assets: as, Next: formatCursor(next), More: more}, nil
}

// Meta implements can.MetaReader.
func (s *Service) Meta(ctx context.Context, handle string) (can.Asset, error) {
	return s.one(ctx, "meta", Call{RouteMeta, handle}, FeatureMeta, func() (can.Asset, bool) { return s.Get(handle) })
}

// UpdateMeta implements can.MetaUpdater.
func (s *Service) UpdateMeta(ctx context.Context, handle string, up can.Update) (can.Asset, error) {
	return s.one(ctx, "update", Call{RouteUpdate, handle}, FeatureUpdate, func() (can.Asset, bool) { return s.update(handle, up) })
}

// Trash implements can.Trasher.
func (s *Service) Trash(ctx context.Context, handle string) error {
	_, err := s.one(ctx, "trash", Call{RouteTrash, handle}, FeatureTrash, func() (can.Asset, bool) {
		return can.Asset{}, s.trash(handle)
	})
	return err
}

func (s *Service) one(ctx context.Context, op string, c Call, f Features, do func() (can.Asset, bool)) (can.Asset, error) {
	if s.lacks(f) {
		return can.Asset{}, &can.Error{Op: op, Handle: c.Handle, Err: can.ErrUnsupported}
	}
	act, err := s.call(ctx, op, c)
	if err != nil {
		return can.Asset{}, err
	}
	a, ok := do()
	if !ok {
		return can.Asset{}, &can.Error{Op: op, Handle: c.Handle, Status: 404, Err: can.ErrNotFound}
	}
	if err := s.after(ctx, op, c, act); err != nil {
		return can.Asset{}, err
	}
	return a, nil
}

// Ingest implements can.Ingester.
func (s *Service) Ingest(ctx context.Context, in can.Ingest) (can.Asset, error) {
	sentinel := can.ErrNotStored
	fail := func(err error) (can.Asset, error) {
		e := &can.Error{Op: "ingest"}
		var inner *can.Error
		if errors.As(err, &inner) {
			c := *inner
			e, err = &c, inner.Err
		}
		e.Err = fmt.Errorf("%w: %w", sentinel, err)
		return can.Asset{}, e
	}
	if in.Content == nil || in.Size < 0 {
		return fail(can.ErrBadRequest)
	}
	c := Call{Route: RouteIngest}
	act, err := s.call(ctx, "ingest", c)
	if err != nil {
		if sentinel = ingestSentinel(err, act); errors.Is(err, can.ErrConflict) {
			return can.Asset{}, err
		}
		return fail(err)
	}
	got, err := s.readContent(ctx, in)
	if err != nil {
		return fail(err)
	}
	in.Tags = splitTags(joinTags(in.Tags))
	a := s.finish(got, in.Metadata, act)
	sentinel = can.ErrAmbiguous
	if act != nil && act.Kind == ActEmptyList {
		return fail(can.ErrInvalid)
	}
	if err := s.after(ctx, "ingest", c, act); err != nil {
		return fail(err)
	}
	return a, nil
}

func joinTags(tags []string) string {
	var b bytes.Buffer
	for i, t := range tags {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(t)
	}
	return b.String()
}

// ingestSentinel says what a client can know after a fault in which the service
// in truth did nothing.
func ingestSentinel(err error, _ *Action) error {
	var e *can.Error
	status := 0
	if errors.As(err, &e) {
		status = e.Status
	}
	switch {
	case status == 408:
		return can.ErrAmbiguous
	case status >= 400 && status < 500, status == 503:
		return can.ErrNotStored
	case status != 0, errors.Is(err, can.ErrInvalid), errors.Is(err, errReset):
		return can.ErrAmbiguous
	case errors.Is(err, can.ErrUnavailable), errors.Is(err, context.Canceled) && e.Status == 0:
		return can.ErrNotStored
	}
	return can.ErrAmbiguous
}

// readContent reads what is to be ingested, and fails unless it has the size
// announced.
func (s *Service) readContent(ctx context.Context, in can.Ingest) (received, error) {
	rc, err := in.Content()
	if err != nil {
		return received{}, fmt.Errorf("%w: %w", can.ErrContent, err)
	}
	defer func() { _ = rc.Close() }()
	src := &source{ctx: ctx, r: io.LimitReader(rc, in.Size+1)}
	got, err := s.receive(src, in.Timestamp)
	switch {
	case ctx.Err() != nil:
		return received{}, ctx.Err()
	case src.err != nil:
		return received{}, fmt.Errorf("%w: %w", can.ErrContent, src.err)
	case err != nil:
		return received{}, err
	case got.size != in.Size:
		return received{}, fmt.Errorf("%w: %d bytes instead of %d", can.ErrContent, got.size, in.Size)
	}
	return got, nil
}

// source reads content until the context ends and remembers its error.
type source struct {
	ctx context.Context
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// Ranges implements can.Ranger.
func (s *Service) Ranges() bool { return !s.lacks(FeatureRange) }

// Watch implements can.Watcher.
func (s *Service) Watch(ctx context.Context, fn func(can.Event)) error {
	if s.lacks(FeatureEvents) {
		return &can.Error{Op: "watch", Err: can.ErrUnsupported}
	}
	if _, err := s.call(ctx, "watch", Call{Route: RouteEvents}); err != nil {
		return err
	}
	w := s.subscribe()
	defer s.unsubscribe(w)
	fn(can.Event{})
	var late []can.Event
	for {
		select {
		case <-ctx.Done():
			return &can.Error{Op: "watch", Err: ctx.Err()}
		case <-s.done:
			return &can.Error{Op: "watch", Err: fmt.Errorf("%w: %w", can.ErrUnavailable, errReset)}
		case <-w.gone:
			return &can.Error{Op: "watch", Err: fmt.Errorf("%w: %w", can.ErrUnavailable, errReset)}
		case ev := <-w.ch:
			if act := s.enter(Call{RouteEvent, ev.Asset.Handle}); act != nil {
				switch act.Kind {
				case ActEventLost, ActEventUnknown:
					continue
				case ActEventEndless:
					return &can.Error{Op: "watch", Err: can.ErrInvalid}
				case ActEventTwice:
					fn(ev)
				case ActEventLate:
					late = append(late, ev)
					continue
				}
			}
			fn(ev)
			for _, ev := range slices.Backward(late) {
				fn(ev)
			}
			late = nil
		}
	}
}
