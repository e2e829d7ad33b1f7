package transfer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/transport"
)

// source is a stream on which a peer sends runs of one content. One goroutine
// reads, one checks and stores, one writes requests; they report to the download.
type source struct {
	d      *download
	peer   transport.PeerID
	flow   flow
	ctx    context.Context
	cancel context.CancelFunc
	st     transport.Stream
	f      *framer
	seq    uint32
	warm   bool // the stream was used before
	gave   atomic.Bool
	reqs   chan []byte
	parts  chan part
	ended  chan struct{} // closed when nothing of it runs any more
	clean  bool          // after ended: the stream may be used again
	err    error         // after ended: why it ended, nil when it was asked to
	stop   atomic.Bool   // it was asked to

	mu   sync.Mutex
	runs map[uint32]*coming
}

// coming is a run that was asked for.
type coming struct {
	run  blob.Run
	in   intake
	next uint64 // the group that comes next
	// patience counts the signs of life that may still come without data.
	patience int
}

// maxPatience is how many signs of life without data keep a source from counting as
// stalled: at one every three seconds, two minutes.
const maxPatience = 40

// part is a frame on its way from the reader to the checker.
type part struct {
	typ   uint8
	body  []byte
	store *[]byte // to be given back
}

// event tells the download what came.
type event struct {
	src *source
	run blob.Run
	// got are verified groups of the run; none is a sign of life.
	got blob.Run
	// failed says that the run ended before its last group, with cause.
	failed bool
	cause  error
	// opened and ended concern the source itself.
	opened, ended bool
	fatal         error // the sink's, not the peer's
}

var partStore = sync.Pool{New: func() any { b := make([]byte, maxAnswer); return &b }}

// errHalted says that reading ended between two frames because it was asked to.
var errHalted = errors.New("transfer: halted")

// open gets a stream, a warm one if there is, and starts.
func (s *source) open() error {
	at := place{s.d.want.Library, s.peer}
	if w := s.d.c.warm(at); w != nil {
		s.st, s.f, s.seq, s.warm = w.st, w.f, w.seq, true
	} else {
		st, err := s.d.c.dial(s.ctx, at)
		if err != nil {
			return err
		}
		s.st, s.f = st, newFramer(st, maxAnswer)
	}
	limit := s.d.c.cfg.Limit
	s.f.limited = func() bool { return limit.limited(at.lib, at.peer) }
	s.f.pay = func(n int) error {
		return limit.wait(s.ctx, at.lib, at.peer, s.flow, n, func() {
			s.d.tell(s.ctx, event{src: s}) // it is our limit, not the peer's slowness
		})
	}
	return nil
}

// work runs the source until it is stopped or fails.
func (s *source) work() {
	defer close(s.ended)
	abort := context.AfterFunc(s.ctx, func() { _ = s.st.Reset() })
	var wg sync.WaitGroup
	var checkErr, writeErr error
	wg.Go(func() {
		if checkErr = s.check(); checkErr != nil {
			s.cancel()
		}
	})
	writer, stopWriter := context.WithCancel(s.ctx)
	wg.Go(func() {
		if writeErr = s.write(writer); writeErr != nil {
			s.cancel()
		}
	})
	err := s.read()
	close(s.parts)
	stopWriter()
	wg.Wait()
	s.mu.Lock()
	idle := len(s.runs) == 0
	s.mu.Unlock()
	s.clean = err == errHalted && checkErr == nil && writeErr == nil && idle && abort()
	switch {
	case checkErr != nil:
		s.err = checkErr
	case s.stop.Load():
	case writeErr != nil:
		s.err = fmt.Errorf("%w: %w", errBroken, writeErr)
	case isTimeout(err):
		s.err = fmt.Errorf("%w: %w", errBroken, ErrStalled)
	case errors.Is(err, wire.ErrMalformed):
		s.err = fmt.Errorf("%w: %w", ErrProtocol, err)
	default:
		s.err = fmt.Errorf("%w: %w", errBroken, err)
	}
	if !s.clean {
		_ = s.st.Reset()
	}
}

// halt makes the source end; a stream on which nothing is under way survives.
func (s *source) halt() {
	s.stop.Store(true)
	_ = s.st.SetReadDeadline(time.Unix(1, 0))
	s.mu.Lock()
	idle := len(s.runs) == 0
	s.mu.Unlock()
	if !idle {
		s.cancel()
	}
}

// request asks for a run; it reports false when the peer does not take requests.
func (s *source) request(run blob.Run) bool {
	s.mu.Lock()
	s.seq++
	q := runReq{seq: s.seq, record: s.d.want.Record, root: s.d.want.Root, size: s.d.want.Size, run: run}
	s.runs[q.seq] = &coming{run: run, next: run.First, patience: maxPatience}
	s.mu.Unlock()
	return s.send(q.frame())
}

