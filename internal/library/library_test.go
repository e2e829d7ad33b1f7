package library_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"log/slog"
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

// node is a device with a session manager and at most one library.
type node struct {
	t      testing.TB
	device capability.Device
	tr     transport.Transport
	m      *session.Manager
	store  *smemory.Store
	held   atomic.Pointer[library.Library]
	view   filter.Filter

	present func(context.Context, can.Digest) (bool, error)
}

func newNode(t testing.TB, net *memory.Network) *node {
	d, err := capability.NewDevice(rand.Reader)
	require.NoError(t, err)
	n := &node{t: t, device: d, tr: net.Host(d.PeerID()), store: smemory.New()}
	n.m = session.New(session.Config{
		Transport: n.tr, Device: d, Store: n.store, Now: time.Now, Rand: rand.Reader,
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", d.PeerID().Short()),
	})
	return n
}

func (n *node) lib() *library.Library { return n.held.Load() }

func (n *node) close() {
	require.NoError(n.t, n.m.Close())
	if n.lib() != nil {
		require.NoError(n.t, n.lib().Close())
	}
	require.NoError(n.t, n.tr.Close())
	require.NoError(n.t, n.store.Close())
}

func (n *node) open(keys keyring.Library) {
	lib, err := library.Open(n.t.Context(), library.Options{
		Keys: keys, Device: n.device, Rand: rand.Reader, Present: n.present,
		Replica: replica.Options{View: n.view, Store: n.store, Verifier: record.NewVerifier(0), Now: time.Now, Rand: rand.Reader},
	})
	require.NoError(n.t, err)
	n.held.Store(lib)
}

func (n *node) create(name string) {
	keys, err := library.Create(name, n.device, rand.Reader)
	require.NoError(n.t, err)
	n.open(keys)
	require.NoError(n.t, n.lib().Describe(n.t.Context(), control.Description{Name: name, Filter: filter.Filter{}}))
	n.m.Add(n.lib().Session(nil))
}

func (n *node) invite(rights capability.Rights) capability.Ticket {
	tk, err := n.lib().Invite(n.t.Context(), capability.InviteOptions{Rights: rights, RedeemBy: time.Now().Add(time.Hour)},
		[]transport.PeerInfo{{ID: n.tr.ID(), Addrs: n.tr.Addrs()}})
	require.NoError(n.t, err)
	text, err := tk.ExportSecret()
	require.NoError(n.t, err)
	tk, err = capability.ParseTicket(text)
	require.NoError(n.t, err)
	return tk
}

func (n *node) join(tk capability.Ticket) {
	n.m.Join(&session.Joining{
		Ticket: tk,
		Joined: func(g capability.Grant, k capability.EpochKeys, b capability.Bundle) error {
			n.open(keyring.Library{
				ID: g.Library, State: keyring.Active, Lasting: k.Lasting, Bundle: b.Encode(), Cert: g.ID,
				Epochs: []keyring.Epoch{{Number: k.Epoch, Secret: k.Secret}},
			})
			n.m.Add(n.lib().Session(nil))
			return nil
		},
		Refused: func(err error) { n.t.Error("refused:", err) },
	})
}

func (n *node) add(count int, prefix string) {
	var drafts []record.Draft
	for i := range count {
		d := can.Digest(sha256.Sum256(fmt.Appendf(nil, "%s%d", prefix, i)))
		draft, err := n.lib().Announcement(record.Announce, d, record.AssetBody{Size: 1, Root: [32]byte{1}, MIMEType: "text/plain"})
		require.NoError(n.t, err)
		drafts = append(drafts, draft)
	}
	require.NoError(n.t, n.lib().Say(n.t.Context(), drafts...))
}

func (n *node) live() int64 {
	if n.lib() == nil {
		return -1
	}
	return n.lib().Counts().Live
}

func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 600 {
		synctest.Wait()
		if ok() {
			return
		}
		time.Sleep(time.Second)
	}
	require.FailNow(t, "never happened: "+what)
}

func TestMembersConvergeAndPushLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a, b, c := newNode(t, net), newNode(t, net), newNode(t, net)
		a.create("photos")
		a.add(3000, "a")
		b.join(a.invite(capability.Read | capability.Write | capability.Invite))
		await(t, "b has what a announced", func() bool { return b.live() == 3000 })
		c.join(b.invite(capability.Read | capability.Write))
		await(t, "c has it too", func() bool { return c.live() == 3000 })
		await(t, "c meets a", func() bool { return len(c.m.Peers(c.lib().ID())) == 2 })
		c.add(5, "c")
		await(t, "live push reaches all", func() bool { return a.live() == 3005 && b.live() == 3005 })
		for _, n := range []*node{a, b, c} {
			n.close()
		}
	})
}

func TestReadersCannotWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a, b := newNode(t, net), newNode(t, net)
		a.create("photos")
		b.join(a.invite(capability.Read))
		await(t, "b joined", func() bool { return b.lib() != nil && len(b.m.Peers(b.lib().ID())) == 1 })
		await(t, "control set known", func() bool { return len(b.lib().Members()) == 2 })
		draft, err := b.lib().Announcement(record.Announce, can.Digest{1}, record.AssetBody{Size: 1, Root: [32]byte{1}})
		require.NoError(t, err)
		require.ErrorIs(t, b.lib().Say(t.Context(), draft), control.ErrForbidden)
		_, err = b.lib().Invite(t.Context(), capability.InviteOptions{Rights: capability.Read}, nil)
		require.ErrorIs(t, err, control.ErrForbidden)
		a.close()
		b.close()
	})
}

func TestPartitionedMembersConvergeWhenTheyMeetAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a, b := newNode(t, net), newNode(t, net)
		a.create("photos")
		b.join(a.invite(capability.Read | capability.Write))
		await(t, "b joined", func() bool { return b.live() == 0 && len(b.lib().Members()) == 2 })
		net.Partition([]transport.PeerID{a.tr.ID()}, []transport.PeerID{b.tr.ID()})
		a.add(100, "a")
		b.add(200, "b")
		time.Sleep(10 * time.Minute)
		require.EqualValues(t, 100, a.live())
		require.EqualValues(t, 200, b.live())
		net.Heal()
		await(t, "both have all", func() bool { return a.live() == 300 && b.live() == 300 })
		a.close()
		b.close()
	})
}

func (n *node) known() (full, bare int) {
	for e, err := range n.lib().Entries(n.t.Context()) {
		require.NoError(n.t, err)
		if e.Live.HasBody() || e.Tombstone() {
			full++
		} else {
			bare++
		}
	}
	return full, bare
}

func (n *node) say(kind record.Kind, i int, mime string) {
	d := can.Digest(sha256.Sum256(fmt.Appendf(nil, "a%d", i)))
	draft, err := n.lib().Announcement(kind, d, record.AssetBody{Size: 1, Root: [32]byte{1}, MIMEType: mime})
	require.NoError(n.t, err)
	require.NoError(n.t, n.lib().Say(n.t.Context(), draft))
}

func TestANarrowerViewHearsOnlyOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a, b := newNode(t, net), newNode(t, net)
		a.create("photos")
		for i := range 20 {
			a.say(record.Announce, i, []string{"image/png", "text/plain"}[i%2])
		}
		b.view = filter.Filter{MIMEPrefix: "image/"}
		b.join(a.invite(capability.Read | capability.Write))
		await(t, "b has its half", func() bool { return b.live() == 10 })
		full, bare := b.known()
		require.Equal(t, 10, full)
		require.Zero(t, bare)

		a.say(record.Announce, 100, "text/plain") // not for b
		a.say(record.Edit, 0, "text/plain")       // leaves the view
		await(t, "one left", func() bool { return b.live() == 9 })
		full, bare = b.known()
		require.Equal(t, 9, full)
		require.Equal(t, 1, bare)

		// While apart, one more leaves the view, and b edits another.
		net.Partition([]transport.PeerID{a.tr.ID()}, []transport.PeerID{b.tr.ID()})
		time.Sleep(5 * time.Minute)
		a.say(record.Edit, 2, "text/plain")
		b.say(record.Edit, 4, "image/gif")
		b.say(record.Announce, 200, "text/plain") // its own, outside its view
		net.Heal()
		await(t, "both have converged", func() bool { return b.live() == 8 })
		await(t, "a has what b announced outside its view", func() bool { return a.live() == 22 })

		require.NoError(t, b.lib().SetOwnView(t.Context(), filter.Filter{}))
		b.m.SetView(b.lib().ID(), nil)
		await(t, "the whole library", func() bool { return b.live() == 22 && a.live() == 22 })
		_, bare = b.known()
		require.Zero(t, bare)
		require.NoError(t, b.lib().SetOwnView(t.Context(), filter.Filter{MIMEPrefix: "text/"}))
		b.m.SetView(b.lib().ID(), filter.View{{MIMEPrefix: "text/"}})
		await(t, "only texts", func() bool { return b.live() == 14 })
		before := net.Total().Bytes
		time.Sleep(10 * time.Minute)
		require.Less(t, net.Total().Bytes-before, uint64(20_000), "no correcting each other for ever")
		a.close()
		b.close()
	})
}

