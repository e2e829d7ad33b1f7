package transfer

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/keyring"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/session"
	"github.com/cansync/cansync/store"
	smemory "github.com/cansync/cansync/store/memory"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a device with a service, a server and a client.
type node struct {
	t      testing.TB
	device capability.Device
	tr     transport.Transport
	m      *session.Manager
	store  store.Store
	can    *cantest.Service
	inv    *inventory.Inventory
	server *Server
	client *Client
	liars  atomic.Int64
	rotten atomic.Int64
	limit  Limiter // of what is sent

	mu     sync.Mutex
	libs   []*library.Library
	blamed []transport.PeerID
}

type nodeOptions struct {
	can    cantest.Options
	store  func(store.Store) store.Store // around the node's
	client func(*ClientConfig)
	server func(*ServerConfig)
}

func newNode(t testing.TB, tr func(capability.Device) transport.Transport, o nodeOptions) *node {
	d, err := capability.NewDevice(rand.Reader)
	require.NoError(t, err)
	n := &node{t: t, device: d, tr: tr(d), store: smemory.New(), can: cantest.New(o.can)}
	if o.store != nil {
		n.store = o.store(n.store)
	}
	n.inv = inventory.New(n.store)
	level := slog.LevelInfo
	if _, ok := t.(*testing.B); ok {
		level = slog.LevelError
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level})).With("node", d.PeerID().Short())
	n.m = session.New(session.Config{Transport: n.tr, Device: d, Store: n.store, Now: time.Now, Rand: rand.Reader, Logger: log})
	sc := ServerConfig{
		Service: n.can, Inventory: n.inv, Library: n.library, Limit: &n.limit, Logger: log,
		OnCorrupt: func(string, can.Digest) { n.rotten.Add(1) },
	}
	if o.server != nil {
		o.server(&sc)
	}
	n.server = NewServer(sc)
	n.m.Serve(session.ProtoBlob, n.server.Serve)
	cc := ClientConfig{Network: n.m, Now: time.Now, Logger: log, OnLiar: func(p transport.PeerID) {
		n.liars.Add(1)
		n.mu.Lock()
		n.blamed = append(n.blamed, p)
		n.mu.Unlock()
	}}
	if o.client != nil {
		o.client(&cc)
	}
	n.client = NewClient(cc)
	t.Cleanup(n.close)
	return n
}

// memoryNode is a node on an in-memory network.
func memoryNode(t testing.TB, net *memory.Network, o nodeOptions) *node {
	return newNode(t, func(d capability.Device) transport.Transport { return net.Host(d.PeerID()) }, o)
}

func (n *node) library(id [32]byte) (*library.Library, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.libs {
		if l.ID() == id {
			return l, true
		}
	}
	return nil, false
}

func (n *node) close() {
	require.NoError(n.t, n.client.Close())
	require.NoError(n.t, n.server.Close())
	require.NoError(n.t, n.m.Close())
	for _, l := range n.libs {
		require.NoError(n.t, l.Close())
	}
	require.NoError(n.t, n.tr.Close())
	require.NoError(n.t, n.store.Close())
	require.NoError(n.t, n.can.Close())
}

func (n *node) open(keys keyring.Library) *library.Library {
	lib, err := library.Open(context.Background(), library.Options{
		Keys: keys, Device: n.device, Rand: rand.Reader,
		Replica: replica.Options{Store: n.store, Verifier: record.NewVerifier(0), Now: time.Now, Rand: rand.Reader},
	})
	require.NoError(n.t, err)
	n.mu.Lock()
	n.libs = append(n.libs, lib)
	n.mu.Unlock()
	return lib
}

func (n *node) create(name string) *library.Library {
	keys, err := library.Create(name, n.device, rand.Reader)
	require.NoError(n.t, err)
	lib := n.open(keys)
	require.NoError(n.t, lib.Describe(context.Background(), control.Description{Name: name}))
	n.m.Add(lib.Session(nil))
	return lib
}

// join makes n a member of a library of another node and waits until they share it.
func (n *node) join(from *node, lib *library.Library) *library.Library {
	tk, err := lib.Invite(context.Background(),
		capability.InviteOptions{Rights: capability.Read | capability.Write | capability.Invite, RedeemBy: time.Now().Add(time.Hour)},
		[]transport.PeerInfo{{ID: from.tr.ID(), Addrs: from.tr.Addrs()}})
	require.NoError(n.t, err)
	var joined atomic.Pointer[library.Library]
	n.m.Join(&session.Joining{
		Ticket: tk,
		Joined: func(g capability.Grant, k capability.EpochKeys, b capability.Bundle) error {
			l := n.open(keyring.Library{
				ID: g.Library, State: keyring.Active, Lasting: k.Lasting, Bundle: b.Encode(), Cert: g.ID,
				Epochs: []keyring.Epoch{{Number: k.Epoch, Secret: k.Secret}},
			})
			n.m.Add(l.Session(nil))
			joined.Store(l)
			return nil
		},
		Refused: func(err error) { n.t.Error("refused:", err) },
	})
	n.settle(from, lib.ID(), func() bool { return joined.Load() != nil })
	return joined.Load()
}

