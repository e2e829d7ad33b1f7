package session_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"maps"
	mrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/keyring"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/session"
	smemory "github.com/cansync/cansync/store/memory"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
)

// node is a device with a session manager and its libraries, the last of which the
// helpers speak of.
type node struct {
	t      testing.TB
	device capability.Device
	tr     transport.Transport
	m      *session.Manager
	store  *smemory.Store
	rand   io.Reader
	lib    *library.Library
	libs   []*library.Library

	mu   sync.Mutex
	new  map[record.ID]int // how often a record was new to the replica
	ups  map[transport.PeerID]int
	up   map[transport.PeerID]int // places in force, as OnPeer tells
	bad  int                      // calls of OnPeer out of order
	sent []transport.Stream       // sync streams that the node opened
	told int                      // hellos that the node opened
	has  map[can.Digest]bool      // contents that its CAN Service holds
	hits int                      // calls of OnFound
	got  []transport.Stream       // sync streams that others opened
	rnds int                      // reconciliations of the assets

	onPresent func() // called when a content is looked up

	mute  atomic.Bool  // answers about contents are lost
	muted atomic.Int64 // so many
}

// tapped is a transport that keeps the sync streams that are opened.
type tapped struct {
	transport.Transport
	n *node
}

func (tr tapped) Open(ctx context.Context, p transport.PeerInfo, proto string, o transport.OpenOptions) (transport.Stream, error) {
	st, err := tr.Transport.Open(ctx, p, proto, o)
	tr.n.mu.Lock()
	defer tr.n.mu.Unlock()
	switch {
	case proto == protoHello:
		tr.n.told++
	case err == nil && proto == protoSync:
		tr.n.sent = append(tr.n.sent, st)
		return lossy{st, tr.n}, nil
	}
	return st, err
}

// lossy is a sync stream on which answers about contents may be lost.
type lossy struct {
	transport.Stream
	n *node
}

func (l lossy) Write(b []byte) (int, error) {
	if len(b) > 4 && b[4] == 9 && l.n.mute.Load() {
		l.n.muted.Add(1)
		return len(b), nil
	}
	return l.Stream.Write(b)
}

// seeded yields the same bytes in each run of the test.
type seeded struct {
	mu  sync.Mutex
	rng *mrand.ChaCha8
}

func newSeeded(t testing.TB, n int) *seeded {
	return &seeded{rng: mrand.NewChaCha8(sha256.Sum256(fmt.Append(nil, t.Name(), n)))}
}

func (s *seeded) Read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.Read(b)
}

func (tr tapped) Handle(proto string, fn func(transport.Stream)) {
	if proto == protoSync && fn != nil {
		inner := fn
		fn = func(st transport.Stream) {
			tr.n.mu.Lock()
			tr.n.got = append(tr.n.got, st)
			tr.n.mu.Unlock()
			inner(lossy{st, tr.n})
		}
	}
	tr.Transport.Handle(proto, fn)
}

func newNode(t testing.TB, net *memory.Network, degree int) *node {
	return newNodeFrom(t, net, degree, rand.Reader)
}

func newNodeFrom(t testing.TB, net *memory.Network, degree int, rand io.Reader) *node {
	d, err := capability.NewDevice(rand)
	require.NoError(t, err)
	n := &node{
		t: t, device: d, store: smemory.New(), rand: rand, new: make(map[record.ID]int), has: make(map[can.Digest]bool),
		ups: make(map[transport.PeerID]int), up: make(map[transport.PeerID]int),
	}
	n.tr = tapped{net.Host(d.PeerID()), n}
	n.m = session.New(session.Config{
		Transport: n.tr, Device: d, Store: n.store, Now: time.Now, Rand: rand, Degree: degree,
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})).With("node", d.PeerID().Short()),
		OnPeer: func(_ [32]byte, p transport.PeerID, up bool) {
			n.mu.Lock()
			defer n.mu.Unlock()
			if up {
				n.ups[p]++
				n.up[p]++
			} else if n.up[p]--; n.up[p] < 0 {
				n.bad++
			}
		},
	})
	return n
}

func (n *node) close() {
	require.NoError(n.t, n.m.Close())
	for _, l := range n.libs {
		require.NoError(n.t, l.Close())
	}
	require.NoError(n.t, n.tr.Close())
	require.NoError(n.t, n.store.Close())
	n.mu.Lock()
	bad, ups := n.bad, maps.Clone(n.up)
	n.mu.Unlock()
	require.Zero(n.t, bad, "an end was told before its beginning")
	for _, up := range ups {
		require.Zero(n.t, up, "every end was told")
	}
}

// counts returns how often each record was new.
func (n *node) counts() map[record.ID]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.new)
}

// came returns how often a library began to be shared with each peer.
func (n *node) came() map[transport.PeerID]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.ups)
}

func closeAll(nodes ...*node) {
	for _, n := range nodes {
		n.close()
	}
}

