package cansync

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/libp2p"
)

// Network says how far a node reaches. It concerns the default transport only.
type Network string

const (
	// Public uses the public DHT and public relays. It is what "" stands for.
	Public Network = "public"
	// Private uses the given bootstrap peers and relays and nobody else.
	Private Network = "private"
	// LAN uses multicast DNS and the addresses in tickets, and never sends to a
	// public address.
	LAN Network = "lan"
)

// Config says what a node works with. CAN and DataDir suffice; every other field
// has a default that its zero value stands for.
type Config struct {
	// CAN is the client of the local CAN Service. It is required, and stays open
	// when the node is closed.
	CAN can.Client
	// DataDir is the folder for keys, records, the queue and half-fetched
	// contents; it is made when absent and belongs to one node alone. It may be
	// empty only when Store is given: keys then live in memory, and so do contents
	// on their way.
	DataDir string

	// Store replaces the badger database in DataDir. The caller closes it after
	// the node.
	Store store.Store
	// Transport makes the transport for the device key, given as its Ed25519 seed;
	// nil means libp2p, set up by the fields below. The node closes the transport.
	Transport func(seed [32]byte) (transport.Transport, error)

	// Network says how far the default transport reaches; empty means Public.
	Network Network
	// Listen are the multiaddrs on which the default transport listens; nil means
	// any free port on all interfaces, over QUIC and TCP.
	Listen []string
	// Bootstrap are multiaddrs, ending in /p2p/<peer id>, of the first peers to
	// connect to; required by Private unless tickets carry addresses.
	Bootstrap []string
	// Relays are multiaddrs, ending in /p2p/<peer id>, of relays to be reached
	// through; nil means those of the public network, or none.
	Relays []string

	// PollInterval is the time between looks for new assets; 0 means 5 s.
	PollInterval time.Duration
	// FullScanInterval is the time between full listings; 0 means 5 min.
	FullScanInterval time.Duration

	// Limits are the limits of the node's traffic at the start; see
	// [Node.SetLimits].
	Limits Limits
	// DiskReserve is how many bytes of disk space fetches of large contents leave
	// free, and below which the default store refuses writes; 0 means what the store
	// asks for, 512 MiB or more by default. It takes the default store, or one that
	// is a [store.SpaceReporter], and a DataDir.
	DiskReserve int64

	// Logger takes the node's log; nil discards it.
	Logger *slog.Logger
	// Now is the wall clock; nil means time.Now. Time-outs do not use it.
	Now func() time.Time
	// Rand is the source of keys and nonces; it is read concurrently. nil means
	// crypto/rand.
	Rand io.Reader
}

const (
	defaultPoll     = 5 * time.Second
	defaultFullScan = 5 * time.Minute
	minPoll         = 100 * time.Millisecond
)

// withDefaults returns a copy with every zero field filled in, or what is wrong.
func (c Config) withDefaults() (Config, error) {
	bad := func(format string, args ...any) (Config, error) {
		return Config{}, fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...)
	}
	if c.CAN == nil {
		return bad("CAN: a client is required")
	}
	if c.DataDir == "" && c.Store == nil {
		return bad("DataDir: required unless Store is given")
	}
	if c.DataDir != "" {
		dir, err := filepath.Abs(c.DataDir)
		if err != nil {
			return bad("DataDir: %w", err)
		}
		c.DataDir = dir
	}
	switch c.Network {
	case "":
		c.Network = Public
	case Public, Private, LAN:
	default:
		return bad("Network: %q is none of public, private, lan", clip(string(c.Network)))
	}
	for _, d := range []struct {
		name string
		v    *time.Duration
		def  time.Duration
	}{{"PollInterval", &c.PollInterval, defaultPoll}, {"FullScanInterval", &c.FullScanInterval, defaultFullScan}} {
		if *d.v == 0 {
			*d.v = d.def
		}
		if *d.v < minPoll {
			return bad("%s: %s is less than %s", d.name, *d.v, minPoll)
		}
	}
	if err := c.Limits.check(); err != nil {
		return Config{}, err
	}
	if c.DiskReserve < 0 {
		return bad("DiskReserve: negative")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Transport == nil {
		if err := c.libp2p([32]byte{}).Validate(); err != nil {
			return bad("%w", err)
		}
	}
	return c, nil
}

// libp2p returns the configuration of the default transport.
func (c Config) libp2p(seed [32]byte) libp2p.Config {
	return libp2p.Config{
		PrivateKey: ed25519.NewKeyFromSeed(seed[:]),
		Network:    libp2p.Network(c.Network),
		Listen:     c.Listen,
		Bootstrap:  c.Bootstrap,
		Relay:      c.Relays,
		Logger:     c.Logger,
	}
}