// settle waits until two nodes share a library for good: when both have dialled, the
// newer session takes over, and for a moment nobody is there.
func (n *node) settle(with *node, lib [32]byte, ok func() bool) {
	var since time.Time
	await(n.t, "two share a library", func() bool {
		if !ok() || !shares(n, lib, with) || !shares(with, lib, n) {
			since = time.Time{}
			return false
		}
		if since.IsZero() {
			since = time.Now()
		}
		return time.Since(since) >= time.Second
	})
}

func shares(n *node, lib [32]byte, with *node) bool {
	for _, p := range n.m.Peers(lib) {
		if p.ID == with.tr.ID() {
			return true
		}
	}
	return false
}

// await waits in virtual or real time.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 10_000 {
		if ok() {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	require.FailNow(t, "never happened: "+what)
}

// hold puts a content into the node's service and inventory, and returns its hashes.
func (n *node) hold(data []byte) blob.Summary {
	sum := blob.Sum(data)
	a := n.can.Add(data, can.Metadata{})
	n.know(a, sum)
	return sum
}

func (n *node) know(a can.Asset, sum blob.Summary) {
	ctx := context.Background()
	require.NoError(n.t, n.inv.PutOutboard(ctx, sum.Digest, bytes.NewReader(sum.Outboard)))
	require.NoError(n.t, n.inv.Put(ctx, inventory.Item{Handle: a.Handle, Digest: sum.Digest, Root: sum.Root, Size: int64(sum.Size)}))
}

// announce publishes a record about a content, true or not, and returns the want.
func (n *node) announce(lib *library.Library, sum blob.Summary) Want {
	ctx := context.Background()
	draft, err := lib.Announcement(record.Announce, sum.Digest, record.AssetBody{Size: sum.Size, Root: sum.Root, Timestamp: 1})
	require.NoError(n.t, err)
	require.NoError(n.t, lib.Say(ctx, draft))
	e, err := lib.Entry(ctx, sum.Digest)
	require.NoError(n.t, err)
	return wantOf(lib.ID(), e)
}

func wantOf(lib [32]byte, e replica.Entry) Want {
	return Want{Library: lib, Record: e.ID(), Asset: e.Asset, Root: e.Body.Root, Size: e.Body.Size}
}

// knows waits until a node's library has the record of a want.
func knows(t testing.TB, lib *library.Library, ws ...Want) {
	t.Helper()
	await(t, "record arrives", func() bool {
		for _, w := range ws {
			if ok, err := lib.Has(context.Background(), w.Record, false); err != nil || !ok {
				return false
			}
		}
		return true
	})
}

// outboard reads the stored tree of a content.
func (n *node) outboard(d can.Digest) (tree []byte) {
	for i := 0; ; i++ {
		b, err := n.inv.OutboardChunkAt(context.Background(), d, i)
		require.NoError(n.t, err)
		if tree = append(tree, b...); len(b) < inventory.OutboardChunk {
			return tree
		}
	}
}

func random(t testing.TB, seed uint64, n int) []byte {
	b := make([]byte, n)
	_, err := mrand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)}).Read(b)
	require.NoError(t, err)
	return b
}

func readContent(t testing.TB, c *Content) []byte {
	r, err := c.Open()
	require.NoError(t, err)
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	return b
}

// stages lets a client stage on disk.
func stages(t testing.TB) (*os.Root, func(*ClientConfig)) {
	dir, err := os.OpenRoot(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { _ = dir.Close() })
	return dir, func(c *ClientConfig) { c.Stages = dir }
}

func leftovers(t testing.TB, dir *os.Root) (n int) {
	for _, err := range blob.Leftovers(dir) {
		require.NoError(t, err)
		n++
	}
	return n
}

// pair is a node that has contents and one that wants them.
func pair(t testing.TB, from, to nodeOptions) (a, b *node, lib *library.Library) {
	net := memory.NewNetwork(memory.Options{})
	a, b = memoryNode(t, net, from), memoryNode(t, net, to)
	lib = a.create("photos")
	b.join(a, lib)
	return a, b, lib
}

func inBubble(t *testing.T, fn func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, fn)
}