func (n *node) open(keys keyring.Library) *library.Library {
	lib, err := library.Open(n.t.Context(), library.Options{
		Keys: keys, Device: n.device, Rand: n.rand,
		Replica: replica.Options{Store: n.store, Verifier: record.NewVerifier(0), Now: time.Now, Rand: n.rand},
		Present: func(_ context.Context, d can.Digest) (bool, error) {
			n.mu.Lock()
			has, fn := n.has[d], n.onPresent
			n.mu.Unlock()
			if fn != nil {
				fn()
			}
			return has, nil
		},
	})
	require.NoError(n.t, err)
	lib.Observe(func(ap replica.Applied) {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, r := range ap.Records {
			n.new[r.ID()]++
		}
	})
	n.mu.Lock()
	n.lib, n.libs = lib, append(n.libs, lib)
	n.mu.Unlock()
	return lib
}

func (n *node) library() *library.Library {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lib
}

func (n *node) create(name string) {
	keys, err := library.Create(name, n.device, n.rand)
	require.NoError(n.t, err)
	lib := n.open(keys)
	require.NoError(n.t, lib.Describe(n.t.Context(), control.Description{Name: name, Filter: filter.Filter{}}))
	n.m.Add(n.shared(lib))
}

// shared returns a library for the manager.
func (n *node) shared(lib *library.Library) *session.Library {
	s := lib.Session(func(transport.PeerID) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.rnds++
	})
	s.OnFound = func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.hits++
	}
	return s
}

func (n *node) rounds() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rnds
}

func (n *node) found() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hits
}

// hellos returns how many hellos the nodes opened.
func hellos(nodes []*node) (sum int) {
	for _, n := range nodes {
		n.mu.Lock()
		sum += n.told
		n.mu.Unlock()
	}
	return sum
}

func (n *node) linked() map[transport.PeerID]bool {
	out := make(map[transport.PeerID]bool)
	for _, p := range n.m.Peers(n.lib.ID()) {
		out[p.ID] = true
	}
	return out
}

func (n *node) invite(o capability.InviteOptions) capability.Ticket {
	o.Rights |= capability.Read | capability.Write
	tk, err := n.library().Invite(n.t.Context(), o, []transport.PeerInfo{{ID: n.tr.ID(), Addrs: n.tr.Addrs()}})
	require.NoError(n.t, err)
	return tk
}

func (n *node) join(tk capability.Ticket) {
	n.m.Join(&session.Joining{
		Ticket: tk,
		Joined: func(g capability.Grant, k capability.EpochKeys, b capability.Bundle) error {
			n.m.Add(n.shared(n.open(keyring.Library{
				ID: g.Library, State: keyring.Active, Lasting: k.Lasting, Bundle: b.Encode(), Cert: g.ID,
				Epochs: []keyring.Epoch{{Number: k.Epoch, Secret: k.Secret}},
			})))
			return nil
		},
		Refused: func(err error) { n.t.Error("refused:", err) },
	})
}

// say announces an asset.
func (n *node) say(name string) {
	d := can.Digest(sha256.Sum256([]byte(name)))
	draft, err := n.lib.Announcement(record.Announce, d, record.AssetBody{Size: 1, Root: [32]byte{1}, MIMEType: "text/plain"})
	require.NoError(n.t, err)
	require.NoError(n.t, n.lib.Say(n.t.Context(), draft))
}

func (n *node) live() int64 {
	if lib := n.library(); lib != nil {
		return lib.Counts().Live
	}
	return -1
}

func (n *node) links() int {
	if lib := n.library(); lib != nil {
		return len(n.m.Peers(lib.ID()))
	}
	return 0
}

// await waits up to the given time, virtual in a bubble.
func await(t testing.TB, most time.Duration, what string, ok func() bool) {
	t.Helper()
	const step = 500 * time.Millisecond
	for range most/step + 1 {
		synctest.Wait()
		if ok() {
			return
		}
		time.Sleep(step)
	}
	require.FailNow(t, "not in time: "+what)
}

func all(nodes []*node, ok func(*node) bool) bool {
	for _, n := range nodes {
		if !ok(n) {
			return false
		}
	}
	return true
}

// crowd makes a library and its members, who join by one ticket. Their keys, and so
// the weights by which they choose neighbours, are the same in each run.
func crowd(t testing.TB, net *memory.Network, size, degree int) []*node {
	nodes := []*node{newNodeFrom(t, net, degree, newSeeded(t, 0))}
	nodes[0].create("photos")
	tk := nodes[0].invite(capability.InviteOptions{RedeemBy: time.Now().Add(240 * time.Hour)})
	for i := range size - 1 {
		n := newNodeFrom(t, net, degree, newSeeded(t, i+1))
		n.join(tk)
		nodes = append(nodes, n)
	}
	await(t, 10*time.Minute, fmt.Sprintf("%d members know each other", size), func() bool {
		return all(nodes, func(n *node) bool { return n.library() != nil && len(n.lib.Members()) == size && n.links() > 0 })
	})
	return nodes
}

func ids(nodes []*node) (out []transport.PeerID) {
	for _, n := range nodes {
		out = append(out, n.tr.ID())
	}
	return out
}
