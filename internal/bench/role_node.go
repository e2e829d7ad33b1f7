package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	golibp2p "github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/metrics"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/libp2p"
)

// nodeSetup is the setup of the role "node": what a sidecar is, with its database,
// libp2p on loopback, and a CAN Service reached over HTTP.
type nodeSetup struct {
	Dir     string
	Service string // URL
	// Count makes libp2p count the bytes that it carries.
	Count bool
	// FullScan is the time between full listings; 0 is the default.
	FullScan time.Duration
}

// memoryLimit is the soft memory limit that the sidecar sets for itself.
const memoryLimit = 256 << 20

type nodeRole struct {
	client  *can.HTTPClient
	node    *cansync.Node
	counter *metrics.BandwidthCounter
}

func openNode(ctx context.Context, log *slog.Logger, s nodeSetup) (_ *role, err error) {
	debug.SetMemoryLimit(memoryLimit)
	n := &nodeRole{}
	if n.client, err = can.NewHTTPClient(s.Service, can.HTTPOptions{}); err != nil {
		return nil, err
	}
	if s.Count {
		n.counter = metrics.NewBandwidthCounter()
	}
	n.node, err = cansync.New(ctx, cansync.Config{
		CAN: n.client, DataDir: s.Dir, FullScanInterval: s.FullScan, Logger: log,
		Transport: func(seed [32]byte) (transport.Transport, error) {
			cfg := lanConfig(seed)
			if n.counter != nil {
				cfg.HostOptions = []golibp2p.Option{golibp2p.BandwidthReporter(n.counter)}
			}
			return libp2p.New(cfg)
		},
	})
	if err != nil {
		return nil, errors.Join(err, n.client.Close())
	}
	return &role{
		methods: map[string]func(context.Context, json.RawMessage) (any, error){
			"create":    method(n.create),
			"join":      method(n.join),
			"wait":      method(n.wait),
			"mode":      method(n.mode),
			"status":    method(n.status),
			"carried":   method(n.carried),
			"scanned":   method(n.scanned),
			"announced": method(n.announced),
			"where": method(func(context.Context, none) (transport.PeerInfo, error) {
				return transport.PeerInfo{ID: n.node.PeerID(), Addrs: n.node.Addrs()}, nil
			}),
			"learn": method(func(_ context.Context, p transport.PeerInfo) (none, error) { return none{}, n.node.Learn(p) }),
		},
		close: func() error { return errors.Join(n.node.Close(), n.client.Close()) },
	}, nil
}

// create makes a library of everything and returns a ticket for it.
func (n *nodeRole) create(ctx context.Context, name string) (string, error) {
	l, err := n.node.CreateLibrary(ctx, name, cansync.Filter{})
	if err != nil {
		return "", err
	}
	t, err := l.Invite(ctx, cansync.InviteOptions{})
	if err != nil {
		return "", err
	}
	return t.ExportSecret()
}

// joining asks a node to join and to wait until it holds so many assets.
type joining struct {
	Ticket string
	Want   int64
}

// join returns how long it took from the ticket to the last asset.
func (n *nodeRole) join(ctx context.Context, q joining) (time.Duration, error) {
	t, err := cansync.ParseTicket(q.Ticket)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	l, err := n.node.Join(ctx, t)
	if err != nil {
		return 0, err
	}
	err = n.until(ctx, l, q.Want)
	return time.Since(began), err
}

// wait returns when every library holds so many assets, and the CAN Service has
// them.
func (n *nodeRole) wait(ctx context.Context, want int64) (time.Duration, error) {
	began := time.Now()
	for _, l := range n.node.Libraries() {
		if err := n.until(ctx, l, want); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

// longest is how long a process is waited for.
const longest = 20 * time.Minute

func (n *nodeRole) until(ctx context.Context, l *cansync.Library, want int64) error {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	for {
		if err := l.Wait(ctx); err != nil {
			s, serr := l.Status(context.Background())
			return fmt.Errorf("%w: %+v %w", err, s, serr)
		}
		s, err := l.Status(ctx)
		if err != nil {
			return err
		}
		if s.Assets >= want && s.Pending == 0 {
			return nil
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%d assets of %d after %v", s.Assets, want, longest)
		}
	}
}

// mode sets the mode of every library.
func (n *nodeRole) mode(_ context.Context, m cansync.Mode) (none, error) {
	for _, l := range n.node.Libraries() {
		if err := l.SetMode(m); err != nil {
			return none{}, err
		}
	}
	return none{}, nil
}

type nodeStatus struct {
	Assets, Pending int64
	Peers           int
}

// status adds up all libraries.
func (n *nodeRole) status(ctx context.Context, _ none) (s nodeStatus, err error) {
	for _, l := range n.node.Libraries() {
		one, err := l.Status(ctx)
		if err != nil {
			return s, err
		}
		s.Assets += one.Assets
		s.Pending += one.Pending
		s.Peers += one.Peers
	}
	return s, nil
}

// carried returns how many bytes libp2p sent and received, by protocol.
func (n *nodeRole) carried(context.Context, none) (map[string]int64, error) {
	if n.counter == nil {
		return nil, errors.New("not counted")
	}
	out := make(map[string]int64)
	for p, s := range n.counter.GetBandwidthByProtocol() {
		out[string(p)] = s.TotalIn + s.TotalOut
	}
	t := n.counter.GetBandwidthTotals()
	out["total"] = t.TotalIn + t.TotalOut
	return out, nil
}

// scanned returns when the last full scan of the service ended.
func (n *nodeRole) scanned(context.Context, none) (time.Time, error) {
	s := n.node.Status().Service
	return s.LastScan, s.Err
}

// announced waits until the node's only library holds an asset, and returns how
// long that took.
func (n *nodeRole) announced(ctx context.Context, digest string) (time.Duration, error) {
	began := time.Now()
	d, err := can.ParseDigest(digest)
	if err != nil {
		return 0, err
	}
	l := n.node.Libraries()[0]
	for {
		_, err := l.Asset(ctx, d)
		took := time.Since(began)
		switch {
		case err == nil:
			return took, nil
		case !errors.Is(err, cansync.ErrNoAsset):
			return 0, err
		case took > time.Minute:
			return 0, fmt.Errorf("not announced within a minute: %w", err)
		}
		time.Sleep(200 * time.Microsecond)
	}
}
