package transfer

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/session"
	"github.com/cansync/cansync/transport"
)

// serving is one stream being served. Its goroutines: the caller's reads requests,
// one each works through small contents and runs, one writes.
type serving struct {
	s      *Server
	sv     session.Served
	peer   transport.PeerID
	c      *guest
	ctx    context.Context
	cancel context.CancelFunc

	mu        sync.Mutex
	wants     []wantReq
	runs      []runReq
	cancelled map[uint32]bool // of runs that wait or are at work
	abort     context.CancelFunc
	current   uint32 // the run at work, if abort is set
	wantsC    chan struct{}
	runsC     chan struct{}

	out    chan piece
	smalls chan small
}

// piece is a frame to be written.
type piece struct {
	b    []byte
	sent int    // content bytes in it
	done func() // called when it was written or thrown away
}

// small is an answer to be written, with others, in one frame.
type small struct {
	answer
	done func()
}

// Serve answers the requests on a stream until it ends, and returns when nothing of
// it runs any more.
func (s *Server) Serve(sv session.Served) {
	c, ok := s.begin(sv.Peer)
	if !ok {
		_ = sv.Stream.Reset()
		return
	}
	defer s.end(sv.Peer, c)
	if !sv.Rights.Has(capability.Read) {
		_ = sv.Stream.Reset()
		return
	}
	v := &serving{
		s: s, sv: sv, peer: sv.Peer, c: c, cancelled: make(map[uint32]bool),
		wantsC: make(chan struct{}, 1), runsC: make(chan struct{}, 1),
		out: make(chan piece, 1), smalls: make(chan small),
	}
	v.ctx, v.cancel = context.WithCancel(sv.Context)
	stop := context.AfterFunc(s.ctx, v.cancel)
	defer stop()
	unblock := context.AfterFunc(v.ctx, func() { _ = sv.Stream.Reset() })
	var wg sync.WaitGroup
	wg.Go(v.workWants)
	wg.Go(v.workRuns)
	wg.Go(func() {
		if err := v.write(); err != nil {
			v.cancel()
		}
	})
	err := v.listen()
	if err == nil && unblock() {
		_ = sv.Stream.Close()
	}
	v.cancel()
	wg.Wait()
	v.drain()
	_ = sv.Stream.Reset()
	v.mu.Lock()
	left := len(v.wants) + len(v.runs)
	v.mu.Unlock()
	s.dequeue(c, left)
	if err != nil && sv.Context.Err() == nil && s.ctx.Err() == nil && !errors.Is(err, transport.ErrReset) {
		s.log.Info("stream of requests failed", "peer", sv.Peer.Short(), "error", err)
	}
}

// listen reads requests. It returns nil when the peer ends the stream in good order,
// or has had nothing to ask for long.
func (v *serving) listen() error {
	f := newFramer(v.sv.Stream, maxRequest)
	var store [maxRequest]byte
	alloc := func(uint8, int) []byte { return store[:] }
	for {
		_ = v.sv.Stream.SetReadDeadline(time.Now().Add(v.s.cfg.Idle))
		err := f.await()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && v.busy():
			continue
		case err == io.EOF, errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return err
		}
		typ, body, err := f.next(alloc)
		if err != nil {
			return err
		}
		if err := v.take(typ, body); err != nil {
			return err
		}
	}
}

// busy reports whether the peer has requests waiting, on whatever stream.
func (v *serving) busy() bool {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	return v.c.queued > 0
}

func (v *serving) take(typ uint8, body []byte) error {
	switch typ {
	case frameWants:
		qs, err := decodeWants(body)
		if err != nil {
			return err
		}
		if err := v.s.queue(v.ctx, v.c, len(qs)); err != nil {
			return err
		}
		v.mu.Lock()
		v.wants = append(v.wants, qs...)
		v.mu.Unlock()
		poke(v.wantsC)
	case frameRun:
		q, err := decodeRun(body)
		if err != nil {
			return err
		}
		if err := v.s.queue(v.ctx, v.c, 1); err != nil {
			return err
		}
		v.mu.Lock()
		v.runs = append(v.runs, q)
		v.mu.Unlock()
		poke(v.runsC)
	case frameCancel:
		seq, err := decodeSeq(body)
		if err != nil {
			return err
		}
		v.cancelRun(seq)
	default:
		return ErrProtocol
	}
	return nil
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// cancelRun ends a run that waits or is at work; one that is neither is over.
func (v *serving) cancelRun(seq uint32) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.abort != nil && v.current == seq {
		v.abort()
		return
	}
	for _, q := range v.runs {
		if q.seq == seq {
			v.cancelled[seq] = true
		}
	}
}

// write writes what the workers made, small contents many to a frame.
func (v *serving) write() (err error) {
	buf := make([]byte, 0, 16<<10)
	for {
		select {
		case p := <-v.out:
			err := writeAll(v.sv.Stream, p.b)
			p.done()
			if err != nil {
				return err
			}
			v.sent(p.sent)
		case a := <-v.smalls:
			if buf, err = v.writeSmalls(buf[:0], a); err != nil {
				return err
			}
		case <-v.ctx.Done():
			return v.ctx.Err()
		}
	}
}

// drain throws away a piece that was handed over and not written.
func (v *serving) drain() {
	select {
	case p := <-v.out:
		p.done()
	default:
	}
}

func (v *serving) writeSmalls(buf []byte, a small) ([]byte, error) {
	limit := maxSmalls
	if v.s.cfg.Limit.limited(v.sv.Library, v.peer) {
		limit = min(limit, v.s.cfg.Limit.piece(v.sv.Library, v.peer))
	}
	buf = append(buf, make([]byte, frameHead)...)
	var over *small // did not fit
	for next := &a; next != nil; {
		if len(buf) > frameHead && len(buf)-frameHead+answerSize(next.answer) > limit {
			over = next
			break
		}
		buf = appendAnswer(buf, next.answer)
		next.done()
		next = nil
		select {
		case b := <-v.smalls:
			next = &b
		default:
		}
	}
	n := len(buf) - frameHead
	appendHead(buf[:0], frameSmalls, n)
	err := v.s.cfg.Limit.wait(v.ctx, v.sv.Library, v.peer, flowSmall, n, nil)
	if err == nil {
		err = writeAll(v.sv.Stream, buf)
	}
	if err != nil {
		if over != nil {
			over.done()
		}
		return buf, err
	}
	v.sent(n)
	if over != nil {
		return v.writeSmalls(buf[:0], *over)
	}
	return buf, nil
}

func (v *serving) sent(n int) {
	if n > 0 && v.s.cfg.OnSent != nil {
		v.s.cfg.OnSent(v.sv.Library, v.peer, n)
	}
}
