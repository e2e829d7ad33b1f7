package transfer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/transport"
)

// source is a stream on which a peer sends runs of one content. One goroutine
// reads and checks, one stores, one writes requests; they report to the download.
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

// coming is a run that was asked for. Whoever reads has v, next and patience, whoever
// stores has in.
type coming struct {
	run  blob.Run
	v    *blob.Verifier // when the proof has come
	next uint64         // the group that comes next
	// patience counts the signs of life that may still come without data.
	patience int
	in       intake
}

// maxPatience is how many signs of life without data keep a source from counting as
// stalled: at one every three seconds, two minutes.
const maxPatience = 40

// part is what came in one frame, on its way from who reads to who stores.
type part struct {
	r     *coming
	v     *blob.Verifier // of a proof
	first uint64         // the first group of data
	data  []byte         // groups that were held against the proof
	end   error          // why the run ended early
	store *[]byte        // of data, to be given back
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

var partStore = sync.Pool{New: func() any { b := make([]byte, maxPiece); return &b }}

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
	var storeErr, writeErr error
	wg.Go(func() {
		if storeErr = s.storeAll(); storeErr != nil {
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
	if err != errHalted {
		_ = s.st.Reset() // so that the peer ends too, while the last is stored
	}
	close(s.parts)
	stopWriter()
	wg.Wait()
	s.mu.Lock()
	idle := len(s.runs) == 0
	s.mu.Unlock()
	s.clean = err == errHalted && storeErr == nil && writeErr == nil && idle && abort()
	switch {
	case errors.Is(err, ErrWrong), errors.Is(err, ErrProtocol):
		s.err = err
	case storeErr != nil:
		s.err = storeErr
	case s.stop.Load():
	case writeErr != nil:
		s.err = fmt.Errorf("%w: %w", errBroken, writeErr)
	case isTimeout(err):
		s.err = fmt.Errorf("%w: %w", errBroken, ErrStalled)
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
