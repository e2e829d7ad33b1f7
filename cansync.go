// Package cansync replicates chosen assets between the CAN Services of several
// machines, peer to peer and encrypted.
//
// A [Node] sits beside one CAN Service. [New] starts it; [Node.CreateLibrary]
// makes a shared collection of the assets that match a [Filter];
// [Library.Invite] makes a [Ticket] that lets another node [Node.Join]. From then
// on both nodes announce what matches in their own services, fetch what the other
// announced, verify its SHA-256, and ingest it with all metadata. It works both
// ways, survives restarts, and needs no server.
//
//	node, err := cansync.New(ctx, cansync.Config{CAN: client, DataDir: "./can_sync_data"})
//	lib, err := node.CreateLibrary(ctx, "photos", cansync.Filter{MIMEPrefix: "image/"})
//	ticket, err := lib.Invite(ctx, cansync.InviteOptions{})
//
// The CAN Service is reached through the interfaces of package can, the database
// through those of package store and the network through those of package
// transport; each has a default and can be replaced.
//
// # Compatibility
//
// Records, tickets and the wire protocol carry versions, and a node refuses what
// it does not know rather than guess. The formats are in docs/protocol.md.
package cansync

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/announce"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/fetch"
	"github.com/cansync/cansync/internal/ingest"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/keyring"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/session"
	"github.com/cansync/cansync/internal/transfer"
	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/store/badger"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/libp2p"
)

// LibraryID identifies a library everywhere: it is a hash of the owner's public
// key.
type LibraryID [32]byte

// String returns 64 lower-case hexadecimal digits.
func (id LibraryID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText implements encoding.TextMarshaler.
func (id LibraryID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// ParseLibraryID is the inverse of [LibraryID.String]; errors match
// [ErrNoLibrary], since no library has such an id.
func ParseLibraryID(s string) (LibraryID, error) {
	d, err := can.ParseDigest(s)
	if err != nil {
		return LibraryID{}, fmt.Errorf("%w: %q is not 64 hexadecimal digits", ErrNoLibrary, clip(s))
	}
	return LibraryID(d), nil
}

// Node replicates libraries between one CAN Service and its peers. It is safe for
// concurrent use. Two nodes in one process do not notice each other.
type Node struct {
	cfg      Config
	log      *slog.Logger
	started  time.Time
	ring     *keyring.Ring
	store    store.Store
	ownStore *badger.Store // nil when the caller's is used
	stages   *os.Root      // nil without a data directory
	tr       transport.Transport
	inv      *inventory.Inventory
	verifier *record.Verifier
	events   *hub

	sessions  *session.Manager
	client    *transfer.Client
	server    *transfer.Server
	ingester  *ingest.Ingester
	fetcher   *fetch.Fetcher
	announcer *announce.Announcer

	limits limits
	flows  flows
	mender mender

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	ops    gate // passed by every call that uses the parts above

	change chan struct{} // holds a token while the set of libraries is not changing

	mu      sync.Mutex
	closed  bool
	limited Limits

	peerLimits map[transport.PeerID]Limits

	done chan struct{} // closed when Close is through
	libs map[LibraryID]*Library
}

// New starts a node. ctx bounds the start, not the node. The CAN Service need not
// be reachable. On error nothing is left behind but the data directory, and not even
// that where an address in Config.Listen can't be had. Errors match [ErrConfig],
// store.ErrLocked when another process uses the data directory, libp2p.ErrListen, or
// those of the parts.
func New(ctx context.Context, cfg Config) (_ *Node, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg: cfg, log: cfg.Logger, started: cfg.Now(), verifier: record.NewVerifier(0),
		events: newHub(cfg.Now), done: make(chan struct{}), libs: make(map[LibraryID]*Library),
		change: make(chan struct{}, 1),
	}
	n.change <- struct{}{}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			_ = n.Close()
		}
	}()
	if cfg.Transport == nil { // before anything is made
		if err := cfg.libp2p([32]byte{}).CheckListen(); err != nil {
			return nil, err
		}
	}
	if err := n.openState(); err != nil {
		return nil, err
	}
	if err := n.openTransport(); err != nil {
		return nil, err
	}
	if err := n.events.load(ctx, n.store); err != nil {
		return nil, err
	}
	n.inv = inventory.New(n.store)
	if err := n.reprieveAll(ctx); err != nil {
		n.log.Warn("records of libraries without keys not dropped", "error", err)
	}
	n.wg.Go(func() {
		n.events.run(n.store, func(err error) { n.log.Warn("events not kept", "error", err) })
	})
	n.start(ctx)
	for _, keys := range n.ring.Libraries() {
		switch keys.State {
		case keyring.Active:
			_, err = n.open(ctx, keys)
		case keyring.Joining:
			err = n.resumeJoin(keys)
		}
		if err != nil {
			return nil, fmt.Errorf("library %s: %w", hex.EncodeToString(keys.ID[:4]), err)
		}
	}
	n.wg.Go(n.tidy)
	n.wg.Go(n.watchClock)
	return n, nil
}

