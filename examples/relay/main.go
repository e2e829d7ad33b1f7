// Command relay is the meeting point of a private cansync network: a bootstrap
// peer that holds the network's DHT together and a relay for nodes that cannot
// reach each other directly. What it relays stays encrypted between the nodes.
//
// It needs an address that every node can reach. It prints its addresses, one a
// line; give them to the nodes as `bootstrap` and `relay_url`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/libp2p"
	"github.com/libp2p/go-libp2p/gologshim"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "relay:", err)
		os.Exit(1)
	}
}

// errUsage says that the flag package has told the user already.
var errUsage = errors.New("wrong usage")

type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(v string) error { *l = append(*l, v); return nil }

var defaultListen = list{
	"/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1",
	"/ip6/::/tcp/4001", "/ip6/::/udp/4001/quic-v1",
}

type options struct {
	keyFile   string
	logLevel  slog.Level
	listen    list
	bootstrap list
	relay     libp2p.RelayService
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("relay", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.keyFile, "key", "relay.key", "file of the relay's key; created if absent")
	f.Var(&o.listen, "listen", "multiaddr to listen on, repeatable (default port 4001 on all interfaces, TCP and QUIC)")
	f.Var(&o.bootstrap, "bootstrap", "another meeting point of the network, a multiaddr ending in /p2p/<id>, repeatable")
	f.IntVar(&o.relay.MaxReservations, "reservations", 256, "nodes that can be reached through the relay at a time")
	f.IntVar(&o.relay.MaxReservationsPerIP, "reservations-per-ip", 64, "of them, nodes behind one IP address")
	f.IntVar(&o.relay.MaxCircuits, "circuits", 64, "relayed connections of one node")
	f.IntVar(&o.relay.BufferSize, "buffer", 64<<10, "bytes of buffer for each direction of a relayed connection")
	f.Int64Var(&o.relay.Data, "data", 0, "bytes a relayed connection may carry each way; 0 = no limit. Limited connections carry no contents of assets")
	f.DurationVar(&o.relay.Duration, "duration", 0, "time a relayed connection may last; 0 = no limit")
	f.Func("allow", "peer id that may use the relay, repeatable (default everyone)", func(s string) error {
		id, err := transport.ParsePeerID(s)
		o.relay.Allow = append(o.relay.Allow, id)
		return err
	})
	f.TextVar(&o.logLevel, "log", slog.LevelInfo, "log level: debug, info, warn or error")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, errUsage
	}
	if f.NArg() > 0 {
		fmt.Fprintf(stderr, "relay: unknown argument %q\n", f.Arg(0))
		return o, errUsage
	}
	if len(o.listen) == 0 {
		o.listen = defaultListen
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: o.logLevel}))
	gologshim.SetDefaultHandler(log.Handler())
	key, err := libp2p.LoadKey(o.keyFile)
	if err != nil {
		return err
	}
	node, err := libp2p.New(libp2p.Config{
		PrivateKey: key,
		Network:    libp2p.Private,
		Listen:     o.listen,
		Bootstrap:  o.bootstrap,
		ServeRelay: &o.relay,
		// Nodes meet here, not by shouting into the local network.
		DisableMDNS: true,
		Logger:      log,
	})
	if err != nil {
		return err
	}
	events, stopEvents := node.Events()
	defer stopEvents()
	for _, a := range node.FullAddrs() {
		if _, err := fmt.Fprintln(stdout, a); err != nil {
			return errors.Join(err, node.Close())
		}
	}
	for {
		select {
		case <-ctx.Done():
			log.Info("stopping")
			return node.Close()
		case e := <-events:
			switch e.Kind {
			case transport.Connected:
				log.Debug("peer connected", "peer", e.Peer.ID.Short())
			case transport.Disconnected:
				log.Debug("peer gone", "peer", e.Peer.ID.Short())
			}
		}
	}
}
