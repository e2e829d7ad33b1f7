package transfer

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/session"
	"github.com/cansync/cansync/transport"
)

// ClientConfig is what a client works with. Network is required; a zero limit means
// its default.
type ClientConfig struct {
	Network Network
	// Stages is the directory in which large contents are staged. Without one they
	// are kept in memory, for nodes without a disk.
	Stages *os.Root
	// Memory bounds the contents kept in memory, in bytes: 256 MiB. With Stages it
	// concerns contents of at most [SmallLimit] only.
	Memory int64
	// Now is the clock by which speeds are measured; nil means time.Now.
	Now func() time.Time
	// OnLiar is called, from any goroutine, when a peer sent bytes that are not
	// what the record promises.
	OnLiar func(peer transport.PeerID)
	// OnReceived is called with the number of content bytes received from a peer.
	OnReceived func(lib [32]byte, peer transport.PeerID, bytes int)
	// Limit holds back what is received; nil means unlimited.
	Limit  *Limiter
	Logger *slog.Logger

	// MaxLarge bounds the large contents fetched at once; others wait: 4.
	MaxLarge int
	// MaxSources bounds the peers that one large content is fetched from at once,
	// each with 1.5 MiB of buffers: 8.
	MaxSources int
	// PeerSmalls bounds the small contents asked of one peer at once: 512.
	PeerSmalls int
	// SyncBytes is how much of a staged content a crash may lose at most, besides
	// what arrives while it is made durable: 8 MiB. Of a content that comes fast it is
	// what comes in a quarter of a second, if that is more, and eight times SyncBytes
	// at most.
	SyncBytes int64
	// Idle is how long a stream without requests is kept open: 1 minute.
	Idle time.Duration
	// Schedule tunes how a large content is split among its sources.
	Schedule blob.SchedulerConfig
}

func (c ClientConfig) withDefaults() ClientConfig {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&c.MaxLarge, 4)
	def(&c.MaxSources, 8)
	def(&c.PeerSmalls, 512)
	if c.Memory <= 0 {
		c.Memory = 256 << 20
	}
	if c.SyncBytes <= 0 {
		c.SyncBytes = 8 << 20
	}
	if c.Idle <= 0 {
		c.Idle = time.Minute
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	def(&c.Schedule.Strikes, 3)
	if c.Schedule.MaxRun == 0 || c.Schedule.MaxRun > maxRunGroups {
		c.Schedule.MaxRun = maxRunGroups
	}
	return c
}

// Client fetches contents. It is safe for concurrent use; its streams to peers stay
// open between fetches.
type Client struct {
	cfg   ClientConfig
	log   *slog.Logger
	large chan struct{}
	mem   *ram
	flows atomic.Uint64 // of limits

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	changed chan struct{} // closed and replaced by Refresh
	conns   map[place]*smallConn
	idle    map[place][]*idleStream
	open    map[blob.StageKey]bool
}

// place is a library shared with a peer.
type place struct {
	lib  [32]byte
	peer transport.PeerID
}

// NewClient returns a client.
func NewClient(cfg ClientConfig) *Client {
	cfg = cfg.withDefaults()
	c := &Client{
		cfg: cfg, log: cfg.Logger, large: make(chan struct{}, cfg.MaxLarge), mem: newRAM(cfg.Memory),
		changed: make(chan struct{}), conns: make(map[place]*smallConn),
		idle: make(map[place][]*idleStream), open: make(map[blob.StageKey]bool),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Close ends all fetches with [ErrClosed] and waits for them. Contents that were
// handed out stay readable until they are closed; stages stay. It is idempotent.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	var all []*idleStream
	for _, l := range c.idle {
		all = append(all, l...)
	}
	clear(c.idle)
	c.mu.Unlock()
	c.cancel()
	for _, s := range all {
		s.drop()
	}
	c.wg.Wait()
	return nil
}

// Refresh makes fetches look for peers at once, as after a peer joined; they do so
// every few seconds anyway.
func (c *Client) Refresh() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.changed)
	c.changed = make(chan struct{})
}

// enter counts a call in; its context ends with the client. The caller calls leave,
// which also names the error of a call that Close ended.
func (c *Client) enter(ctx context.Context) (_ context.Context, leave func(error) error, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, ErrClosed
	}
	c.wg.Add(1)
	inner, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(c.ctx, cancel)
	return inner, func(err error) error {
		stop()
		cancel()
		c.wg.Done()
		if err != nil && ctx.Err() == nil && c.ctx.Err() != nil {
			return ErrClosed
		}
		return err
	}, nil
}

// peers returns the members that may be asked, in a stable order.
func (c *Client) peers(lib [32]byte) []session.Peer {
	ps := c.cfg.Network.Peers(lib)
	slices.SortFunc(ps, func(a, b session.Peer) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return ps
}

// liar reports a peer that sent wrong bytes.
func (c *Client) liar(p transport.PeerID) {
	c.log.Warn("peer sent wrong bytes", "peer", p.Short())
	if c.cfg.OnLiar != nil {
		c.cfg.OnLiar(p)
	}
}

func (c *Client) received(lib [32]byte, p transport.PeerID, n int) {
	if c.cfg.OnReceived != nil && n > 0 {
		c.cfg.OnReceived(lib, p, n)
	}
}

// openTime bounds the opening of a stream.
const openTime = 15 * time.Second

func (c *Client) dial(ctx context.Context, p place) (transport.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	return c.cfg.Network.Open(ctx, p.lib, p.peer, session.ProtoBlob, transport.OpenOptions{Bulk: true})
}

// idleStream is a warm stream on which nothing is under way.
type idleStream struct {
	st    transport.Stream
	f     *framer
	seq   uint32
	timer *time.Timer
}

// drop closes a stream without waiting for the peer.
func (s *idleStream) drop() {
	s.timer.Stop()
	_ = s.st.Reset()
}

// warm takes an idle stream to a peer, nil when there is none.
func (c *Client) warm(p place) *idleStream {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.idle[p]
	if len(l) == 0 {
		return nil
	}
	s := l[len(l)-1]
	if c.idle[p] = l[:len(l)-1]; len(l) == 1 {
		delete(c.idle, p)
	}
	s.timer.Stop()
	return s
}

// cool keeps a stream for the next fetch.
func (c *Client) cool(p place, st transport.Stream, f *framer, seq uint32) {
	s := &idleStream{st: st, f: f, seq: seq}
	c.mu.Lock()
	if c.closed || len(c.idle[p]) >= c.cfg.MaxLarge {
		c.mu.Unlock()
		_ = st.Reset()
		return
	}
	defer c.mu.Unlock()
	s.timer = time.AfterFunc(c.cfg.Idle, func() {
		c.mu.Lock()
		l := slices.DeleteFunc(c.idle[p], func(o *idleStream) bool { return o == s })
		if c.idle[p] = l; len(l) == 0 {
			delete(c.idle, p)
		}
		c.mu.Unlock()
		_ = st.Reset()
	})
	c.idle[p] = append(c.idle[p], s)
}

// isTimeout says that a read or write ended by its deadline.
func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
