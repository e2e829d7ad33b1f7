package transfer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/transport"
)

// Small fetches a content of at most [SmallLimit] bytes and holds it against its
// SHA-256. Calls made at the same time share streams and frames, so a caller with
// many wants makes many calls at once. Errors match [ErrBadContent], [ErrTooLarge],
// [ErrClosed], the context's, or are a [FetchError].
//
// The BLAKE3 root in the record is not compared when the SHA-256 fits.
func (c *Client) Small(ctx context.Context, w Want) ([]byte, error) {
	if w.Size > SmallLimit {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, w.Size)
	}
	ctx, leave, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	b, err := c.small(ctx, w)
	return b, leave(err)
}

func (c *Client) small(ctx context.Context, w Want) ([]byte, error) {
	var failed []*PeerError
	tries := make(map[transport.PeerID]int)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		conn := c.pick(w.Library, tries)
		if conn == nil {
			return nil, fetchError(failed)
		}
		peer := conn.place.peer
		data, err := conn.fetch(ctx, w)
		if err == nil {
			return data, nil
		}
		switch {
		case errors.Is(err, ErrBadContent), ctx.Err() != nil:
			return nil, err
		case errors.Is(err, ErrWrong):
			c.liar(peer)
			tries[peer] = maxTries
		case errors.Is(err, errBroken) && !errors.Is(err, ErrStalled):
			// A warm stream may have ended just then: one more try on a new one.
			if tries[peer]++; tries[peer] < maxTries {
				continue
			}
		default:
			tries[peer] = maxTries
		}
		failed = append(failed, &PeerError{peer, err})
	}
}

// maxTries is how often a peer whose stream breaks is asked for a small content.
const maxTries = 2

// errBroken says that the stream ended before the answer came.
var errBroken = errors.New("transfer: stream to peer broke")

// pick returns the stream with the fewest requests under way among the peers that
// may still be tried.
func (c *Client) pick(lib [32]byte, tries map[transport.PeerID]int) *smallConn {
	peers := c.peers(lib)
	c.mu.Lock()
	defer c.mu.Unlock()
	best, load := -1, 0
	for i, p := range peers {
		if tries[p.ID] >= maxTries {
			continue
		}
		n := 0
		if conn := c.conns[place{lib, p.ID}]; conn != nil {
			n = conn.load()
		}
		if best < 0 || n < load {
			best, load = i, n
		}
	}
	if best < 0 || c.closed {
		return nil
	}
	at := place{lib, peers[best].ID}
	conn := c.conns[at]
	if conn == nil {
		conn = newSmallConn(c, at)
		c.conns[at] = conn
		c.wg.Go(conn.run)
	}
	return conn
}

// smallConn is a warm stream for small contents. It opens itself, ends when it is
// idle for long, and is replaced when it broke.
type smallConn struct {
	c      *Client
	place  place
	places chan struct{}
	wake   chan struct{}

	mu      sync.Mutex
	err     error
	st      transport.Stream
	seq     uint32
	queue   []*call
	pending map[uint32]*call
}

// call is a request under way. done has room for its result.
type call struct {
	want Want
	done chan result
}

type result struct {
	status status
	data   []byte
	err    error
}

func newSmallConn(c *Client, at place) *smallConn {
	return &smallConn{
		c: c, place: at, places: make(chan struct{}, c.cfg.PeerSmalls), wake: make(chan struct{}, 1),
		pending: make(map[uint32]*call),
	}
}

func (s *smallConn) load() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue) + len(s.pending)
}

// fetch asks for a content and checks the answer.
func (s *smallConn) fetch(ctx context.Context, w Want) ([]byte, error) {
	select {
	case s.places <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	k := &call{want: w, done: make(chan result, 1)}
	if err := s.add(k); err != nil {
		<-s.places
		return nil, err
	}
	select {
	case r := <-k.done:
		switch {
		case r.err != nil:
			return nil, r.err
		case r.status != statusOK:
			return nil, r.status.err()
		}
		return r.data, judge(w, r.data)
	case <-ctx.Done():
		return nil, ctx.Err() // the answer is thrown away when it comes
	}
}

// judge says whether data is the content wanted, and if not who is to blame.
func judge(w Want, data []byte) error {
	fits := uint64(len(data)) == w.Size
	switch {
	case can.Digest(sha256.Sum256(data)) == w.Asset:
		if fits {
			return nil
		}
		return fmt.Errorf("%w: %d bytes, the record says %d", ErrBadContent, len(data), w.Size)
	case fits && blob.Sum(data).Root == w.Root:
		return fmt.Errorf("%w: its SHA-256 is another", ErrBadContent)
	}
	return ErrWrong
}

func (s *smallConn) add(k *call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.queue = append(s.queue, k)
	if len(s.queue)+len(s.pending) == 1 {
		s.arm()
	}
	poke(s.wake)
	return nil
}

// arm sets the time until which the next answer must be there whole.
func (s *smallConn) arm() {
	if s.st == nil {
		return
	}
	d := messageTime
	if len(s.queue)+len(s.pending) == 0 {
		d = s.c.cfg.Idle
	}
	_ = s.st.SetReadDeadline(time.Now().Add(d))
}

// run opens the stream, and writes and reads until it ends.
func (s *smallConn) run() {
	st, err := s.c.dial(s.c.ctx, s.place)
	if err != nil {
		s.fail(fmt.Errorf("%w: %w", errBroken, err))
		return
	}
	s.mu.Lock()
	s.st = st
	s.arm()
	s.mu.Unlock()
	ctx, cancel := context.WithCancel(s.c.ctx)
	stop := context.AfterFunc(ctx, func() { _ = st.Reset() })
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.write(ctx, st); err != nil {
			cancel()
		}
	})
	err = s.read(ctx, st)
	idle := s.fail(err)
	if idle && stop() {
		_ = st.Close()
	}
	cancel()
	wg.Wait()
	_ = st.Reset()
}

