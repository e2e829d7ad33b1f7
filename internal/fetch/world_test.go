package fetch

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/ingest"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/keyring"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/transfer"
	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/store/memory"
	"github.com/cansync/cansync/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// source is what the peers of the node have.
type source struct {
	mu       sync.Mutex
	contents map[can.Digest][]byte
	away     bool // no peer is connected
	bad      map[can.Digest]bool
	full     bool
	slow     time.Duration // how long each content takes
	faults   float64       // probability that a peer fails
	faulted  int
	hold     chan struct{} // large contents stop half way until it is closed
	rng      *mrand.Rand
	got      map[can.Digest]int
	open     int
}

var errPeer = errors.New("the peer fails")

func newSource() *source {
	return &source{
		contents: map[can.Digest][]byte{}, bad: map[can.Digest]bool{}, got: map[can.Digest]int{},
		rng: mrand.New(mrand.NewPCG(1, 2)),
	}
}

func (s *source) get(d can.Digest) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.away:
		return nil, &transfer.FetchError{Kind: transfer.ErrNoPeer}
	case s.full:
		s.faulted++
		return nil, transfer.ErrNoSpace
	case s.bad[d]:
		s.faulted++
		return nil, transfer.ErrBadContent
	case s.rng.Float64() < s.faults:
		s.faulted++
		return nil, &transfer.FetchError{Kind: transfer.ErrNoPeer, Peers: []*transfer.PeerError{{Err: errPeer}}}
	}
	b, ok := s.contents[d]
	if !ok {
		return nil, &transfer.FetchError{Kind: transfer.ErrNotServed, Peers: []*transfer.PeerError{{Err: transfer.ErrNotServed}}}
	}
	s.got[d]++
	return b, nil
}

func (s *source) faultCount() (n int) {
	s.set(func() { n = s.faulted })
	return n
}

func (s *source) set(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn()
}

func (s *source) linger(ctx context.Context) {
	var d time.Duration
	if s.set(func() { d = s.slow }); d > 0 {
		wait(ctx, d)
	}
}

func (s *source) Small(ctx context.Context, w transfer.Want) ([]byte, error) {
	if w.Size > transfer.SmallLimit {
		return nil, transfer.ErrTooLarge
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.linger(ctx)
	return s.get(w.Asset)
}

func (s *source) Large(ctx context.Context, w transfer.Want, progress func(done, total int64), _ func(Early)) (Content, error) {
	s.linger(ctx)
	b, err := s.get(w.Asset)
	if err != nil {
		return nil, err
	}
	progress(int64(len(b)/2), int64(len(b)))
	s.mu.Lock()
	hold := s.hold
	s.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	progress(int64(len(b)), int64(len(b)))
	s.set(func() { s.open++ })
	return &staged{s: s, b: b}, nil
}

type staged struct {
	s    *source
	b    []byte
	once sync.Once
}

func (c *staged) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(c.b)), nil }
func (c *staged) Outboard() (*io.SectionReader, error) {
	tree := blob.Sum(c.b).Outboard
	return io.NewSectionReader(bytes.NewReader(tree), 0, int64(len(tree))), nil
}
func (c *staged) Discard() error { return c.Close() }
func (c *staged) Close() error {
	c.once.Do(func() { c.s.set(func() { c.s.open-- }) })
	return nil
}

// shared is a library with an author elsewhere.
type shared struct {
	t      testing.TB
	keys   keyring.Library
	device capability.Device
	store  store.Store
	author *library.Library
	mu     sync.Mutex
	recs   []replica.Applied // all that the author said
}

func (s *shared) open(st store.Store) *library.Library {
	lib, err := library.Open(s.t.Context(), library.Options{
		Keys: s.keys, Device: s.device, Rand: rand.Reader, Met: true,
		Replica: replica.Options{Store: st, Verifier: record.NewVerifier(0), Now: time.Now, Rand: rand.Reader},
	})
	require.NoError(s.t, err)
	return lib
}

func newShared(t testing.TB, del control.Delete) *shared {
	device, err := capability.NewDevice(rand.Reader)
	require.NoError(t, err)
	s := &shared{t: t, device: device, store: memory.New()}
	s.keys, err = library.Create("lib", device, rand.Reader)
	require.NoError(t, err)
	s.author = s.open(s.store)
	s.author.Observe(func(ap replica.Applied) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.recs = append(s.recs, ap)
	})
	require.NoError(t, s.author.Describe(t.Context(), control.Description{Name: "lib", Delete: del}))
	return s
}

func (s *shared) close() {
	require.NoError(s.t, s.author.Close())
	require.NoError(s.t, s.store.Close())
}

func (s *shared) refilter(f filter.Filter) {
	d, _ := s.author.Description()
	d.Filter = f
	draft, err := control.NewDescription(0, s.author.ID(), s.author.Grant().ID, d)
	require.NoError(s.t, err)
	require.NoError(s.t, s.author.Say(s.t.Context(), draft))
}