// tidy clears up what an earlier process left unfinished.
func (n *Node) tidy() {
	if found, err := n.ingester.Recover(n.ctx); err != nil && n.ctx.Err() == nil {
		n.log.Warn("unfinished ingests not looked into", "error", err)
	} else if found > 0 {
		n.log.Info("ingests of an earlier start had succeeded", "assets", found)
	}
	if stages, bytes, err := n.fetcher.Sweep(n.ctx); err != nil && n.ctx.Err() == nil {
		n.log.Warn("staging folder not swept", "error", err)
	} else if stages > 0 {
		n.log.Info("staged contents that nobody wants removed", "contents", stages, "bytes", bytes)
	}
}

// openState opens keys, store and staging folder.
func (n *Node) openState() (err error) {
	dir := n.cfg.DataDir
	if dir == "" {
		n.ring, err = keyring.Memory(n.cfg.Rand)
	} else {
		n.ring, err = keyring.Open(dir, n.cfg.Rand)
	}
	if err != nil {
		return fmt.Errorf("open keys: %w", err)
	}
	if n.store = n.cfg.Store; n.store == nil {
		n.ownStore, err = badger.Open(filepath.Join(dir, "db"), badger.Options{Logger: n.log, Reserve: uint64(n.cfg.DiskReserve)})
		if err != nil {
			return fmt.Errorf("open store: %w", err)
		}
		n.store = n.ownStore
	}
	if dir != "" {
		if n.stages, err = blob.OpenStageDir(filepath.Join(dir, "stage")); err != nil {
			return fmt.Errorf("open staging folder: %w", err)
		}
	}
	return nil
}

func (n *Node) openTransport() error {
	seed := n.ring.Device().Seed()
	open := n.cfg.Transport
	if open == nil {
		open = func(seed [32]byte) (transport.Transport, error) {
			t, err := libp2p.New(n.cfg.libp2p(seed))
			if err != nil {
				return nil, err // not a nil pointer in an interface
			}
			return t, nil
		}
	}
	t, err := open(seed)
	if err != nil {
		return fmt.Errorf("open transport: %w", err)
	}
	n.tr = t
	if t.ID() != n.ring.Device().PeerID() {
		return fmt.Errorf("%w: Transport: its peer id is not that of the device key", ErrConfig)
	}
	return nil
}

// start starts the machinery.
func (n *Node) start(ctx context.Context) {
	n.limited = n.cfg.Limits
	n.limits.up.SetNode(n.limited.Upload)
	n.limits.down.SetNode(n.limited.Download)
	if err := n.inv.SweepOutboards(ctx); err != nil {
		n.log.Warn("what was left of unfinished trees could not be dropped", "err", err)
	}
	n.sessions = session.New(session.Config{
		Transport: n.tr, Device: n.ring.Device(), Store: n.store, Now: n.cfg.Now, Rand: n.cfg.Rand,
		Logger: n.log, OnPeer: n.onPeer,
	})
	n.client = transfer.NewClient(transfer.ClientConfig{
		Network: n.sessions, Stages: n.stages, Now: n.cfg.Now, Logger: n.log,
		Limit: &n.limits.down, OnReceived: n.onReceived, OnLiar: n.onLiar,
	})
	n.server = transfer.NewServer(transfer.ServerConfig{
		Service: n.cfg.CAN, Inventory: n.inv, Library: n.replicated, Logger: n.log, OnCorrupt: n.onCorrupt,
		Limit: &n.limits.up, OnSent: n.onSent,
	})
	n.sessions.Serve(session.ProtoBlob, n.server.Serve)
	n.ingester = ingest.New(ingest.Config{
		Service: n.cfg.CAN, Inventory: n.inv, Now: n.cfg.Now, Logger: n.log,
	})
	n.announcer = announce.New(announce.Config{
		Client: n.cfg.CAN, Inventory: n.inv, Now: n.cfg.Now, Logger: n.log,
		PollInterval: n.cfg.PollInterval, FullScanInterval: n.cfg.FullScanInterval,
		OnHealth: n.onHealth, OnHeld: n.onHeld, OnEvent: n.onAnnounce,
	})
	fc := fetch.Config{
		Ingester: n.ingester, Inventory: n.inv, Source: fetch.From(n.client), Now: n.cfg.Now, Logger: n.log,
		Stages: n.stages, OnEvent: n.onFetch, Ready: n.announcer.Scanned(), Unread: n.unread,
	}
	if sp, ok := n.store.(store.SpaceReporter); ok && n.stages != nil {
		if _, reserve, err := sp.Space(); err == nil {
			fc.Reserve = max(reserve, uint64(n.cfg.DiskReserve))
			fc.Space = func() (uint64, error) {
				free, _, err := sp.Space()
				return free, err
			}
		}
	}
	n.fetcher = fetch.New(fc)
}

