package announce

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/store"
	smemory "github.com/cansync/cansync/store/memory"
)

// world is a service, a store, and an announcer between them.
type world struct {
	t      testing.TB
	svc    *cantest.Service
	client can.Client
	store  *smemory.Store
	inv    *inventory.Inventory
	device capability.Device
	a      *Announcer
	libs   []*library.Library
	// records is what libraries are kept in, other than store.
	records store.Store

	mu     sync.Mutex
	events []Event
	health []error
	held   map[[32]byte]int
}

func newWorld(t testing.TB, o cantest.Options) *world {
	d, err := capability.NewDevice(rand.Reader)
	require.NoError(t, err)
	w := &world{t: t, svc: cantest.New(o), store: smemory.New(), device: d, held: map[[32]byte]int{}}
	w.client, w.inv = w.svc, inventory.New(w.store)
	return w
}

func (w *world) start(change ...func(*Config)) {
	c := Config{
		Client: w.client, Inventory: w.inv,
		OnHealth: func(err error) { w.mu.Lock(); defer w.mu.Unlock(); w.health = append(w.health, err) },
		OnHeld:   func(l [32]byte, n int) { w.mu.Lock(); defer w.mu.Unlock(); w.held[l] = n },
		OnEvent:  func(e Event) { w.mu.Lock(); defer w.mu.Unlock(); w.events = append(w.events, e) },
	}
	for _, f := range change {
		f(&c)
	}
	w.a = New(c)
	for _, l := range w.libs {
		w.a.Add(l)
	}
}

func (w *world) restart() {
	require.NoError(w.t, w.a.Close())
	w.start()
}

// close also makes sure that the announcer never wrote to the service.
func (w *world) close() {
	if w.a != nil {
		require.NoError(w.t, w.a.Close())
	}
	for _, l := range w.libs {
		require.NoError(w.t, l.Close())
	}
	require.NoError(w.t, w.svc.Close())
	require.NoError(w.t, w.store.Close())
	require.Zero(w.t, w.svc.Writes())
}

// library makes a library of the node's own and adds it.
func (w *world) library(f filter.Filter) *library.Library {
	l := w.open(f, true)
	w.libs = append(w.libs, l)
	if w.a != nil {
		w.a.Add(l)
	}
	return l
}

func (w *world) open(f filter.Filter, met bool) *library.Library {
	keys, err := library.Create("library", w.device, rand.Reader)
	require.NoError(w.t, err)
	records := store.Store(w.store)
	if w.records != nil {
		records = w.records
	}
	l, err := library.Open(w.t.Context(), library.Options{
		Keys: keys, Device: w.device, Rand: rand.Reader, Met: met,
		Replica: replica.Options{Store: records, Verifier: record.NewVerifier(0), Now: time.Now, Rand: rand.Reader},
	})
	require.NoError(w.t, err)
	require.NoError(w.t, l.Describe(w.t.Context(), control.Description{Name: "library", Filter: f}))
	return l
}

func (w *world) add(text string, m can.Metadata) (can.Asset, can.Digest) {
	return w.svc.Add([]byte(text), m), can.Digest(sha256.Sum256([]byte(text)))
}

func (w *world) many(from, to int) {
	for i := from; i < to; i++ {
		w.add(fmt.Sprintf("content %d", i), can.Metadata{Tags: []string{fmt.Sprintf("t%d", i%3)}})
	}
}

func (w *world) entry(l *library.Library, d can.Digest) replica.Entry {
	e, err := l.Entry(w.t.Context(), d)
	require.NoError(w.t, err)
	return e
}

func (w *world) count(k EventKind) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.Kind == k {
			n++
		}
	}
	return n
}

func (w *world) reads() int { return w.svc.Calls()[cantest.RouteAsset] }

// settle lets a full scan and more go by.
func settle() {
	time.Sleep(11 * time.Minute)
	synctest.Wait()
}

func bubble(t *testing.T, fn func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, fn)
}

var _ io.Closer = (*Announcer)(nil)

// digest returns the digest of one of those that many adds.
func (w *world) digest(i int) can.Digest {
	return can.Digest(sha256.Sum256(fmt.Appendf(nil, "content %d", i)))
}

// failure returns the error of the last event of a failure.
func (w *world) failure() (err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.Kind == Failed {
			err = e.Err
		}
	}
	return err
}
