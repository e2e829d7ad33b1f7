package transfer

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/session"
	"github.com/cansync/cansync/transport"
)

// ServerConfig is what a server works with. Service, Inventory and Library are
// required; a zero limit means its default.
type ServerConfig struct {
	// Service is read from; its [can.Ranger] says how. A read of a content for which it
	// takes more than 20 seconds, or in all 20 and one for each 64 KiB, is given up.
	Service   can.Opener
	Inventory *inventory.Inventory
	// Library returns a library of which the node is a member.
	Library func(id [32]byte) (*library.Library, bool)
	// OnCorrupt is called, from any goroutine, each time the service gave other
	// bytes under a handle than those that the inventory knows, or says itself that
	// it can't read them any more ([can.ErrCorrupted]). The inventory is left for the
	// callee to change.
	OnCorrupt func(handle string, d can.Digest)
	// OnSent is called with the number of content bytes sent to a peer.
	OnSent func(lib [32]byte, peer transport.PeerID, bytes int)
	// Limit holds back what is sent; nil means unlimited.
	Limit  *Limiter
	Logger *slog.Logger

	// MaxBuffers bounds the pieces of up to 256 KiB read and not yet taken by
	// their peers, PeerBuffers those of one peer: 128 and 16. Peers that wait for
	// them have equal shares of bytes, as they have of reads and of limits.
	MaxBuffers, PeerBuffers int
	// MaxReads bounds the reads from the service at once: 32.
	MaxReads int
	// PeerQueue bounds the requests of one peer that wait: 1,024. When it is full
	// its streams are not read.
	PeerQueue int
	// MaxStreams and PeerStreams bound the streams served: 1,024 and 32.
	MaxStreams, PeerStreams int
	// TreeMemory bounds what is kept in memory of the BLAKE3 trees of the contents
	// being served, in bytes: 16 MiB. They are read in pieces of 256 KiB, of which one
	// is always kept.
	TreeMemory int
	// Idle is how long a stream without requests stays open: 2 minutes.
	Idle time.Duration
}

func (c ServerConfig) withDefaults() ServerConfig {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&c.MaxBuffers, 128)
	def(&c.PeerBuffers, 16)
	def(&c.MaxReads, 32)
	def(&c.PeerQueue, 1024)
	def(&c.MaxStreams, 1024)
	def(&c.PeerStreams, 32)
	def(&c.TreeMemory, 16<<20)
	if c.Idle <= 0 {
		c.Idle = 2 * time.Minute
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Server answers requests for contents. It is safe for concurrent use.
type Server struct {
	cfg     ServerConfig
	log     *slog.Logger
	service steady
	buffers *turnstile
	reads   *turnstile
	trees   *trees
	readers *readers
	pieces  sync.Pool

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	streams int
	peers   map[transport.PeerID]*guest
}

// guest is a peer that is being served.
type guest struct {
	streams int
	queued  int
	room    chan struct{} // closed and replaced when the queue shrinks
}

const readingIdle = time.Minute

// NewServer returns a server; register its Serve for session.ProtoBlob.
func NewServer(cfg ServerConfig) *Server {
	cfg = cfg.withDefaults()
	service := steady{cfg.Service}
	s := &Server{
		cfg: cfg, log: cfg.Logger, service: service, buffers: newTurnstile(cfg.MaxBuffers, cfg.PeerBuffers),
		reads: newTurnstile(cfg.MaxReads, cfg.MaxReads), trees: newTrees(cfg.Inventory, service, cfg.TreeMemory),
		readers: &readers{open: service, max: 32, idle: readingIdle},
		peers:   make(map[transport.PeerID]*guest),
	}
	s.pieces.New = func() any { b := make([]byte, 0, frameHead+maxAnswer); return &b }
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(s.sweep)
	return s
}

// sweep closes readings of the service that nobody uses any more.
func (s *Server) sweep() {
	tick := time.NewTicker(readingIdle / 4)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			s.readers.sweep(now)
		case <-s.ctx.Done():
			return
		}
	}
}

// Close ends every stream and waits for them. It is idempotent.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
	s.readers.sweep(time.Time{})
	return nil
}

// begin counts a stream of a peer in, unless there are too many.
func (s *Server) begin(p transport.PeerID) (*guest, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.peers[p]
	if s.closed || s.streams >= s.cfg.MaxStreams || c != nil && c.streams >= s.cfg.PeerStreams {
		return nil, false
	}
	if c == nil {
		c = &guest{room: make(chan struct{})}
		s.peers[p] = c
	}
	s.streams++
	c.streams++
	s.wg.Add(1)
	return c, true
}

func (s *Server) end(p transport.PeerID, c *guest) {
	s.mu.Lock()
	s.streams--
	if c.streams--; c.streams == 0 {
		delete(s.peers, p)
	}
	s.mu.Unlock()
	s.wg.Done()
}

// queue waits until the peer may have n more requests waiting.
func (s *Server) queue(ctx context.Context, c *guest, n int) error {
	for {
		s.mu.Lock()
		if c.queued == 0 || c.queued+n <= s.cfg.PeerQueue {
			c.queued += n
			s.mu.Unlock()
			return nil
		}
		room := c.room
		s.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Server) dequeue(c *guest, n int) {
	if n == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.queued -= n
	close(c.room)
	c.room = make(chan struct{})
}

// resolve finds the content that a record of the library stands for. Whatever the
// reason why there is none, the answer is statusNotFound; an unknown record and one
// of another library take the very same steps.
func (s *Server) resolve(ctx context.Context, lib [32]byte, id record.ID) (inventory.Item, status) {
	l, ok := s.cfg.Library(lib)
	if !ok {
		return inventory.Item{}, statusNotFound
	}
	e, err := l.EntryOf(ctx, id)
	if err != nil || !l.Shares(e) {
		return inventory.Item{}, statusNotFound
	}
	it, ok, err := s.cfg.Inventory.Present(ctx, e.Asset)
	if err != nil || !ok {
		return inventory.Item{}, statusNotFound
	}
	if l.Paused() {
		return inventory.Item{}, statusUnavailable
	}
	return it, statusOK
}

// failed turns an error of reading from the service into an answer, and reports
// content that has changed.
func (s *Server) failed(ctx context.Context, it inventory.Item, err error) status {
	switch {
	case ctx.Err() != nil:
		return statusCancelled
	case errors.Is(err, errRotten), errors.Is(err, can.ErrCorrupted):
		s.log.Warn("the service's content is not what was announced", "asset", it.Digest, "error", err)
		if s.cfg.OnCorrupt != nil {
			s.cfg.OnCorrupt(it.Handle, it.Digest)
		}
	default:
		s.log.Info("content not read from the service", "asset", it.Digest, "error", err)
	}
	return statusUnavailable
}

// requestCost is what a request counts beside its bytes where peers share.
const requestCost = 256

// read counts a read of n bytes from the service for a peer.
func (s *Server) read(ctx context.Context, p transport.PeerID, k flow, n int) (done func(), err error) {
	if err := s.reads.enter(ctx, p, k, requestCost+n, nil); err != nil {
		return nil, err
	}
	return func() { s.reads.leave(p) }, nil
}

var _ func(session.Served) = (*Server)(nil).Serve
