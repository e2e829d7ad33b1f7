package libp2p

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/cansync/cansync/transport"
	golibp2p "github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// TestFailedStartLeavesNothing lets the start fail at its last step.
func TestFailedStartLeavesNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	taken, err := ma.NewMultiaddr("/ip4/127.0.0.1/tcp/" + portOf(l.Addr()))
	require.NoError(t, err)
	before := goleak.IgnoreCurrent()
	for _, n := range []Network{Private, LAN} {
		_, err = New(Config{PrivateKey: newKey(t), Network: n, Listen: []string{"/ip4/127.0.0.1/tcp/0", taken.String()}})
		require.ErrorContains(t, err, taken.String())
		require.NotErrorIs(t, err, ErrConfig)
	}
	// An option that go-libp2p refuses fails earlier.
	_, err = New(Config{PrivateKey: newKey(t), Network: LAN, Listen: loopback, HostOptions: []golibp2p.Option{golibp2p.NoSecurity}})
	require.Error(t, err)
	goleak.VerifyNone(t, before)
}

func portOf(a net.Addr) string {
	_, port, _ := net.SplitHostPort(a.String())
	return port
}

func TestCloseLeavesNothing(t *testing.T) {
	before := goleak.IgnoreCurrent()
	for range 2 {
		a, err := New(Config{PrivateKey: newKey(t), Network: Private, Listen: loopback})
		require.NoError(t, err)
		b, err := New(Config{PrivateKey: newKey(t), Network: Private, Listen: loopback, ServeRelay: &RelayService{}})
		require.NoError(t, err)
		running := make(chan struct{})
		b.Handle(echoProto, func(s transport.Stream) { close(running); echo(s) })
		s, err := a.Open(testCtx(t), info(b), echoProto, transport.OpenOptions{})
		require.NoError(t, err)
		_, err = s.Write([]byte{1})
		require.NoError(t, err)
		<-running
		events, _ := b.Events()
		require.NoError(t, b.Close())
		require.NoError(t, b.Close())
		for range events {
			// Ends, since Close closes it.
		}
		require.NoError(t, a.Close())
		_, err = s.Read(make([]byte, 1))
		require.ErrorIs(t, err, transport.ErrReset)
		_, err = a.Open(testCtx(t), info(b), echoProto, transport.OpenOptions{})
		require.ErrorIs(t, err, transport.ErrClosed)
		require.ErrorIs(t, a.Advertise(testCtx(t), [32]byte{}, time.Hour), transport.ErrClosed)
		require.Empty(t, a.Peers())
	}
	goleak.VerifyNone(t, before)
}