// forget tells the peer that a run is no longer wanted. What it has sent already is
// still taken.
func (s *source) forget(run blob.Run) bool {
	s.mu.Lock()
	seq, ok := uint32(0), false
	for n, r := range s.runs {
		if r.run == run && (!ok || n > seq) {
			seq, ok = n, true
		}
	}
	s.mu.Unlock()
	return !ok || s.send(seqFrame(frameCancel, seq))
}

func (s *source) send(b []byte) bool {
	select {
	case s.reqs <- b:
		return true
	default:
		return false
	}
}

func (s *source) write(ctx context.Context) error {
	for {
		select {
		case b := <-s.reqs:
			if err := writeAll(s.st, b); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// read hands frames to the checker.
func (s *source) read() error {
	for {
		_ = s.st.SetReadDeadline(time.Time{}) // stalls are the scheduler's matter
		if s.stop.Load() {
			_ = s.st.SetReadDeadline(time.Unix(1, 0))
		}
		if err := s.f.await(); err != nil {
			if s.stop.Load() && isTimeout(err) {
				return errHalted
			}
			return err
		}
		var p part
		typ, body, err := s.f.next(func(_ uint8, n int) []byte {
			if n <= 64 {
				return make([]byte, n)
			}
			p.store = partStore.Get().(*[]byte)
			return *p.store
		})
		p.typ, p.body = typ, body
		if err != nil {
			p.free()
			return err
		}
		select {
		case s.parts <- p:
		case <-s.ctx.Done():
			p.free()
			return s.ctx.Err()
		}
		if typ == frameData {
			s.d.c.received(s.d.want.Library, s.peer, len(body))
		}
	}
}

func (p part) free() {
	if p.store != nil {
		partStore.Put(p.store)
	}
}

// check verifies and stores what comes. Its errors are the peer's fault, unless a
// fatal event says otherwise.
func (s *source) check() error {
	defer func() {
		for p := range s.parts {
			p.free()
		}
	}()
	for p := range s.parts {
		err := s.take(p)
		p.free()
		if err != nil {
			s.cancel()
			return err
		}
	}
	return nil
}

func (s *source) take(p part) error {
	switch p.typ {
	case frameProof, frameData:
		seq, b, err := decodePart(p.typ, p.body)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		return s.takePart(p.typ, seq, b)
	case frameEnd:
		seq, st, err := decodeEnd(p.body)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		if r := s.coming(seq, true); r != nil {
			s.d.tell(s.ctx, event{src: s, run: r.run, failed: true, cause: st.err()})
		}
		return nil // the run may have been over already when it was cancelled
	case frameWorking:
		seq, err := decodeSeq(p.body)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		if r := s.coming(seq, false); r != nil && r.patience > 0 {
			r.patience--
			s.d.tell(s.ctx, event{src: s})
		}
		return nil
	}
	return fmt.Errorf("%w: frame of type %d", ErrProtocol, p.typ)
}

// coming finds a run that was asked for; last takes it out.
func (s *source) coming(seq uint32, last bool) *coming {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.runs[seq]
	if last {
		delete(s.runs, seq)
	}
	return r
}

func (s *source) takePart(typ uint8, seq uint32, b []byte) error {
	r := s.coming(seq, false)
	if r == nil {
		return fmt.Errorf("%w: answer to nothing", ErrProtocol)
	}
	if typ == frameProof {
		if r.in != nil {
			return fmt.Errorf("%w: second proof", ErrProtocol)
		}
		// The stage keeps the proof until the run is over; b is used again.
		in, err := s.d.sink.begin(r.run, append([]byte(nil), b...))
		if err != nil {
			return s.wrong(err)
		}
		r.in = in
		return nil
	}
	if r.in == nil {
		return fmt.Errorf("%w: data before its proof", ErrProtocol)
	}
	_, err := r.in.Put(r.next, b)
	var bad *blob.GroupError
	if errors.As(err, &bad) && bad.Group > r.next {
		// What came before the lie is as good as ever, and need not come again.
		b = b[:(bad.Group-r.next)*blob.GroupSize]
		if _, perr := r.in.Put(r.next, b); perr != nil {
			return s.wrong(perr)
		}
	} else if err != nil {
		return s.wrong(err)
	}
	got := blob.Run{First: r.next, Count: blob.Groups(uint64(len(b)))}
	s.gave.Store(true)
	r.patience = maxPatience
	if r.next = got.End(); r.next == r.run.End() {
		s.coming(seq, true)
	}
	s.d.tell(s.ctx, event{src: s, run: r.run, got: got})
	if err != nil {
		return s.wrong(err)
	}
	return nil
}

// wrong tells the errors that are the peer's fault from those of the sink.
func (s *source) wrong(err error) error {
	for _, lie := range [...]error{blob.ErrGroup, blob.ErrProof, blob.ErrSize, blob.ErrRange} {
		if errors.Is(err, lie) {
			return fmt.Errorf("%w: %w", ErrWrong, err)
		}
	}
	s.d.tell(s.ctx, event{src: s, fatal: err})
	return err
}
