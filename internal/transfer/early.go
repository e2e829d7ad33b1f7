package transfer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"github.com/cansync/cansync/internal/blob"
)

// ErrSlow says that a content did not come fast enough to be passed on while it
// comes.
var ErrSlow = errors.New("transfer: content comes too slowly to be passed on at once")

// A reader of an [Early] waits for bytes as long as patience at a time, and in all
// for as long as a slow line takes, and some more. That is well within the time that
// an ingest may take, or a slow peer would look like a slow CAN Service.
const (
	patience  = 2 * time.Second
	patience0 = 10 * time.Second
	slowLine  = 1 << 20 // bytes per second
)

func patienceInAll(size int64) time.Duration {
	return patience0 + time.Duration(size/slowLine)*time.Second
}

// Early is a content on its way whose bytes can be read in order as they come and
// are verified against the BLAKE3 root. It is safe for concurrent use.
type Early struct {
	sink sink
	size int64

	mu     sync.Mutex
	ready  int64 // bytes that may be read
	over   bool
	err    error         // why it did not come to its end, if over
	change chan struct{} // closed and replaced when one of these changes
}

func newEarly(to sink, size int64) *Early {
	return &Early{sink: to, size: size, change: make(chan struct{})}
}

// Open returns a reader of the content from its start, to be closed by the caller
// before the content is. It waits for bytes that are not there yet, and gives the
// last ones only when the whole was held against its SHA-256. A read fails when the
// fetch does, when the content is not the right one, and with [ErrSlow] when no
// bytes came for 2 seconds, or the waits come to 10 seconds and one for each MiB.
func (e *Early) Open() (io.ReadCloser, error) {
	return &earlyReader{e: e, closed: make(chan struct{})}, nil
}

// Outboard returns the BLAKE3 tree in the layout of blob.Summary once the content
// was read to its end; before, it fails with blob.ErrIncomplete.
func (e *Early) Outboard() (*io.SectionReader, error) {
	e.mu.Lock()
	over, err := e.over, e.err
	e.mu.Unlock()
	switch {
	case !over:
		return nil, blob.ErrIncomplete
	case err != nil:
		return nil, err
	}
	return e.sink.outboard(), nil
}

// advance takes note of bytes that came. A nil Early takes note of nothing.
func (e *Early) advance() {
	if e == nil {
		return
	}
	// The last group is kept back until end.
	ready := int64(min(e.sink.prefix(), blob.Groups(uint64(e.size))-1)) * blob.GroupSize
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.over && ready > e.ready {
		e.ready = ready
		e.wake()
	}
}

// end lets readers read to the end, or fail. Only the first call counts.
func (e *Early) end(err error) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over {
		return
	}
	e.over, e.err = true, err
	if err == nil {
		e.ready = e.size
	}
	e.wake()
}

func (e *Early) wake() {
	close(e.change)
	e.change = make(chan struct{})
}

// state returns how many bytes may be read, and what to wait for if there are no
// more.
func (e *Early) state() (ready int64, change <-chan struct{}, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ready, e.change, e.err
}

type earlyReader struct {
	e      *Early
	at     int64
	waited time.Duration
	once   sync.Once
	closed chan struct{}
}

// Read implements io.Reader.
func (r *earlyReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	ready, err := r.wait()
	if err != nil {
		return 0, err
	}
	n, err := r.e.sink.readAt(p[:min(int64(len(p)), ready)], r.at)
	r.at += int64(n)
	return n, err
}

// wait returns how many bytes can be read, at least one.
func (r *earlyReader) wait() (int64, error) {
	var slow <-chan time.Time
	for {
		ready, change, err := r.e.state()
		switch {
		case err != nil:
			return 0, fmt.Errorf("transfer: the content did not come to its end: %w", err)
		case r.at < ready:
			return ready - r.at, nil
		case r.at == r.e.size:
			return 0, io.EOF
		}
		if slow == nil {
			begun := time.Now()
			defer func() { r.waited += time.Since(begun) }()
			t := time.NewTimer(min(patience, patienceInAll(r.e.size)-r.waited))
			defer t.Stop()
			slow = t.C
		}
		select {
		case <-change:
		case <-slow:
			return 0, ErrSlow
		case <-r.closed:
			return 0, fs.ErrClosed
		}
	}
}

// ReadAt implements io.ReaderAt for content that has come.
func (r *earlyReader) ReadAt(p []byte, off int64) (int, error) {
	ready, _, err := r.e.state()
	switch {
	case err != nil:
		return 0, err
	case off < 0 || off+int64(len(p)) > ready:
		return 0, blob.ErrIncomplete
	}
	return r.e.sink.readAt(p, off)
}

// Close implements io.Closer; a read that waits returns.
func (r *earlyReader) Close() error {
	r.once.Do(func() { close(r.closed) })
	return nil
}
