package libp2p

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/cansync/cansync/transport"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

const somePeer = "12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8"

func TestConfigErrors(t *testing.T) {
	key := newKey(t)
	self := "/ip4/127.0.0.1/tcp/1/p2p/" + publicID(key).String()
	for name, c := range map[string]Config{
		"no key":          {},
		"network":         {PrivateKey: key, Network: "wan"},
		"listen":          {PrivateKey: key, Listen: []string{"127.0.0.1:1"}},
		"listen dns":      {PrivateKey: key, Listen: []string{"/dns4/localhost/tcp/1"}},
		"listen ws":       {PrivateKey: key, Listen: []string{"/ip4/127.0.0.1/tcp/1/ws"}},
		"listen many":     {PrivateKey: key, Listen: make([]string, 65)},
		"bootstrap no id": {PrivateKey: key, Bootstrap: []string{"/ip4/127.0.0.1/tcp/1"}},
		"bootstrap self":  {PrivateKey: key, Bootstrap: []string{self}},
		"relay only id":   {PrivateKey: key, Relay: []string{"/p2p/" + somePeer}},
		"relay by relay":  {PrivateKey: key, Relay: []string{self + "/p2p-circuit/p2p/" + somePeer}},
		"lan bootstrap":   {PrivateKey: key, Network: LAN, Bootstrap: []string{self}},
		"lan relay":       {PrivateKey: key, Network: LAN, ServeRelay: &RelayService{}},
		"hidden relay":    {PrivateKey: key, ServeRelay: &RelayService{}, Reachability: ReachabilityPrivate},
		"relay buffer":    {PrivateKey: key, ServeRelay: &RelayService{BufferSize: 2 << 20}},
		"relay negative":  {PrivateKey: key, ServeRelay: &RelayService{Data: -1}},
		"limits negative": {PrivateKey: key, Limits: Limits{Conns: -1}},
		"limits order":    {PrivateKey: key, Limits: Limits{LowWater: 10, HighWater: 5}},
		"limits conns":    {PrivateKey: key, Limits: Limits{Conns: 100, HighWater: 200}},
		"limits memory":   {PrivateKey: key, Limits: Limits{Memory: 1}},
		"close timeout":   {PrivateKey: key, CloseTimeout: -1},
		"reachability":    {PrivateKey: key, Reachability: 9},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(c)
			require.ErrorIs(t, err, ErrConfig)
			require.NotContains(t, err.Error(), string(key))
		})
	}
	require.NoError(t, Config{PrivateKey: key}.Validate())
}

func TestLANStaysLocal(t *testing.T) {
	for addr, local := range map[string]bool{
		"/ip4/127.0.0.1/tcp/1":                                 true,
		"/ip4/10.1.2.3/tcp/1":                                  true,
		"/ip4/172.16.0.1/udp/1/quic-v1":                        true,
		"/ip4/172.32.0.1/udp/1/quic-v1":                        false,
		"/ip4/192.168.1.1/tcp/1":                               true,
		"/ip4/169.254.7.7/tcp/1":                               true,
		"/ip4/8.8.8.8/tcp/1":                                   false,
		"/ip4/100.64.0.1/tcp/1":                                false,
		"/ip4/0.0.0.0/tcp/1":                                   false,
		"/ip4/255.255.255.255/udp/1/quic-v1":                   false,
		"/ip6/::1/tcp/1":                                       true,
		"/ip6/fe80::1/tcp/1":                                   true,
		"/ip6zone/eth0/ip6/fe80::1/tcp/1":                      true,
		"/ip6/fd00::1/tcp/1":                                   true,
		"/ip6/2001:db8::1/tcp/1":                               false,
		"/ip6/::ffff:8.8.8.8/tcp/1":                            false,
		"/ip6/64:ff9b::808:808/tcp/1":                          false,
		"/dns4/localhost/tcp/1":                                false,
		"/dnsaddr/bootstrap.libp2p.io":                         false,
		"/ip4/10.0.0.1/tcp/1/p2p/" + somePeer + "/p2p-circuit": false,
		"/p2p/" + somePeer:                                     false,
	} {
		a := ma.StringCast(addr)
		require.Equal(t, local, isLocalAddr(a), addr)
		require.Equal(t, local, gater{LAN}.InterceptAddrDial("", a), addr)
		require.True(t, gater{Private}.InterceptAddrDial("", a), addr)
		require.True(t, gater{Public}.InterceptAddrDial("", a), addr)
	}
}

