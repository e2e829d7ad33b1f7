package libp2p

import (
	"net/netip"
	"time"

	golibp2p "github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/x/rate"
)

// Limits bound what all peers together, and each of them, can take from the
// node. A zero field means its default.
type Limits struct {
	// LowWater and HighWater steer the connection manager: above HighWater
	// connections, the least useful are closed until LowWater remain. Defaults:
	// 128 and 256.
	LowWater, HighWater int
	// Conns is the hard limit of connections; default 512, half of them inbound
	// at most.
	Conns int
	// ConnsPerPeer is the limit of connections with one peer; default 16.
	ConnsPerPeer int
	// ConnsPerIP is the limit of connections with one public IPv4 address or one
	// IPv6 /56; default 64, so that several nodes behind one NAT fit. The
	// addresses of one private range (such as 10.0.0.0/8) share four times as
	// many; loopback has no such limit.
	ConnsPerIP int
	// ConnRate is how many new inbound connections per second one public IPv4
	// address or IPv6 /56 may open for long, with bursts of ConnsPerIP; default
	// 4. The addresses of one private range share eight times as many; loopback
	// has no such limit.
	ConnRate float64
	// Handshakes is the limit of inbound connections and streams that are not
	// yet authenticated or negotiated; default 64 connections.
	Handshakes int
	// Streams is the limit of streams of all peers; default 16384.
	Streams int
	// StreamsPerPeer is the limit of streams with one peer; default 1024.
	StreamsPerPeer int
	// StreamsPerProtocol is the limit of streams of one protocol with one peer;
	// default 512.
	StreamsPerProtocol int
	// Memory bounds the buffers of all connections and streams, in bytes;
	// default 1 GiB. One peer may take half of it.
	Memory int64
}

// DefaultLimits are the limits that zero fields stand for.
func DefaultLimits() Limits {
	return Limits{
		LowWater: 128, HighWater: 256,
		Conns: 512, ConnsPerPeer: 16, ConnsPerIP: 64, ConnRate: 4, Handshakes: 64,
		Streams: 16384, StreamsPerPeer: 1024, StreamsPerProtocol: 512,
		Memory: 1 << 30,
	}
}

func (l Limits) withDefaults() (Limits, error) {
	d := DefaultLimits()
	for _, f := range []struct {
		name string
		v    *int
		def  int
	}{
		{"low water", &l.LowWater, d.LowWater},
		{"high water", &l.HighWater, d.HighWater},
		{"connections", &l.Conns, d.Conns},
		{"connections per peer", &l.ConnsPerPeer, d.ConnsPerPeer},
		{"connections per address", &l.ConnsPerIP, d.ConnsPerIP},
		{"handshakes", &l.Handshakes, d.Handshakes},
		{"streams", &l.Streams, d.Streams},
		{"streams per peer", &l.StreamsPerPeer, d.StreamsPerPeer},
		{"streams per protocol", &l.StreamsPerProtocol, d.StreamsPerProtocol},
	} {
		if *f.v < 0 {
			return l, configErr("limit of %s is negative", f.name)
		}
		if *f.v == 0 {
			*f.v = f.def
		}
	}
	if l.ConnRate < 0 || l.Memory < 0 {
		return l, configErr("limits of connection rate and memory must not be negative")
	}
	if l.ConnRate == 0 {
		l.ConnRate = d.ConnRate
	}
	if l.Memory == 0 {
		l.Memory = d.Memory
	}
	if l.LowWater > l.HighWater {
		return l, configErr("low water %d is above high water %d", l.LowWater, l.HighWater)
	}
	if l.HighWater > l.Conns {
		return l, configErr("high water %d is above the limit of %d connections", l.HighWater, l.Conns)
	}
	const leastMemory = 64 << 20 // below that a few streams could not open
	if l.Memory < leastMemory {
		return l, configErr("memory limit %d is below %d bytes", l.Memory, leastMemory)
	}
	return l, nil
}