// fail ends the conn for its calls and makes way for another. It reports whether
// none was under way.
func (s *smallConn) fail(err error) (idle bool) {
	s.c.mu.Lock()
	if s.c.conns[s.place] == s {
		delete(s.c.conns, s.place)
	}
	s.c.mu.Unlock()
	s.mu.Lock()
	s.err = err
	all := s.queue
	for _, k := range s.pending {
		all = append(all, k)
	}
	s.queue, s.pending = nil, nil
	s.mu.Unlock()
	for _, k := range all {
		s.finish(k, result{err: err})
	}
	return len(all) == 0
}

func (s *smallConn) finish(k *call, r result) {
	k.done <- r
	<-s.places
}

// write sends what is queued, as much as fits into one frame at a time.
func (s *smallConn) write(ctx context.Context, st transport.Stream) error {
	buf := make([]byte, 0, frameHead+maxRequest)
	for {
		s.mu.Lock()
		n := min(len(s.queue), maxWants)
		buf = appendHead(buf[:0], frameWants, n*wantSize)
		for _, k := range s.queue[:n] {
			s.seq++
			s.pending[s.seq] = k
			buf = appendWant(buf, wantReq{s.seq, k.want.Record})
		}
		if s.queue = s.queue[n:]; len(s.queue) == 0 {
			s.queue = nil
		}
		s.mu.Unlock()
		if n > 0 {
			if err := writeAll(st, buf); err != nil {
				return err
			}
			continue
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// read hands out the answers. The error that it ends with matches errBroken, and
// ErrWrong or ErrStalled where the peer is at fault.
func (s *smallConn) read(ctx context.Context, st transport.Stream) error {
	f := newFramer(st, maxSmalls)
	store := make([]byte, 0, 16<<10)
	f.limited = func() bool { return s.c.cfg.Limit.limited(s.place.lib, s.place.peer) }
	f.pay = func(n int) error { return s.c.cfg.Limit.wait(ctx, s.place.lib, s.place.peer, flowSmall, n, nil) }
	alloc := func(_ uint8, n int) []byte {
		if cap(store) < n {
			store = make([]byte, n)
		}
		return store[:cap(store)]
	}
	for {
		var body []byte
		err := f.await()
		if err == nil {
			var typ uint8
			if typ, body, err = f.next(alloc); err == nil && typ != frameSmalls {
				err = fmt.Errorf("%w: frame of type %d", ErrProtocol, typ)
			}
		}
		var all []answer
		if err == nil {
			all, err = decodeSmalls(body)
		}
		if err == nil {
			err = s.deliver(all)
		}
		if err == nil {
			s.c.received(s.place.lib, s.place.peer, len(body))
		}
		switch {
		case err == nil:
		case errors.Is(err, wire.ErrMalformed), errors.Is(err, ErrProtocol):
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		case isTimeout(err) && s.load() > 0:
			return fmt.Errorf("%w: %w", errBroken, ErrStalled)
		default:
			return fmt.Errorf("%w: %w", errBroken, err)
		}
		s.mu.Lock()
		s.arm()
		s.mu.Unlock()
	}
}

// deliver gives answers to their calls. The data is copied, for it belongs to the
// frame.
func (s *smallConn) deliver(all []answer) error {
	for _, a := range all {
		s.mu.Lock()
		k := s.pending[a.seq]
		delete(s.pending, a.seq)
		s.mu.Unlock()
		if k == nil {
			return fmt.Errorf("%w: answer to nothing", ErrProtocol)
		}
		s.finish(k, result{status: a.status, data: append([]byte(nil), a.data...)})
	}
	return nil
}
