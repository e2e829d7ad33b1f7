package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/watchdog"
	"github.com/cansync/cansync/transport"
)

const (
	// serviceTime is how long the service may keep one read waiting: less than peers
	// wait for an answer, so that they hear that the content is not to be had now.
	serviceTime = 20 * time.Second
	// endTime is how long it may take to say that a range is over.
	endTime = time.Second
)

// steady opens contents of a service that may hang, or give a byte now and then, and
// is then [watchdog.ErrSlow].
type steady struct{ can.Opener }

// Open implements can.Opener.
func (s steady) Open(ctx context.Context, handle string, offset, n int64) (io.ReadCloser, error) {
	return watchdog.Open(ctx, s.Opener, handle, offset, n, serviceTime)
}

// Ranges implements can.Ranger.
func (s steady) Ranges() bool {
	g, ok := s.Opener.(can.Ranger)
	return !ok || g.Ranges()
}

// readers opens contents of the service at an offset. Where the service does not
// read from the middle, readings are kept open behind the run that they were for,
// so that the next run of the same peer goes on from there.
type readers struct {
	open steady
	max  int
	idle time.Duration

	mu     sync.Mutex
	closed bool
	kept   []*reading // the oldest first
}

// reading is a content being read from its start on.
type reading struct {
	digest can.Digest
	peer   transport.PeerID
	rc     io.ReadCloser
	cancel context.CancelFunc
	at     int64
	whole  bool // it began at the start and ends at the end
	last   time.Time
}

func (r *reading) close() {
	r.cancel()
	_ = r.rc.Close()
}

// Read implements io.Reader.
func (r *reading) Read(p []byte) (int, error) {
	n, err := r.rc.Read(p)
	r.at += int64(n)
	return n, err
}

// at returns a reading that stands at offset and holds n bytes at least; the caller
// gives it back or closes it. ctx is the run's, stream that of the stream it came on;
// the reading itself may live until base ends. beat is called now and then while the
// reading is brought to the offset.
func (rs *readers) at(ctx, stream, base context.Context, it inventory.Item, peer transport.PeerID, offset, n int64, beat func()) (*reading, error) {
	if rs.open.Ranges() {
		return rs.start(ctx, base, it, peer, offset, n)
	}
	r := rs.take(it.Digest, peer, offset)
	if r != nil {
		err := r.skip(ctx, stream, offset, beat)
		if err == nil {
			return r, nil
		}
		if ctx.Err() != nil {
			rs.after(stream, r)
			return nil, err
		}
		r.close() // the service may have given up waiting for the next run
	}
	r, err := rs.start(ctx, base, it, peer, 0, -1)
	if err != nil {
		return nil, err
	}
	r.whole = true
	if err := r.skip(ctx, stream, offset, beat); err != nil {
		if ctx.Err() != nil {
			rs.after(stream, r)
		} else {
			r.close()
		}
		return nil, err
	}
	return r, nil
}

// after keeps the reading of a cancelled run, so that what was skipped was not in
// vain; the end of the stream has broken it.
func (rs *readers) after(stream context.Context, r *reading) {
	if stream.Err() != nil {
		r.close()
		return
	}
	rs.put(r)
}

func (rs *readers) start(ctx, base context.Context, it inventory.Item, peer transport.PeerID, offset, n int64) (*reading, error) {
	inner, cancel := context.WithCancel(base)
	stop := context.AfterFunc(ctx, cancel) // while opening
	rc, err := rs.open.Open(inner, it.Handle, offset, n)
	if !stop() && err == nil {
		_ = rc.Close()
		err = ctx.Err()
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return &reading{digest: it.Digest, peer: peer, rc: rc, cancel: cancel, at: offset}, nil
}

// skip reads on to an offset. Between two reads it looks at ctx; a read that hangs
// ends with the stream.
func (r *reading) skip(ctx, stream context.Context, offset int64, beat func()) error {
	if r.at == offset {
		return nil
	}
	defer context.AfterFunc(stream, r.cancel)()
	buf := make([]byte, 64<<10)
	for r.at < offset {
		if err := ctx.Err(); err != nil {
			return err
		}
		beat()
		_, err := r.Read(buf[:min(int64(len(buf)), offset-r.at)])
		if err == io.EOF && r.at < offset {
			err = fmt.Errorf("%w: %d bytes", can.ErrTruncated, r.at)
		}
		if err != nil && r.at < offset {
			return err
		}
	}
	return nil
}

// take finds the kept reading that is nearest before offset.
func (rs *readers) take(d can.Digest, peer transport.PeerID, offset int64) *reading {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	best := -1
	for i, r := range rs.kept {
		if r.digest == d && r.peer == peer && r.at <= offset && (best < 0 || r.at > rs.kept[best].at) {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	r := rs.kept[best]
	rs.kept = append(rs.kept[:best], rs.kept[best+1:]...)
	return r
}

// put gives a reading back that is in good order.
func (rs *readers) put(r *reading) {
	if !r.whole {
		// Reading up to the end tells whether the service sends more than was
		// asked for, and lets its connection be used again. The next run waits for it.
		late := time.AfterFunc(endTime, r.cancel)
		var one [1]byte
		_, _ = r.rc.Read(one[:])
		late.Stop()
		r.close()
		return
	}
	var old *reading
	rs.mu.Lock()
	switch r.last = time.Now(); {
	case rs.closed:
		old = r
	default:
		if rs.kept = append(rs.kept, r); len(rs.kept) > rs.max {
			old, rs.kept = rs.kept[0], rs.kept[1:]
		}
	}
	rs.mu.Unlock()
	if old != nil {
		old.close()
	}
}

// sweep closes readings that nobody went on with, and all when now is zero.
func (rs *readers) sweep(now time.Time) {
	var old []*reading
	rs.mu.Lock()
	if now.IsZero() {
		rs.closed = true
	}
	keep := rs.kept[:0]
	for _, r := range rs.kept {
		if rs.closed || now.Sub(r.last) >= rs.idle {
			old = append(old, r)
		} else {
			keep = append(keep, r)
		}
	}
	clear(rs.kept[len(keep):])
	rs.kept = keep
	rs.mu.Unlock()
	for _, r := range old {
		r.close()
	}
}

// whole reads a content of exactly n bytes; one that is shorter or longer is
// errRotten.
func whole(ctx context.Context, open can.Opener, handle string, n int64) ([]byte, error) {
	rc, err := open.Open(ctx, handle, 0, -1)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rc.Close() }()
	buf := make([]byte, n+1)
	k, err := io.ReadFull(rc, buf)
	switch {
	case err == nil:
		return nil, fmt.Errorf("%w: more than %d bytes", errRotten, n)
	case err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, err
	case int64(k) < n:
		return nil, fmt.Errorf("%w: %d of %d bytes", errRotten, k, n)
	}
	return buf[:n], nil
}