func TestLANDialsNoPublicAddress(t *testing.T) {
	a := start(t, func(c *Config) { c.Network = LAN })
	other := publicID(newKey(t))
	// 192.0.2.1 is a documentation address: nothing answers, but nothing may ask.
	_, err := a.Open(testCtx(t), transport.PeerInfo{ID: other, Addrs: []string{
		"/ip4/192.0.2.1/tcp/1", "/dns4/example.invalid/tcp/1", "/ip6/2001:db8::1/udp/1/quic-v1",
	}}, echoProto, transport.OpenOptions{})
	require.ErrorIs(t, err, transport.ErrUnreachable)
	id, err := toHostID(other)
	require.NoError(t, err)
	require.Empty(t, a.host.Peerstore().Addrs(id))
}

type lookups struct{ n int }

func (l *lookups) ResolveDNSAddr(context.Context, peer.ID, ma.Multiaddr, int, int) ([]ma.Multiaddr, error) {
	l.n++
	return nil, nil
}

func (l *lookups) ResolveDNSComponent(context.Context, ma.Multiaddr, int) ([]ma.Multiaddr, error) {
	l.n++
	return nil, nil
}

func TestOnlyGivenNamesAreLookedUp(t *testing.T) {
	for name, asked := range map[string]int{
		"relay.example": 1, "RELAY.example.": 1, "a.b.relay.example": 1,
		"example": 0, "evilrelay.example": 0, "relay.example.evil": 0,
	} {
		next := &lookups{}
		r := resolver{names: map[string]struct{}{"relay.example": {}}, next: next}
		_, err := r.ResolveDNSAddr(context.Background(), "", ma.StringCast("/dnsaddr/"+name), 1, 1)
		require.NoError(t, err)
		_, err = r.ResolveDNSComponent(context.Background(), ma.StringCast("/dns4/"+name+"/tcp/1"), 1)
		require.NoError(t, err)
		require.Equal(t, 2*asked, next.n, name)
	}
	s, err := Config{PrivateKey: newKey(t)}.settings()
	require.NoError(t, err)
	require.Contains(t, s.dnsNames, "bootstrap.libp2p.io")
	for _, n := range []Network{Private, LAN} {
		s, err := Config{PrivateKey: newKey(t), Network: n}.settings()
		require.NoError(t, err)
		require.Empty(t, s.dnsNames)
		require.Empty(t, s.bootstrap)
	}
}

func TestDialOrder(t *testing.T) {
	order := func(addrs ...string) string {
		var in []ma.Multiaddr
		for _, a := range addrs {
			in = append(in, ma.StringCast(a))
		}
		ranked := rankDials(in)
		require.Len(t, ranked, len(in))
		best := ranked[0]
		for _, r := range ranked {
			if r.Delay < best.Delay {
				best = r
			}
		}
		return best.Addr.String()
	}
	require.Equal(t, "/ip4/10.0.0.1/tcp/1", order("/ip4/10.0.0.1/udp/1/quic-v1", "/ip4/10.0.0.1/tcp/1"))
	require.Equal(t, "/ip4/127.0.0.1/tcp/1", order("/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/127.0.0.1/tcp/1"))
	require.Equal(t, "/ip4/8.8.8.8/udp/1/quic-v1", order("/ip4/8.8.8.8/tcp/1", "/ip4/8.8.8.8/udp/1/quic-v1"))
	circuit := "/ip4/8.8.8.8/tcp/2/p2p/" + somePeer + "/p2p-circuit"
	require.Equal(t, "/ip4/8.8.8.8/tcp/1", order(circuit, "/ip4/8.8.8.8/tcp/1"))
	require.Zero(t, rankDials([]ma.Multiaddr{ma.StringCast(circuit)})[0].Delay)
	require.Empty(t, rankDials(nil))
}

func TestPickInterfaces(t *testing.T) {
	const up = net.FlagUp | net.FlagMulticast
	all := []net.Interface{
		{Index: 1, Name: "lo", Flags: up | net.FlagLoopback},
		{Index: 2, Name: "lan", Flags: up},
		{Index: 3, Name: "vpn", Flags: net.FlagUp},
		{Index: 4, Name: "down", Flags: net.FlagMulticast},
		{Index: 5, Name: "six", Flags: up},
	}
	ips := map[string][]net.IP{
		"lo": {net.ParseIP("127.0.0.1")}, "lan": {net.ParseIP("192.168.1.2"), net.ParseIP("fe80::2")},
		"vpn": {net.ParseIP("10.0.0.2")}, "down": {net.ParseIP("10.1.0.2")}, "six": {net.ParseIP("fe80::5")},
	}
	pick := func(listen ...string) string {
		var l []net.IP
		for _, s := range listen {
			l = append(l, net.ParseIP(s))
		}
		var names []string
		for _, i := range pickInterfaces(all, l, func(i net.Interface) []net.IP { return ips[i.Name] }) {
			names = append(names, i.Name)
		}
		return strings.Join(names, " ")
	}
	require.Equal(t, "lan", pick("0.0.0.0"))
	require.Equal(t, "lan six", pick("::"))
	require.Equal(t, "lan", pick("192.168.1.2"))
	require.Equal(t, "", pick("127.0.0.1"))
	require.Equal(t, "", pick("10.0.0.2"))
	require.Equal(t, "", pick("10.1.0.2"))
	require.Equal(t, "six", pick("127.0.0.1", "fe80::5"))
	require.Equal(t, "", pick())
}

