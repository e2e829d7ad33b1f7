package libp2p

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"time"

	golibp2p "github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
)

// Network says how far a node reaches.
type Network string

const (
	// Public uses the public libp2p DHT and its relays. It is the default.
	Public Network = "public"
	// Private uses only the bootstrap peers and relays of the Config, and a DHT
	// of its own that they hold together.
	Private Network = "private"
	// LAN meets peers by mDNS and by given addresses and never dials a public
	// address; it has no DHT, no relay, no port mapping and looks up no name.
	LAN Network = "lan"
)

// Reachability says whether others can dial the node.
type Reachability uint8

const (
	// ReachabilityUnknown lets the node find out by asking its peers (AutoNAT).
	ReachabilityUnknown Reachability = iota
	// ReachabilityPublic says that the node can be dialled.
	ReachabilityPublic
	// ReachabilityPrivate says that the node cannot be dialled.
	ReachabilityPrivate
)

// ErrConfig is matched by every error that a Config itself causes.
var ErrConfig = errors.New("libp2p: invalid configuration")

// Config describes a Transport. Only PrivateKey is required.
type Config struct {
	// PrivateKey is the identity of the node.
	PrivateKey ed25519.PrivateKey
	// Network is how far the node reaches; empty means [Public].
	Network Network
	// Listen are the multiaddrs to listen on: /ip4 or /ip6 with /tcp/<port> or
	// /udp/<port>/quic-v1, where port 0 is any free one. Empty means any free
	// port on all interfaces, TCP and QUIC, IPv4 and IPv6. If one of the given
	// addresses cannot be had, New fails; of the default ones, one is enough.
	Listen []string
	// Bootstrap are peers through which the DHT is entered, multiaddrs ending in
	// /p2p/<id>. Given in a Public network they take the place of the public
	// bootstrap peers; in a LAN they are refused, for there is no DHT.
	Bootstrap []string
	// Relay are relays to use, multiaddrs ending in /p2p/<id>. The node keeps a
	// place at each, unless it is said to be public. Given in a Public network
	// they take the place of relays found in the DHT; in a LAN they are refused.
	Relay []string
	// ServeRelay makes the node a relay for others and counts as
	// [ReachabilityPublic]; nil means it is none. Not in a LAN.
	ServeRelay *RelayService
	// Reachability overrides what AutoNAT would find out.
	Reachability Reachability
	// DisableMDNS turns off meeting peers on the local network.
	DisableMDNS bool
	// Limits bound what peers can take; zero fields mean the defaults.
	Limits Limits
	// Logger gets what the transport itself has to say; nil means nothing. The
	// libraries below log through the process-wide handlers of go-libp2p
	// (gologshim) and go-log, which the transport leaves alone.
	Logger *slog.Logger
	// Metrics takes the metrics of go-libp2p; nil means none are kept.
	Metrics prometheus.Registerer
	// CloseTimeout is how long closing a stream may wait for a peer that does not
	// read; 0 means 5 s.
	CloseTimeout time.Duration
	// HostOptions are applied after the transport's own options, for tests and
	// simulations. An option that the transport sets itself cannot be set again.
	HostOptions []golibp2p.Option

	// onlySecurity takes the place of TLS and Noise, to test each alone.
	onlySecurity []golibp2p.Option
}

const (
	maxConfigAddrs      = 64 // addresses in one list of a Config
	defaultCloseTimeout = 5 * time.Second
)

var defaultListen = []string{
	"/ip4/0.0.0.0/tcp/0",
	"/ip4/0.0.0.0/udp/0/quic-v1",
	"/ip6/::/tcp/0",
	"/ip6/::/udp/0/quic-v1",
}

// settings is a Config that was checked and filled with defaults.
type settings struct {
	Config
	listen        []ma.Multiaddr
	listenDefault bool
	bootstrap     []peer.AddrInfo
	relay         []peer.AddrInfo
	dnsNames      map[string]struct{}
}

func configErr(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrConfig, fmt.Errorf(format, args...))
}

// Validate reports the first thing that is wrong with the configuration. Its
// errors match [ErrConfig].
func (c Config) Validate() error {
	_, err := c.settings()
	return err
}