// Close stops the node and waits until nothing of it runs any more. What was
// under way goes on at the next start. It may be called several times, and each
// call waits; afterwards every method returns [ErrClosed].
func (n *Node) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		<-n.done
		return nil
	}
	n.closed = true
	n.mu.Unlock()
	defer close(n.done)
	n.ops.close()
	n.cancel()
	n.events.close()

	var errs []error
	shut := func(what string, c interface{ Close() error }) {
		if err := c.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", what, err))
		}
	}
	// First what asks, then what answers, then what both stand on.
	if n.announcer != nil {
		shut("announcer", n.announcer)
	}
	if n.fetcher != nil {
		shut("fetcher", n.fetcher)
	}
	if n.ingester != nil {
		shut("ingester", n.ingester)
	}
	if n.client != nil {
		shut("transfers", n.client)
	}
	if n.sessions != nil {
		shut("sessions", n.sessions)
	}
	if n.server != nil {
		shut("server", n.server)
	}
	n.wg.Wait()
	<-n.ops.close()
	n.mu.Lock()
	libs := n.libs
	n.libs = nil
	n.mu.Unlock()
	for _, l := range libs {
		if l.l != nil {
			shut("library", l.l)
		}
	}
	if n.tr != nil {
		shut("transport", n.tr)
	}
	if n.ownStore != nil {
		shut("store", n.ownStore)
	}
	if n.stages != nil {
		shut("staging folder", n.stages)
	}
	if n.ring != nil {
		shut("keys", n.ring)
	}
	return errors.Join(errs...)
}

// use admits a call while the node is open; the caller calls the function it
// returns when it is through.
func (n *Node) use() (func(), error) {
	if !n.ops.enter() {
		return nil, ErrClosed
	}
	return n.ops.leave, nil
}

// PeerID returns the node's identity, which it keeps for good.
func (n *Node) PeerID() transport.PeerID { return n.ring.Device().PeerID() }

// Addrs returns the addresses under which others may reach the node now.
func (n *Node) Addrs() []string {
	done, err := n.use()
	if err != nil {
		return nil
	}
	defer done()
	return n.tr.Addrs()
}

// Libraries returns the node's libraries, ordered by name and id; those that are
// being joined are among them.
func (n *Node) Libraries() []*Library {
	n.mu.Lock()
	out := make([]*Library, 0, len(n.libs))
	for _, l := range n.libs {
		out = append(out, l)
	}
	n.mu.Unlock()
	names := make(map[*Library]string, len(out))
	for _, l := range out {
		names[l] = l.Name()
	}
	slices.SortFunc(out, func(a, b *Library) int {
		if x, y := names[a], names[b]; x != y {
			if x < y {
				return -1
			}
			return 1
		}
		return slices.Compare(a.id[:], b.id[:])
	})
	return out
}

// Library returns one library; the error matches [ErrNoLibrary].
func (n *Node) Library(id LibraryID) (*Library, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, ErrClosed
	}
	if l := n.libs[id]; l != nil {
		return l, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrNoLibrary, id)
}

// replicated returns a library that the node is a member of.
func (n *Node) replicated(id [32]byte) (*library.Library, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if l := n.libs[id]; l != nil && l.l != nil {
		return l.l, true
	}
	return nil, false
}

// Learn tells the node addresses of peers that it may not know.
func (n *Node) Learn(peers ...transport.PeerInfo) error {
	done, err := n.use()
	if err != nil {
		return err
	}
	defer done()
	n.sessions.Learn(peers...)
	return nil
}

// Poll makes the node look for new assets at once, for hosts that know of a
// change before their service tells.
func (n *Node) Poll() {
	if done, err := n.use(); err == nil {
		defer done()
		n.announcer.Poke()
	}
}

// Version returns the version of the cansync module in the running program, or
// "devel".
func Version() string { return version() }

// version reads the build information once, which takes longer than a status.
var version = sync.OnceValue(func() string {
	const module = "github.com/cansync/cansync"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
			if m.Path == module && m.Version != "" && m.Version != "(devel)" {
				return m.Version
			}
		}
	}
	return "devel"
})
