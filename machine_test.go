package cansync_test

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	smemory "github.com/cansync/cansync/store/memory"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
)

// machine is a CAN Service and, when it is up, the node beside it.
type machine struct {
	t     testing.TB
	name  string
	net   *memory.Network
	svc   *cantest.Service
	can   can.Client
	dir   string
	store *smemory.Store
	node  *cansync.Node
	level slog.Level
	wrap  func(transport.Transport) transport.Transport
}

func newMachine(t testing.TB, net *memory.Network, name string, o cantest.Options) *machine {
	m := &machine{t: t, name: name, net: net, svc: cantest.New(o), dir: t.TempDir(), store: smemory.New(), level: slog.LevelInfo}
	m.can = m.svc
	m.start()
	t.Cleanup(func() { running = slices.DeleteFunc(running, func(o *machine) bool { return o == m }) })
	running = append(running, m)
	return m
}

// running are the machines of the tests that are under way. Tests of this package
// do not run in parallel.
var running []*machine

// start starts the node; what it kept from an earlier start is there again.
func (m *machine) start() {
	n, err := cansync.New(m.t.Context(), cansync.Config{
		CAN: m.can, DataDir: m.dir, Store: m.store,
		Transport: func(seed [32]byte) (transport.Transport, error) {
			var tr transport.Transport = m.net.Host(capability.DeviceFromSeed(seed).PeerID())
			if m.wrap != nil {
				tr = m.wrap(tr)
			}
			return tr, nil
		},
		Logger: slog.New(slog.NewTextHandler(m.t.Output(), &slog.HandlerOptions{Level: m.level})).With("node", m.name),
	})
	require.NoError(m.t, err)
	m.node = n
}

func (m *machine) stop() {
	if m.node != nil {
		require.NoError(m.t, m.node.Close())
		m.node = nil
	}
}

func (m *machine) close() {
	m.stop()
	require.NoError(m.t, m.svc.Close())
}

func (m *machine) lib(id cansync.LibraryID) *cansync.Library {
	l, err := m.node.Library(id)
	require.NoError(m.t, err)
	return l
}

// share makes a library on m and lets the others join it.
func (m *machine) share(f cansync.Filter, others ...*machine) cansync.LibraryID {
	l, err := m.node.CreateLibrary(m.t.Context(), "shared", f)
	require.NoError(m.t, err)
	for _, o := range others {
		o.join(l)
	}
	return l.ID()
}

func (m *machine) join(l *cansync.Library) {
	tk, err := l.Invite(m.t.Context(), cansync.InviteOptions{})
	require.NoError(m.t, err)
	text, err := tk.ExportSecret()
	require.NoError(m.t, err)
	tk, err = cansync.ParseTicket(text)
	require.NoError(m.t, err)
	_, err = m.node.Join(m.t.Context(), tk)
	require.NoError(m.t, err)
}

// metadata returns what the service holds, by content.
func (m *machine) metadata() map[can.Digest]can.Metadata {
	out := make(map[can.Digest]can.Metadata)
	for offset := 0; ; {
		p, err := m.svc.List(m.t.Context(), can.ListOptions{Offset: offset, Order: can.Oldest})
		require.NoError(m.t, err)
		if len(p.Assets) == 0 {
			return out
		}
		offset += len(p.Assets)
		for _, a := range p.Assets {
			b, ok := m.svc.Content(a.Handle)
			require.True(m.t, ok)
			md := a.Metadata
			if len(md.Tags) == 0 {
				md.Tags = nil
			}
			out[digestOf(b)] = md
		}
	}
}

func (m *machine) handleOf(d can.Digest) string {
	for offset := 0; ; {
		p, err := m.svc.List(m.t.Context(), can.ListOptions{Offset: offset})
		require.NoError(m.t, err)
		require.NotEmpty(m.t, p.Assets, "content not there")
		offset += len(p.Assets)
		for _, a := range p.Assets {
			if b, _ := m.svc.Content(a.Handle); digestOf(b) == d {
				return a.Handle
			}
		}
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 1200 {
		synctest.Wait()
		if ok() {
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
	for _, m := range running {
		if m.t == t && m.node != nil {
			m.describe()
		}
	}
	require.FailNow(t, "never happened: "+what)
}

// describe logs how a machine is, for a test that failed.
func (m *machine) describe() {
	m.t.Logf("%s: %d assets in the service, %+v", m.name, m.svc.Len(), m.node.Status())
	for _, l := range m.node.Libraries() {
		s, err := l.Status(m.t.Context())
		m.t.Logf("  library %s: %+v %v", l.ID(), s, err)
		n := 0
		for a, err := range l.Assets(m.t.Context()) {
			if n++; a.State != cansync.Have && n < 500 || err != nil {
				m.t.Logf("    %s %s %s %s %v", a.Digest, a.State, a.Cause, a.Detail, err)
			}
		}
	}
}

// atRest checks that nothing moves any more: over an hour no service is written
// to, and the peers exchange no more than their regular small talk.
func atRest(t testing.TB, net *memory.Network, ms ...*machine) {
	t.Helper()
	time.Sleep(10 * time.Minute)
	synctest.Wait()
	var writes []int
	for _, m := range ms {
		writes = append(writes, m.svc.Writes())
	}
	before := net.Total()
	time.Sleep(time.Hour)
	synctest.Wait()
	for i, m := range ms {
		require.Equal(t, writes[i], m.svc.Writes(), "%s is still written to", m.name)
		for _, n := range m.svc.Posts() {
			require.LessOrEqual(t, n, 1, "%s got a content twice", m.name)
		}
	}
	pairs := uint64(len(ms) * (len(ms) - 1))
	require.Less(t, net.Total().Bytes-before.Bytes, pairs*60*600, "peers do not fall silent")
}

func fill(m *machine, prefix string, n int) {
	for i := range n {
		m.svc.Add(fmt.Appendf(nil, "%s %d", prefix, i), can.Metadata{
			MIMEType: "image/png", Application: "app " + prefix, User: "user", Description: fmt.Sprintf("the %dth — ünïcode", i),
			Tags: []string{"b", "a", prefix}, Filename: fmt.Sprintf("%s-%d.png", prefix, i), Path: "/photos/" + prefix,
		})
	}
}
