package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/examples/sidecar/api"
	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/transport/libp2p"
)

// Limits of the server.
const (
	headerTime  = 5 * time.Second
	readTime    = 35 * time.Second
	idleTime    = 2 * time.Minute
	answerTime  = 2 * time.Minute // longer than any request may work
	headerBytes = 32 << 10
	maxConns    = 256
)

// drainTime is how long requests under way may take once the process is told to
// stop, and shutTime what the server then gets to close its connections. The node
// needs the rest of 5 seconds.
const (
	drainTime = 1500 * time.Millisecond
	shutTime  = time.Second
)

// run serves until ctx ends. ready, if not nil, is told where.
func run(ctx context.Context, c config, log *slog.Logger, ready func(url string)) (err error) {
	limitMemory()
	client, err := can.NewHTTPClient(c.ServiceURL, can.HTTPOptions{})
	if err != nil {
		return c.blame(fmt.Errorf("can_service_url: %w", err))
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	// The port first: without it nothing in the data directory is touched.
	ln, err := listen(c)
	if err != nil {
		return c.blame(err)
	}
	defer ln.Close() // closed before by Shutdown
	node, err := cansync.New(ctx, c.node(client, log))
	if err != nil {
		return explain(c, err)
	}
	defer func() { err = errors.Join(err, node.Close()) }() // a second Close does nothing
	handler, err := api.New(api.Options{
		Node: node, Addr: ln.addr, Host: ln.host, Token: c.Token, ServiceURL: c.ServiceURL, Network: c.Network, Logger: log,
		Probe: func(ctx context.Context) error {
			_, err := client.List(ctx, can.ListOptions{Limit: 1})
			return err
		},
	})
	if err != nil {
		return err
	}
	return serve(ctx, ln, node, handler, log, ready)
}

// node returns the node's configuration.
func (c config) node(client can.Client, log *slog.Logger) cansync.Config {
	out := cansync.Config{
		CAN: client, DataDir: c.DataDir, Network: c.Network, Listen: c.P2PListen, Bootstrap: c.Bootstrap,
		PollInterval: c.Poll, FullScanInterval: c.FullScan, Logger: log,
		Limits: cansync.Limits{Upload: c.Upload, Download: c.Download}, DiskReserve: c.Reserve,
	}
	if c.RelayURL != "" {
		out.Relays = []string{c.RelayURL}
	}
	return out
}

// explain tells what to do about a node that does not start.
func explain(c config, err error) error {
	switch {
	case errors.Is(err, store.ErrLocked):
		return c.blame(fmt.Errorf("data_dir: another process is using %s; stop it, or choose a different one", c.DataDir))
	case errors.Is(err, libp2p.ErrListen):
		return c.blame(fmt.Errorf("listen: %w; another program may be using the port, choose a different one", err))
	case errors.Is(err, cansync.ErrConfig):
		return c.blame(err) // it says itself which key
	}
	return c.blame(fmt.Errorf("data_dir %s: %w", c.DataDir, err))
}

func serve(ctx context.Context, ln socket, node *cansync.Node, handler *api.Handler, log *slog.Logger, ready func(string)) error {
	base, cancel := context.WithCancel(context.Background())
	defer cancel()
	srv := &http.Server{
		Handler:                      handler,
		ReadHeaderTimeout:            headerTime,
		ReadTimeout:                  readTime, // the handler lifts it once it has the body
		WriteTimeout:                 answerTime,
		IdleTimeout:                  idleTime,
		MaxHeaderBytes:               headerBytes,
		DisableGeneralOptionsHandler: true,
		BaseContext:                  func(net.Listener) context.Context { return base },
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(limit(ln, maxConns)) }()
	log.Info("listening", "url", ln.URL(), "peer", node.PeerID().String())
	if ready != nil {
		ready(ln.URL())
	}
	var failed error
	select {
	case failed = <-served:
	case <-ctx.Done():
	}
	log.Info("stopping")
	// New requests are answered with 503 while those under way and the node finish.
	drain, done := context.WithTimeout(context.Background(), drainTime)
	_ = handler.Drain(drain) // what is not through by then is cancelled
	done()
	cancel()
	err := node.Close()
	shut, done := context.WithTimeout(context.Background(), shutTime)
	defer done()
	if srv.Shutdown(shut) != nil {
		_ = srv.Close()
	}
	if failed != nil {
		return errors.Join(fmt.Errorf("listen_addr: %w", failed), err)
	}
	<-served
	log.Info("stopped")
	return err
}