// resourceLimits spells out every scope of the resource manager, so that nothing
// depends on the memory of the machine.
func (l Limits) resourceLimits() rcmgr.ConcreteLimitConfig {
	scope := func(conns, streams int, memory int64) rcmgr.ResourceLimits {
		return rcmgr.ResourceLimits{
			Conns: rcmgr.LimitVal(conns), ConnsInbound: rcmgr.LimitVal(conns), ConnsOutbound: rcmgr.LimitVal(conns),
			FD:      rcmgr.LimitVal(conns),
			Streams: rcmgr.LimitVal(streams), StreamsInbound: rcmgr.LimitVal(streams), StreamsOutbound: rcmgr.LimitVal(streams),
			Memory: rcmgr.LimitVal64(memory),
		}
	}
	system := scope(l.Conns, l.Streams, l.Memory)
	system.ConnsInbound = rcmgr.LimitVal(max(1, l.Conns/2))
	// A stream is transient until its protocol is negotiated, so that many
	// honest streams opened at once must fit too.
	transient := scope(2*l.Handshakes, max(256, 2*l.StreamsPerProtocol), l.Memory/4)
	transient.ConnsInbound = rcmgr.LimitVal(l.Handshakes)
	part := rcmgr.PartialLimitConfig{
		System:               system,
		Transient:            transient,
		AllowlistedSystem:    system,
		AllowlistedTransient: transient,
		ServiceDefault:       scope(0, l.Streams, l.Memory),
		ServicePeerDefault:   scope(0, l.StreamsPerPeer, l.Memory/2),
		ProtocolDefault:      scope(0, l.Streams, l.Memory),
		ProtocolPeerDefault:  scope(0, l.StreamsPerProtocol, l.Memory/2),
		PeerDefault:          scope(l.ConnsPerPeer, l.StreamsPerPeer, l.Memory/2),
		Conn:                 rcmgr.ResourceLimits{Conns: 1, ConnsInbound: 1, ConnsOutbound: 1, FD: 1, Memory: 32 << 20},
		Stream:               rcmgr.ResourceLimits{Streams: 1, StreamsInbound: 1, StreamsOutbound: 1, Memory: 16 << 20},
	}
	// libp2p's own services keep their stricter limits.
	base := rcmgr.DefaultLimits
	golibp2p.SetDefaultServiceLimits(&base)
	return part.Build(base.Scale(l.Memory, l.Conns))
}

var (
	loopbackNets = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	privateNets  = []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
		netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/10"),
	}
)

// connLimits are the limits by network prefix. A prefix shares one budget, so a
// private network as a whole has the budget that its machines need together.
func (l Limits) connLimits() (v4, v6 []rcmgr.NetworkPrefixLimit, rates []rate.PrefixLimit) {
	add := func(p netip.Prefix, conns int, limit rate.Limit) {
		n := rcmgr.NetworkPrefixLimit{Network: p, ConnCount: conns}
		if p.Addr().Is4() {
			v4 = append(v4, n)
		} else {
			v6 = append(v6, n)
		}
		rates = append(rates, rate.PrefixLimit{Prefix: p, Limit: limit})
	}
	for _, p := range loopbackNets {
		add(p, l.Conns*1024, rate.Limit{}) // no rate is no limit
	}
	for _, p := range privateNets {
		add(p, 4*l.ConnsPerIP, rate.Limit{RPS: 8 * l.ConnRate, Burst: 4 * l.ConnsPerIP})
	}
	return v4, v6, rates
}

func (l Limits) resourceManager(metrics bool) (network.ResourceManager, error) {
	v4, v6, rates := l.connLimits()
	burst := rate.Limit{RPS: l.ConnRate, Burst: l.ConnsPerIP}
	wide := rate.Limit{RPS: 4 * l.ConnRate, Burst: 4 * l.ConnsPerIP}
	opts := []rcmgr.Option{
		rcmgr.WithNetworkPrefixLimit(v4, v6),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: l.ConnsPerIP}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: l.ConnsPerIP}, {PrefixLength: 48, ConnCount: 4 * l.ConnsPerIP}},
		),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			NetworkPrefixLimits: rates,
			GlobalLimit:         rate.Limit{RPS: 64 * l.ConnRate, Burst: 2 * l.Conns},
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: burst}},
				IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: burst}, {PrefixLength: 48, Limit: wide}},
				GracePeriod:      time.Minute,
			},
		}),
	}
	if !metrics {
		opts = append(opts, rcmgr.WithMetricsDisabled())
	}
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(l.resourceLimits()), opts...)
}
