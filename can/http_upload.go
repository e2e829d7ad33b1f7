package can

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// awaitClose bounds the wait for a transport that does not let go of a body.
const awaitClose = 5 * time.Second

// States of an upload. The step out of uploadOpen is taken once: either the tail
// goes out, or the outcome is judged first and the tail never will.
const (
	uploadOpen int32 = iota
	uploadSealed
	uploadShut
)

var errShut = errors.New("request was given up")

// upload is the body of an ingest: head, content, tail. It withholds the tail
// until the content turned out to be exactly as long as announced.
type upload struct {
	head, tail []byte
	src        io.ReadCloser
	left       int64 // content bytes still to come
	checked    bool  // the content was seen to end
	pending    int   // bytes handed out by the last Read
	meter      *meter
	answer     time.Duration

	state  atomic.Int32 // uploadOpen, and then one of the others for good
	failed atomic.Pointer[error]
	once   sync.Once
	closed chan struct{}
}

func newUpload(head []byte, src io.ReadCloser, size int64, tail []byte, m *meter, answer time.Duration) *upload {
	return &upload{
		head: head, tail: tail, src: src, left: size, meter: m, answer: answer,
		closed: make(chan struct{}),
	}
}

// complete reports whether the service can have the whole asset. When it can't
// yet, it never will: a transport may still be sending after the request has
// returned, and must not complete what was judged to be incomplete.
func (u *upload) complete() bool {
	return !u.state.CompareAndSwap(uploadOpen, uploadShut) && u.sealed()
}

func (u *upload) sealed() bool { return u.state.Load() == uploadSealed }

// sourceError returns the error of the content, if it had one.
func (u *upload) sourceError() error {
	if p := u.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// Read implements io.Reader. Between two calls it is the service's turn.
func (u *upload) Read(p []byte) (int, error) {
	u.meter.got(u.pending)
	n, err := u.read(p)
	if err != nil && err != io.EOF {
		u.failed.CompareAndSwap(nil, &err)
		return n, err
	}
	u.pending = n
	if u.sealed() {
		u.meter.waitFor(u.answer, errTimeout)
	} else {
		u.meter.wait()
	}
	return n, err
}

func (u *upload) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(u.head) > 0 {
		n := copy(p, u.head)
		u.head = u.head[n:]
		return n, nil
	}
	if u.left > 0 {
		n, err := u.content(p[:min(int64(len(p)), u.left)])
		u.left -= int64(n)
		if err == io.EOF && u.left > 0 {
			return n, fmt.Errorf("ends %d bytes too early", u.left)
		}
		if err == io.EOF {
			u.checked, err = true, nil
		}
		return n, err
	}
	if !u.checked {
		var one [1]byte
		n, err := u.content(one[:])
		if n > 0 {
			return 0, errors.New("is longer than announced")
		}
		if err != io.EOF {
			return 0, err
		}
		u.checked = true
	}
	if len(u.tail) == 0 {
		return 0, io.EOF
	}
	if !u.state.CompareAndSwap(uploadOpen, uploadSealed) && !u.sealed() {
		return 0, errShut
	}
	n := copy(p, u.tail)
	u.tail = u.tail[n:]
	return n, nil
}

// content reads from the source, which has to make progress.
func (u *upload) content(p []byte) (int, error) {
	for range 100 {
		n, err := u.src.Read(p)
		if n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

// Close implements io.Closer.
func (u *upload) Close() error {
	u.once.Do(func() {
		_ = u.src.Close()
		close(u.closed)
	})
	return nil
}

// await returns when the transport has closed the body, or closes it where the
// transport does not.
func (u *upload) await() {
	t := time.NewTimer(awaitClose)
	defer t.Stop()
	select {
	case <-u.closed:
	case <-t.C:
		_ = u.Close()
	}
}
