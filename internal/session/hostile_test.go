package session_test

import (
	"crypto/rand"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
)

const (
	protoHello = "/cansync/hello/1"
	protoSync  = "/cansync/sync/1"
)

// stranger is a host without a manager.
func stranger(t testing.TB, net *memory.Network) transport.Transport {
	d, err := capability.NewDevice(rand.Reader)
	require.NoError(t, err)
	return net.Host(d.PeerID())
}

func open(t testing.TB, tr transport.Transport, n *node, proto string) transport.Stream {
	st, err := tr.Open(t.Context(), transport.PeerInfo{ID: n.tr.ID(), Addrs: n.tr.Addrs()}, proto, transport.OpenOptions{})
	require.NoError(t, err)
	return st
}

// ends returns after how long the other side ended the stream.
func ends(st transport.Stream) time.Duration {
	start := time.Now()
	_, _ = io.Copy(io.Discard, st)
	return time.Since(start)
}

func TestWhoNeverSpeaksIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a := newNode(t, net, 0)
		a.create("photos")
		var silent []transport.Stream
		hosts := make([]transport.Transport, 0, 17)
		for range 17 { // 4 hellos each: 16 fill the 64 places
			h := stranger(t, net)
			hosts = append(hosts, h)
			for range 5 {
				silent = append(silent, open(t, h, a, protoHello))
			}
		}
		at := make(chan time.Duration, len(silent))
		for _, st := range silent {
			go func() { at <- ends(st) }()
		}
		atOnce := 0
		for range silent {
			d := <-at
			require.LessOrEqual(t, d, 10*time.Second)
			if d == 0 {
				atOnce++
			}
		}
		require.Equal(t, len(silent)-64, atOnce)
		// A byte now and then buys no time.
		st := open(t, hosts[0], a, protoHello)
		_, err := st.Write(wire.AppendFrame(nil, 1, make([]byte, 500))[:5])
		require.NoError(t, err)
		slow := make(chan struct{})
		go func() {
			defer close(slow)
			for {
				if _, err := st.Write([]byte{0}); err != nil {
					return
				}
				time.Sleep(3 * time.Second)
			}
		}()
		took := ends(st)
		<-slow
		require.Equal(t, 10*time.Second, took)
		for _, h := range hosts {
			require.NoError(t, h.Close())
		}
		a.close()
	})
}

func TestStrangersLeaveRoomForTheHellosOfMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a, b := newNode(t, net, 0), newNode(t, net, 0)
		a.create("photos")
		b.join(a.invite(capability.InviteOptions{RedeemBy: time.Now().Add(time.Hour)}))
		await(t, time.Minute, "b joined", func() bool { return b.links() == 1 && a.links() == 1 })
		time.Sleep(10 * time.Second)
		var hosts []transport.Transport
		for range 16 {
			h := stranger(t, net)
			hosts = append(hosts, h)
			for range 4 {
				go ends(open(t, h, a, protoHello))
			}
		}
		synctest.Wait()
		require.Zero(t, ends(open(t, stranger(t, net), a, protoHello)), "no room for one stranger more")
		require.Equal(t, 10*time.Second, ends(open(t, b.tr.(tapped).Transport, a, protoHello)), "the member is heard")
		for _, h := range hosts {
			require.NoError(t, h.Close())
		}
		closeAll(a, b)
	})
}

func TestMalformedHellosAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a := newNode(t, net, 0)
		a.create("photos")
		h := stranger(t, net)
		for _, b := range [][]byte{
			{0, 0, 0, 0}, {0xff, 0xff, 0xff, 0xff, 1}, wire.AppendFrame(nil, 1, nil), wire.AppendFrame(nil, 1, make([]byte, 500)),
			wire.AppendFrame(nil, 2, make([]byte, 64)), wire.AppendFrame(nil, 6, nil), wire.AppendFrame(nil, 200, []byte("x")),
		} {
			st := open(t, h, a, protoHello)
			_, err := st.Write(b)
			require.NoError(t, err)
			require.NoError(t, st.CloseWrite())
			require.Zero(t, ends(st), "%x", b)
		}
		require.NoError(t, h.Close())
		a.close()
	})
}

func TestStreamsOfNoSessionAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a, b := newNode(t, net, 0), newNode(t, net, 0)
		a.create("photos")
		h := stranger(t, net)
		require.Zero(t, ends(open(t, h, a, protoSync)), "a stranger's at once")
		b.join(a.invite(capability.InviteOptions{RedeemBy: time.Now().Add(time.Hour)}))
		await(t, time.Minute, "b joined", func() bool { return b.links() == 1 && a.links() == 1 })
		attach := func(size int) []byte { return wire.AppendFrame(nil, 9, make([]byte, size)) }
		for name, frame := range map[string][]byte{
			"unknown": attach(18), "short": attach(17), "other frame": wire.AppendFrame(nil, 8, make([]byte, 18)), "too long": {0xff, 0xff, 0xff, 0xff},
		} {
			st := open(t, b.tr.(tapped).Transport, a, protoSync)
			_, err := st.Write(frame)
			require.NoError(t, err, name)
			require.LessOrEqual(t, ends(st), 10*time.Second, name)
		}
		require.Equal(t, 1, a.links(), "the session goes on")
		require.Equal(t, 1, len(a.came()))
		require.NoError(t, h.Close())
		closeAll(a, b)
	})
}

// inject writes on the sync streams that the node opened. One of a session that
// another took over may still take it.
func (n *node) inject(b []byte) (done bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, st := range n.sent {
		if _, err := st.Write(b); err == nil {
			done = true
		}
	}
	return done
}

func TestWhatBreaksTheSyncProtocolIsBlamed(t *testing.T) {
	for name, frame := range map[string][]byte{
		"records":   wire.AppendFrame(nil, 2, []byte{0, 1, 2, 3}),
		"flag":      wire.AppendFrame(nil, 2, []byte{7}),
		"reconcile": wire.AppendFrame(nil, 1, []byte{0, 0}),
		"caught":    wire.AppendFrame(nil, 3, []byte{1, 2, 3, 4, 5}),
		"view":      wire.AppendFrame(nil, 7, []byte{0xff}),
		"ask":       wire.AppendFrame(nil, 8, []byte{0, 0, 0, 1, 0xff, 0xff}),
		"have":      wire.AppendFrame(nil, 9, []byte{0}),
		"later":     wire.AppendFrame(nil, 11, []byte{0, 0, 0, 60}),
		"offer":     wire.AppendFrame(nil, 12, append([]byte{0, 0, 0, 1, 4, 1}, make([]byte, 1025*32)...)),
		"kept":      wire.AppendFrame(nil, 13, make([]byte, 4+129)),
		"length":    {0xff, 0xff, 0xff, 0xff, 0xff},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := memory.NewNetwork(memory.Options{})
				a, b := newNode(t, net, 0), newNode(t, net, 0)
				a.create("photos")
				b.join(a.invite(capability.InviteOptions{RedeemBy: time.Now().Add(time.Hour)}))
				await(t, time.Minute, "b joined", func() bool { return b.links() == 1 && a.links() == 1 })
				time.Sleep(10 * time.Second)
				synctest.Wait()
				byA, byB := a.inject(frame), b.inject(frame)
				require.True(t, byA || byB)
				synctest.Wait()
				require.Zero(t, a.links()+b.links(), "the link ends at once")
				for range 8 {
					time.Sleep(time.Minute)
					synctest.Wait()
					require.Zero(t, a.links()+b.links(), "and the peer is left alone")
				}
				await(t, 20*time.Minute, "later it may try again", func() bool { return a.links() == 1 && b.links() == 1 })
				closeAll(a, b)
			})
		})
	}
}