// pass gives the node what the author said.
func (s *shared) pass(to *library.Library) {
	s.mu.Lock()
	recs := s.recs
	s.recs = nil
	s.mu.Unlock()
	for _, ap := range recs {
		for i := 0; i < len(ap.Records); i += 256 {
			_, err := to.Apply(s.t.Context(), ap.Records[i:min(i+256, len(ap.Records))], transport.PeerID{1})
			require.NoError(s.t, err)
		}
	}
}

func bodyOf(b []byte, n int) (can.Digest, record.AssetBody) {
	sum := blob.Sum(b)
	return sum.Digest, record.AssetBody{
		Size: sum.Size, Root: sum.Root, Timestamp: 850_000_000_000 + int64(binary.BigEndian.Uint32(sum.Digest[:]))*10, MIMEType: "text/plain", Application: "app",
		User: "u", Description: fmt.Sprint("d ", n), Tags: []string{"z", "a"}, Filename: "f.txt", Path: "/p",
	}
}

func small(n int) []byte {
	return append(bytes.Repeat([]byte{byte(n)}, 10+n%3), fmt.Sprintf("content %06d", n)...)
}

func large(n int) []byte {
	b, err := io.ReadAll(cantest.Generated(uint64(n), transfer.SmallLimit+1+int64(n)))
	if err != nil {
		panic(err)
	}
	return b
}

// node is the node under test.
type node struct {
	t     testing.TB
	svc   *cantest.Service
	can   can.Client
	store store.Store
	src   *source
	lib   *library.Library
	inv   *inventory.Inventory
	ing   *ingest.Ingester
	f     *Fetcher
	with  func(*Config)

	mu     sync.Mutex
	events []Event
}

func newNode(t testing.TB, o cantest.Options) *node {
	n := &node{t: t, svc: cantest.New(o), store: memory.New(), src: newSource()}
	n.can = n.svc
	return n
}

// start begins, or begins again after stop.
func (n *node) start(libs ...*shared) {
	log := slog.New(slog.NewTextHandler(n.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	n.inv = inventory.New(n.store)
	n.ing = ingest.New(ingest.Config{Service: n.can, Inventory: n.inv, Logger: log})
	cfg := Config{Ingester: n.ing, Inventory: n.inv, Source: n.src, Logger: log, OnEvent: func(e Event) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.events = append(n.events, e)
	}}
	if n.with != nil {
		n.with(&cfg)
	}
	n.f = New(cfg)
	_, err := n.ing.Recover(n.t.Context())
	require.NoError(n.t, err)
	for i, s := range libs {
		lib := s.open(n.store)
		if i == 0 {
			n.lib = lib
		}
		n.t.Cleanup(func() { require.NoError(n.t, lib.Close()) })
		s.pass(lib)
		n.f.Add(lib)
	}
}

func (n *node) stop() {
	require.NoError(n.t, n.f.Close())
	require.NoError(n.t, n.ing.Close())
}

func (n *node) count(k Kind) (c int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.events {
		if e.Kind == k {
			c++
		}
	}
	return c
}

// say has the author announce contents, which the peers then have.
func (s *shared) say(n *node, kind record.Kind, contents ...[]byte) {
	for len(contents) > 0 {
		var drafts []record.Draft
		part := contents[:min(len(contents), 64)]
		contents = contents[len(part):]
		for i, b := range part {
			d, body := bodyOf(b, i)
			n.src.set(func() { n.src.contents[d] = b })
			draft, err := s.author.Announcement(kind, d, body)
			require.NoError(s.t, err)
			drafts = append(drafts, draft)
		}
		require.NoError(s.t, s.author.Say(s.t.Context(), drafts...))
	}
}

func (s *shared) edit(d can.Digest, body record.AssetBody) {
	draft, err := s.author.Announcement(record.Edit, d, body)
	require.NoError(s.t, err)
	require.NoError(s.t, s.author.Say(s.t.Context(), draft))
}

func (s *shared) remove(d can.Digest) {
	require.NoError(s.t, s.author.Say(s.t.Context(), s.author.Removal(d)))
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// until waits in steps of virtual time.
func until(t testing.TB, what string, limit time.Duration, ok func() bool) {
	t.Helper()
	for begun := time.Now(); !ok(); {
		if time.Since(begun) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
		wait(t.Context(), max(10*time.Millisecond, limit/5000))
	}
}

func (n *node) idle() bool { return n.lib.Counts().Queued == 0 }

func (n *node) work(d can.Digest) replica.Work {
	w, _, err := n.lib.Work(n.t.Context(), d)
	require.NoError(n.t, err)
	return w
}

func (n *node) local(d can.Digest) replica.Local {
	l, err := n.lib.Local(n.t.Context(), d)
	require.NoError(n.t, err)
	return l
}