func TestPrivateDHT(t *testing.T) {
	boot := start(t, nil)
	join := func(c *Config) { c.Bootstrap = boot.FullAddrs() }
	a, b := start(t, join), start(t, join)
	key := [32]byte{1, 2, 3}
	require.NoError(t, a.Advertise(testCtx(t), key, time.Hour))
	require.NoError(t, b.Advertise(testCtx(t), key, time.Hour))
	var found []transport.PeerInfo
	for p, err := range b.Find(testCtx(t), key) {
		require.NoError(t, err)
		found = append(found, p)
	}
	require.Len(t, found, 1)
	require.Equal(t, a.ID(), found[0].ID)
	a.Handle(echoProto, echo)
	s, err := b.Open(testCtx(t), found[0], echoProto, transport.OpenOptions{})
	require.NoError(t, err)
	roundTrip(t, s, []byte("met"))
	for range b.Find(testCtx(t), [32]byte{9}) {
		t.Fatal("found under a key nobody advertised")
	}
	for p, err := range b.Find(testCtx(t), key) {
		require.NoError(t, err)
		require.Equal(t, a.ID(), p.ID)
		break
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	alone := start(t, nil)
	require.ErrorIs(t, alone.Advertise(ctx, key, time.Hour), context.Canceled)
}

func TestLANHasNoDHT(t *testing.T) {
	a := start(t, func(c *Config) { c.Network = LAN })
	require.NoError(t, a.Advertise(testCtx(t), [32]byte{1}, time.Hour))
	for range a.Find(testCtx(t), [32]byte{1}) {
		t.Fatal("found a peer without a DHT")
	}
	require.NotEmpty(t, a.Addrs())
	b := start(t, func(c *Config) { c.Network = LAN })
	b.Handle(echoProto, echo)
	s, err := a.Open(testCtx(t), info(b), echoProto, transport.OpenOptions{Bulk: true})
	require.NoError(t, err)
	roundTrip(t, s, []byte("by given address"))
}

// relayed starts a relay, a node that can only be reached through it, and returns
// the latter's address behind the relay.
func relayed(t *testing.T, service *RelayService) (hidden *Transport, via transport.PeerInfo) {
	t.Helper()
	r := start(t, func(c *Config) { c.ServeRelay = service })
	hidden = start(t, func(c *Config) {
		c.Relay, c.Reachability = r.FullAddrs(), ReachabilityPrivate
	})
	hidden.Handle(echoProto, echo)
	events, stop := hidden.Events()
	defer stop()
	for ctx := testCtx(t); ; {
		via = transport.PeerInfo{ID: hidden.ID()}
		for _, a := range hidden.Addrs() {
			if isRelayed(ma.StringCast(a)) {
				via.Addrs = append(via.Addrs, a)
			}
		}
		if len(via.Addrs) > 0 {
			return hidden, via
		}
		select {
		case <-events:
		case <-ctx.Done():
			t.Fatal("no place at the relay")
		}
	}
}

func TestRelay(t *testing.T) {
	hidden, via := relayed(t, &RelayService{})
	a := start(t, nil)
	for _, bulk := range []bool{false, true} {
		s, err := a.Open(testCtx(t), via, echoProto, transport.OpenOptions{Bulk: bulk})
		require.NoError(t, err)
		require.Equal(t, hidden.ID(), s.Peer())
		require.True(t, s.Relayed())
		roundTrip(t, s, make([]byte, 300_000)) // more than a limited relay carries
	}
	seen := map[transport.PeerID]bool{}
	for _, p := range a.Peers() {
		seen[p.ID] = p.Relayed
	}
	require.Len(t, seen, 2) // the relay is the other one
	require.True(t, seen[hidden.ID()])
}

func TestLimitedRelayCarriesNoBulk(t *testing.T) {
	_, via := relayed(t, &RelayService{Data: 100_000, Duration: time.Minute})
	a := start(t, nil)
	s, err := a.Open(testCtx(t), via, echoProto, transport.OpenOptions{})
	require.NoError(t, err)
	require.True(t, s.Relayed())
	roundTrip(t, s, []byte("control"))
	// The two got to know each other's addresses, which behind NATs lead nowhere.
	id, err := toHostID(via.ID)
	require.NoError(t, err)
	a.host.Peerstore().ClearAddrs(id)
	_, err = a.Open(testCtx(t), via, echoProto, transport.OpenOptions{Bulk: true})
	require.ErrorIs(t, err, transport.ErrLimited)
}

func TestRelayACL(t *testing.T) {
	in, out := publicID(newKey(t)), publicID(newKey(t))
	acl := relayACL{in: {}}
	inID, err := toHostID(in)
	require.NoError(t, err)
	outID, err := toHostID(out)
	require.NoError(t, err)
	require.True(t, acl.AllowReserve(inID, nil))
	require.False(t, acl.AllowReserve(outID, nil))
	require.True(t, acl.AllowConnect(inID, nil, inID))
	require.False(t, acl.AllowConnect(outID, nil, inID))
	require.False(t, acl.AllowConnect(inID, nil, outID))
	require.False(t, acl.AllowReserve("x", nil))
}

func TestForeignKeysAreRefused(t *testing.T) {
	priv, err := rsaKey()
	require.NoError(t, err)
	for name, listen := range map[string][]string{"tcp": loopback[:1], "quic": loopback[1:]} {
		t.Run(name, func(t *testing.T) {
			a := start(t, func(c *Config) { c.Listen = listen })
			rsa, err := golibp2p.New(golibp2p.Identity(priv), golibp2p.ListenAddrStrings(listen...), golibp2p.DisableMetrics())
			require.NoError(t, err)
			defer func() { require.NoError(t, rsa.Close()) }()
			pi, err := peer.AddrInfoFromString(a.FullAddrs()[0])
			require.NoError(t, err)
			// The stream fails, even where the handshake is over before the answer.
			err = rsa.Connect(testCtx(t), *pi)
			if err == nil {
				_, err = rsa.NewStream(testCtx(t), pi.ID, echoProto)
			}
			require.Error(t, err)
			require.Error(t, a.host.Connect(testCtx(t), peer.AddrInfo{ID: rsa.ID(), Addrs: rsa.Addrs()}))
			require.Empty(t, a.Peers())
		})
	}
}

func TestEvents(t *testing.T) {
	a, b := start(t, nil), start(t, nil)
	b.Handle(echoProto, echo)
	events, stop := a.Events()
	wait := func(kind transport.EventKind) {
		t.Helper()
		for ctx := testCtx(t); ; {
			select {
			case e := <-events:
				if e.Kind == kind {
					require.Equal(t, b.ID(), e.Peer.ID)
					return
				}
			case <-ctx.Done():
				t.Fatalf("no event of kind %d", kind)
			}
		}
	}
	s, err := a.Open(testCtx(t), info(b), echoProto, transport.OpenOptions{})
	require.NoError(t, err)
	roundTrip(t, s, []byte("hi"))
	wait(transport.Connected)
	require.Len(t, a.Peers(), 1)
	require.Equal(t, b.ID(), a.Peers()[0].ID)
	require.False(t, a.Peers()[0].Relayed)
	id, err := toHostID(b.ID())
	require.NoError(t, err)
	a.ping(id)
	require.Positive(t, a.Peers()[0].Latency)
	// A dial over the other transport may still be under way and connect them once more.
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	ctx, last := testCtx(t), transport.Connected
	for last != transport.Disconnected || len(a.Peers()) > 0 {
		a.Disconnect(b.ID())
		select {
		case e := <-events:
			if e.Kind == transport.Connected || e.Kind == transport.Disconnected {
				require.Equal(t, b.ID(), e.Peer.ID)
				last = e.Kind
			}
		case <-again.C:
		case <-ctx.Done():
			t.Fatal("they were not parted")
		}
	}
	stop()
	stop()
	// What was told before the stop is still there to be read; the channel then ends.
	for open := true; open; {
		select {
		case _, open = <-events:
		case <-ctx.Done():
			t.Fatal("the events go on after stop")
		}
	}
}

func TestLateReaderLosesOldest(t *testing.T) {
	a := start(t, nil)
	events, stop := a.Events()
	defer stop()
	for range eventBuffer + 10 {
		a.watch.emit(transport.Event{Kind: transport.Found})
	}
	a.watch.emit(transport.Event{Kind: transport.Disconnected})
	var kinds []transport.EventKind
	for range len(events) {
		kinds = append(kinds, (<-events).Kind)
	}
	// The node may have had something to say for itself meanwhile, such as an address.
	require.Len(t, kinds, eventBuffer)
	require.Contains(t, kinds, transport.Disconnected)
}
