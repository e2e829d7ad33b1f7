package simulate

import (
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/store/storetest"
	"github.com/cansync/cansync/transport"
)

// Peer is a machine of a world: a CAN Service and, while it is up, the node beside
// it. Its methods are for the goroutine that runs the world's function.
type Peer struct {
	w     *World
	index int
	opts  cantest.Options
	svc   *cantest.Service
	dir   string
	store *storetest.Crashable
	skew  atomic.Int64 // nanoseconds
	worst time.Duration
	start int // starts so far

	id     transport.PeerID
	host   *host // nil while the node is down
	node   *cansync.Node
	client can.Client
	joined bool
}

// saneSkew is how wrong a clock may be for its machine's records to count as
// expected everywhere; nodes defer records that are more than ten minutes ahead.
const saneSkew = 4 * time.Minute

func newPeer(w *World, index int) *Peer {
	p := &Peer{w: w, index: index, dir: w.t.TempDir(), store: storetest.NewCrashable(w.rng.Uint64())}
	p.opts = cantest.Options{Seed: w.rng.Uint64(), Now: p.Now}
	p.opts.Rule = []cantest.HashRule{cantest.HashContent, cantest.HashTimestamp, cantest.HashRandom}[w.rng.IntN(3)]
	p.opts.Lacks = []cantest.Features{
		0, cantest.FeatureChanges, cantest.FeatureEvents | cantest.FeatureChangeEvents,
		cantest.FeatureEvents | cantest.FeatureChangeEvents | cantest.FeatureChanges | cantest.FeatureRange | cantest.FeatureMeta,
	}[w.rng.IntN(4)]
	if w.o.Service != nil {
		w.o.Service(index, &p.opts)
	}
	p.svc = cantest.New(p.opts)
	return p
}

// Index is the peer's number in the world, from 0.
func (p *Peer) Index() int { return p.index }

// ID is the peer's identity.
func (p *Peer) ID() transport.PeerID { return p.id }

// Service is the peer's CAN Service. It stays the same over restarts.
func (p *Peer) Service() *cantest.Service { return p.svc }

// Node is the node of the peer, or nil while it is down. A restart makes another.
func (p *Peer) Node() *cansync.Node { return p.node }

// Library is the world's library on the peer, or nil while the peer is down or has
// not been told to join it.
func (p *Peer) Library() *cansync.Library {
	if p.node == nil {
		return nil
	}
	l, err := p.node.Library(p.w.lib)
	if err != nil {
		return nil
	}
	return l
}

// Now is the time by the clock of the peer's machine.
func (p *Peer) Now() time.Time { return time.Now().Add(time.Duration(p.skew.Load())) }

// SetSkew sets the machine's clock that much ahead of the true time. Timers are not
// affected, as on a real machine. A peer whose clock was ever off by more than four
// minutes is not expected by [World.Settle] and [World.Check] to agree with the
// others, until [Peer.Trust].
func (p *Peer) SetSkew(d time.Duration) {
	p.skew.Store(int64(d))
	p.worst = max(p.worst, d.Abs())
}

// Trust makes the world expect again of the peer what it expects of those whose
// clocks were always about right.
func (p *Peer) Trust() { p.worst = time.Duration(p.skew.Load()).Abs() }

func (p *Peer) sane() bool { return p.worst <= saneSkew }

// Start starts the node; what it kept from an earlier start is there again.
func (p *Peer) Start() {
	if p.node != nil {
		return
	}
	w := p.w
	p.start++
	p.client = p.svc
	if w.o.Client != nil {
		p.client = w.o.Client(p.svc)
	}
	cfg := cansync.Config{
		CAN: p.client, DataDir: p.dir, Store: p.store, Now: p.Now, Rand: newEntropy(w.seed, p.index, p.start),
		Transport: func(seed [32]byte) (transport.Transport, error) {
			h, err := w.net.host(p.index, seed)
			if err != nil {
				return nil, err
			}
			p.id, p.host = h.ID(), h
			return h.whole(), nil
		},
	}
	if w.o.Logger != nil {
		cfg.Logger = w.o.Logger(w.t, p.index)
	}
	if w.o.Configure != nil {
		w.o.Configure(p.index, &cfg)
	}
	n, err := cansync.New(w.t.Context(), cfg)
	require.NoError(w.t, err, "start of peer %d", p.index)
	p.node = n
}

// Stop closes the node in good order.
func (p *Peer) Stop() {
	if p.node == nil {
		return
	}
	require.NoError(p.w.t, p.node.Close(), "close of peer %d", p.index)
	p.down()
}

// Restart is Stop and Start, and counts as a fault.
func (p *Peer) Restart() {
	if p.node == nil {
		return
	}
	p.Stop()
	p.Start()
	p.w.counts.add(Restart, 1)
}

// Crash cuts the machine's power in the middle of the commit that follows k more,
// or half a minute later, whichever is first. The CAN Service, which keeps its own
// data, is not affected. The peer is down afterwards.
func (p *Peer) Crash(k int) {
	if p.node == nil {
		return
	}
	p.store.CrashAfter(k)
	for range 30 {
		if p.store.Crashed() {
			break
		}
		p.w.Sleep(time.Second)
	}
	up := p.store.Crash()
	p.w.net.Crash(p.index)
	// What remains of the process can't reach its store or its peers any more; its
	// complaints are of no interest.
	if err := p.node.Close(); err != nil && !errors.Is(err, store.ErrClosed) {
		p.w.t.Logf("peer %d: %v", p.index, err)
	}
	p.store = up
	p.down()
	p.w.counts.add(Crash, 1)
}

func (p *Peer) down() {
	p.node, p.host = nil, nil
	if c, ok := p.client.(io.Closer); ok && p.client != can.Client(p.svc) {
		require.NoError(p.w.t, c.Close(), "close of the client of peer %d", p.index)
	}
	p.client = nil
}

// entropy is a seeded source for keys and nonces. It is safe for concurrent use.
type entropy struct {
	mu sync.Mutex
	r  *rand.ChaCha8
}

func newEntropy(seed uint64, peer, start int) *entropy {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	binary.LittleEndian.PutUint64(key[8:], uint64(peer))
	binary.LittleEndian.PutUint64(key[16:], uint64(start))
	return &entropy{r: rand.NewChaCha8(key)}
}

// Read implements io.Reader.
func (e *entropy) Read(b []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.r.Read(b)
}