func TestMDNSIsSilentOnLoopback(t *testing.T) {
	require.Nil(t, start(t, nil).mdns)
	require.Nil(t, start(t, func(c *Config) { c.Network = LAN }).mdns)
	for _, listen := range [][]string{{"/ip4/0.0.0.0/tcp/0"}, {"/ip4/192.168.1.2/tcp/0"}, defaultListen} {
		s, err := Config{PrivateKey: newKey(t), Network: LAN, Listen: listen}.settings()
		require.NoError(t, err)
		require.NotNil(t, newMDNS(&Transport{cfg: s}))
	}
}

func TestParseAnnouncement(t *testing.T) {
	long := make([]string, 100)
	for i := range long {
		long[i] = "dnsaddr=/ip4/10.0.0.1/tcp/1/p2p/" + somePeer
	}
	got := parseAnnouncement([]string{
		"", "dnsaddr=", "dnsaddr=/ip4/10.0.0.1", "/ip4/10.0.0.1/tcp/1/p2p/" + somePeer,
		"dnsaddr=/ip4/8.8.8.8/tcp/1/p2p/" + somePeer, "dnsaddr=/dns4/a.local/tcp/1/p2p/" + somePeer,
		"dnsaddr=/ip4/10.0.0.1/tcp/1/p2p/" + somePeer, "dnsaddr=/ip4/10.0.0.1/udp/1/quic-v1/p2p/" + somePeer,
	})
	require.Len(t, got, 1)
	require.Len(t, got[0].Addrs, 2)
	require.Len(t, parseAnnouncement(long)[0].Addrs, maxPeerAddrs)
}

func FuzzParseAnnouncement(f *testing.F) {
	f.Add("dnsaddr=/ip4/10.0.0.1/tcp/1/p2p/" + somePeer)
	f.Add("dnsaddr=/ip6zone/x/ip6/fe80::1/tcp/1/p2p/" + somePeer)
	f.Add("dnsaddr=/p2p/" + somePeer)
	f.Fuzz(func(t *testing.T, line string) {
		for _, info := range parseAnnouncement([]string{line}) {
			for _, a := range info.Addrs {
				require.True(t, isLocalAddr(a))
			}
		}
	})
}

func TestLimitsAreExplicit(t *testing.T) {
	l, err := Limits{}.withDefaults()
	require.NoError(t, err)
	require.Equal(t, DefaultLimits(), l)
	lim := rcmgr.NewFixedLimiter(l.resourceLimits())
	require.Equal(t, l.Conns, lim.GetSystemLimits().GetConnTotalLimit())
	require.Equal(t, l.Conns/2, lim.GetSystemLimits().GetConnLimit(network.DirInbound))
	require.Equal(t, l.Memory, lim.GetSystemLimits().GetMemoryLimit())
	require.Equal(t, l.Streams, lim.GetSystemLimits().GetStreamTotalLimit())
	require.Equal(t, l.Handshakes, lim.GetTransientLimits().GetConnLimit(network.DirInbound))
	require.Equal(t, l.ConnsPerPeer, lim.GetPeerLimits(somePeer).GetConnTotalLimit())
	require.Equal(t, l.StreamsPerPeer, lim.GetPeerLimits(somePeer).GetStreamTotalLimit())
	require.Equal(t, l.StreamsPerProtocol, lim.GetProtocolPeerLimits(echoProto).GetStreamLimit(network.DirInbound))
	// libp2p's own services keep theirs.
	require.Less(t, lim.GetProtocolPeerLimits("/ipfs/id/1.0.0").GetStreamLimit(network.DirInbound), 64)
}

func TestLimitsHold(t *testing.T) {
	small := Limits{StreamsPerProtocol: 2}
	a := start(t, nil)
	b := start(t, func(c *Config) { c.Limits = small })
	b.Handle(echoProto, echo)
	refused := 0
	for range 4 {
		s, err := a.Open(testCtx(t), info(b), echoProto, transport.OpenOptions{})
		if err == nil {
			_, err = s.Write([]byte{1})
		}
		if err == nil {
			_, err = s.Read(make([]byte, 1))
		}
		if err != nil {
			refused++
		}
	}
	require.Equal(t, 2, refused)
}