func (c Config) settings() (*settings, error) {
	s := &settings{Config: c, dnsNames: make(map[string]struct{})}
	if len(c.PrivateKey) != ed25519.PrivateKeySize {
		return nil, configErr("private key has %d bytes, an Ed25519 key has %d", len(c.PrivateKey), ed25519.PrivateKeySize)
	}
	if s.Network == "" {
		s.Network = Public
	}
	switch s.Network {
	case Public, Private, LAN:
	default:
		return nil, configErr("network %q: use %q, %q or %q", c.Network, Public, Private, LAN)
	}
	if c.Reachability > ReachabilityPrivate {
		return nil, configErr("unknown reachability %d", c.Reachability)
	}
	if s.Network == LAN && (len(c.Bootstrap) > 0 || len(c.Relay) > 0 || c.ServeRelay != nil) {
		return nil, configErr("network %q uses no bootstrap peers and no relays: remove them or use %q", LAN, Private)
	}
	if c.ServeRelay != nil {
		if err := c.ServeRelay.validate(); err != nil {
			return nil, err
		}
		if c.Reachability == ReachabilityPrivate {
			return nil, configErr("a relay must be reachable")
		}
		s.Reachability = ReachabilityPublic
	}
	if c.CloseTimeout < 0 {
		return nil, configErr("close timeout %v is negative", c.CloseTimeout)
	}
	if c.CloseTimeout == 0 {
		s.CloseTimeout = defaultCloseTimeout
	}
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.Limits, err = c.Limits.withDefaults(); err != nil {
		return nil, err
	}
	listen := c.Listen
	if len(listen) == 0 {
		listen, s.listenDefault = defaultListen, true
	}
	if s.listen, err = parseListen(listen); err != nil {
		return nil, err
	}
	if s.bootstrap, err = s.parsePeers("bootstrap", c.Bootstrap); err != nil {
		return nil, err
	}
	if s.relay, err = s.parsePeers("relay", c.Relay); err != nil {
		return nil, err
	}
	if s.Network == Public && len(s.bootstrap) == 0 {
		s.bootstrap = dht.GetDefaultBootstrapPeerAddrInfos()
		for _, i := range s.bootstrap {
			for _, a := range i.Addrs {
				if name := dnsName(a); name != "" {
					s.dnsNames[name] = struct{}{}
				}
			}
		}
	}
	return s, nil
}

func parseListen(addrs []string) ([]ma.Multiaddr, error) {
	if len(addrs) > maxConfigAddrs {
		return nil, configErr("listen: %d addresses, at most %d", len(addrs), maxConfigAddrs)
	}
	out := make([]ma.Multiaddr, 0, len(addrs))
	for _, s := range addrs {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			return nil, configErr("listen address %q: %w", s, err)
		}
		if !isTCP(a) && !isQUIC(a) {
			return nil, configErr("listen address %q: use /ip4/<ip>/tcp/<port> or /ip4/<ip>/udp/<port>/quic-v1, or the same with /ip6", s)
		}
		out = append(out, a)
	}
	return out, nil
}

func (s *settings) parsePeers(what string, addrs []string) ([]peer.AddrInfo, error) {
	if len(addrs) > maxConfigAddrs {
		return nil, configErr("%s: %d addresses, at most %d", what, len(addrs), maxConfigAddrs)
	}
	parsed := make([]ma.Multiaddr, 0, len(addrs))
	for _, t := range addrs {
		a, err := ma.NewMultiaddr(t)
		if err != nil {
			return nil, configErr("%s address %q: %w", what, t, err)
		}
		transport, id := peer.SplitAddr(a)
		if id == "" || transport == nil {
			return nil, configErr("%s address %q must be an address ending in /p2p/<peer id>", what, t)
		}
		if isRelayed(transport) {
			return nil, configErr("%s address %q must not pass another relay", what, t)
		}
		if name := dnsName(a); name != "" {
			s.dnsNames[name] = struct{}{}
		}
		parsed = append(parsed, a)
	}
	infos, err := peer.AddrInfosFromP2pAddrs(parsed...)
	if err != nil {
		return nil, configErr("%s: %w", what, err)
	}
	self, err := toHostID(publicID(s.PrivateKey))
	if err != nil {
		return nil, configErr("private key: %w", err)
	}
	for _, i := range infos {
		if i.ID == self {
			return nil, configErr("%s names the node itself", what)
		}
	}
	return infos, nil
}
