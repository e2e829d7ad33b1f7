package cantest

import (
	"context"
	"io"
	"time"

	"github.com/cansync/cansync/can"
)

// Open implements can.Opener. Range faults do not show: a client has to hide
// them.
func (s *Service) Open(ctx context.Context, handle string, offset, length int64) (io.ReadCloser, error) {
	c := Call{RouteAsset, handle}
	fail := func(err error) (io.ReadCloser, error) { return nil, &can.Error{Op: "open", Handle: handle, Err: err} }
	if offset < 0 {
		return fail(can.ErrBadRequest)
	}
	act, err := s.call(ctx, "open", c)
	if err != nil {
		return nil, err
	}
	e, ok := s.get(handle)
	if !ok {
		return fail(can.ErrNotFound)
	}
	content := s.open(e)
	if content == nil {
		return fail(can.ErrCorrupted)
	}
	size, err := content.Seek(0, io.SeekEnd)
	if err != nil {
		return fail(can.ErrCorrupted)
	}
	if length == 0 {
		length, offset = 0, min(offset, size)
	}
	if offset > size {
		return fail(can.ErrTruncated)
	}
	if _, err := content.Seek(offset, io.SeekStart); err != nil {
		return fail(can.ErrCorrupted)
	}
	r := &reader{s: s, ctx: ctx, handle: handle, r: content, left: length, at: -1}
	if length < 0 {
		r.left = size - offset
	}
	if act != nil {
		if err := r.distort(act); err != nil {
			return fail(err)
		}
	}
	return r, nil
}

// reader reads the content of an asset in-process.
type reader struct {
	s      *Service
	ctx    context.Context
	handle string
	r      io.Reader
	left   int64

	act Action
	off int64
	at  int64 // offset of the fault, or -1
	err error
}

func (r *reader) distort(act *Action) error {
	r.act = *act
	switch act.Kind {
	case ActStatusAfter:
		return can.ErrCorrupted
	case ActAnswerLost:
		return can.ErrUnavailable
	case ActHangMid, ActCut, ActWrongBytes, ActSlow:
		if r.at = act.At; r.at == 0 {
			r.at = r.left / 2
		}
	case ActWrongLength:
		r.at = r.left + min(0, act.N)
		r.act.Kind = ActCut
	case ActHangAfter:
		r.at = r.left
		r.act.Kind = ActHangMid
	case ActExtra:
		if r.left > 0 {
			r.at, r.act.Kind = r.left, ActExtra
		}
	}
	return nil
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if r.err == nil {
		var n int
		if n, r.err = r.read(p); n > 0 || r.err == nil {
			return n, nil
		}
	}
	return 0, r.err
}

func (r *reader) fail(err error) error { return &can.Error{Op: "open", Handle: r.handle, Err: err} }

func (r *reader) read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, r.fail(err)
	}
	if r.at >= 0 && r.off >= r.at {
		switch r.act.Kind {
		case ActHangMid:
			return 0, r.fail(r.s.wait(r.ctx))
		case ActCut:
			return 0, r.fail(can.ErrTruncated)
		case ActExtra:
			return 0, r.fail(can.ErrInvalid)
		}
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), r.left)]
	switch {
	case r.act.Kind == ActSlow:
		p = p[:min(len(p), max(1, int(r.act.N)))]
		if err := r.pause(); err != nil {
			return 0, r.fail(err)
		}
	case r.at > r.off:
		p = p[:min(int64(len(p)), r.at-r.off)]
	}
	n, err := r.r.Read(p)
	if r.act.Kind == ActWrongBytes && r.at == r.off && n > 0 {
		p[0] ^= 0x5a
	}
	r.off += int64(n)
	r.left -= int64(n)
	if err == io.EOF && r.left > 0 {
		err = r.fail(can.ErrTruncated)
	}
	return n, err
}

func (r *reader) pause() error {
	every := r.act.Every
	if every <= 0 {
		every = time.Second
	}
	t := time.NewTimer(every)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}

// Close implements io.Closer.
func (r *reader) Close() error { return nil }