// A member that moves an asset out of its own view is heard.
func TestANarrowMemberIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a, b := newNode(t, net), newNode(t, net)
		a.create("photos")
		for i := range 6 {
			a.say(record.Announce, i, "image/png")
		}
		b.view = filter.Filter{MIMEPrefix: "image/"}
		b.join(a.invite(capability.Read | capability.Write))
		await(t, "b has all", func() bool { return b.live() == 6 })
		mime := func(n *node, i int) string {
			e, err := n.lib().Entry(t.Context(), sha256.Sum256(fmt.Appendf(nil, "a%d", i)))
			require.NoError(t, err)
			return e.Body.MIMEType
		}
		b.say(record.Edit, 0, "text/plain") // live
		await(t, "a has the edit", func() bool { return mime(a, 0) == "text/plain" })
		net.Partition([]transport.PeerID{a.tr.ID()}, []transport.PeerID{b.tr.ID()})
		time.Sleep(5 * time.Minute)
		b.say(record.Edit, 1, "text/plain") // while apart
		net.Heal()
		await(t, "a has that edit too", func() bool { return mime(a, 1) == "text/plain" })
		require.EqualValues(t, 6, a.live())
		require.EqualValues(t, 4, b.live())
		before := net.Total().Bytes
		time.Sleep(10 * time.Minute)
		require.Less(t, net.Total().Bytes-before, uint64(20_000))
		a.close()
		b.close()
	})
}

// What a member did outside its view, or before it narrowed that, reaches those who
// see it.
func TestANarrowMemberOwesWhatItSaidElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a, b := newNode(t, net), newNode(t, net)
		a.create("photos")
		for i := range 6 {
			a.say(record.Announce, i, "image/png")
		}
		b.join(a.invite(capability.Read | capability.Write))
		await(t, "b has all", func() bool { return b.live() == 6 })
		narrow := func(f filter.Filter) {
			require.NoError(t, b.lib().SetOwnView(t.Context(), f))
			b.m.SetView(b.lib().ID(), filter.View{f}.Normalize())
		}
		asset := func(i int) can.Digest { return sha256.Sum256(fmt.Appendf(nil, "a%d", i)) }
		apart := func() {
			net.Partition([]transport.PeerID{a.tr.ID()}, []transport.PeerID{b.tr.ID()})
			time.Sleep(5 * time.Minute)
		}
		owed := func() (n int) {
			for _, err := range b.lib().Owed(t.Context(), nil, record.ID{}) {
				require.NoError(t, err)
				n++
			}
			return n
		}

		apart()
		b.say(record.Announce, 100, "text/plain") // not sent yet
		narrow(filter.Filter{MIMEPrefix: "image/"})
		require.Equal(t, 1, owed())
		net.Heal()
		await(t, "a has what b said before", func() bool { return a.live() == 7 })

		apart()
		a.say(record.Edit, 0, "text/plain") // leaves b's view
		time.Sleep(time.Second)
		require.NoError(t, b.lib().Say(t.Context(), b.lib().Removal(asset(0)))) // b can't know
		b.say(record.Edit, 1, "text/plain")
		net.Heal()
		await(t, "a has the removal", func() bool { return a.live() == 6 })
		e, err := a.lib().Entry(t.Context(), asset(0))
		require.NoError(t, err)
		require.True(t, e.Tombstone())
		await(t, "a has the edit", func() bool {
			e, err := a.lib().Entry(t.Context(), asset(1))
			require.NoError(t, err)
			return e.Body.MIMEType == "text/plain"
		})
		await(t, "nothing is owed", func() bool { return owed() == 0 })
		before := net.Total().Bytes
		time.Sleep(10 * time.Minute)
		require.Less(t, net.Total().Bytes-before, uint64(20_000))

		narrow(filter.Filter{})
		await(t, "the whole library", func() bool { return b.live() == 6 })
		x, y := a.lib().Counts(), b.lib().Counts()
		x.Queued, y.Queued = 0, 0
		require.Equal(t, x, y)
		a.close()
		b.close()
	})
}

// A member says to hold what it leaves out of its own view, as long as it does and the
// library holds it.
func TestAViewDoesNotHideWhatIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, memory.NewNetwork(memory.Options{}))
		a.present = func(context.Context, can.Digest) (bool, error) { return true, nil }
		a.create("photos")
		a.say(record.Announce, 1, "text/plain")
		d := can.Digest(sha256.Sum256([]byte("a1")))
		have := func() bool {
			ok, err := a.lib().Session(nil).Have(t.Context(), d)
			require.NoError(t, err)
			return ok
		}
		require.True(t, have())
		require.NoError(t, a.lib().SetOwnView(t.Context(), filter.Filter{MIMEPrefix: "image/"}))
		require.True(t, have())
		require.NoError(t, a.lib().Describe(t.Context(), control.Description{Name: "photos", Filter: filter.Filter{MIMEPrefix: "image/"}}))
		require.False(t, have())
		require.NoError(t, a.lib().Describe(t.Context(), control.Description{Name: "photos"}))
		require.True(t, have())
		require.NoError(t, a.lib().Say(t.Context(), a.lib().Removal(d)))
		require.False(t, have())
		a.close()
	})
}
