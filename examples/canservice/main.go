// Command canservice is the reference CAN Service.
//
//	canservice [config.yaml]
//
// Without an argument it keeps its assets in ./can_data. It listens on
// 127.0.0.1, port 3210 or the one in CAN_PORT; CAN_STORAGE_ROOT overrides the
// storage root of the configuration.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/cansync/cansync/examples/canservice/service"
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, log, os.Args[1:], os.Getenv, nil); err != nil {
		log.Error("canservice stops", "err", err)
		stop()
		os.Exit(1) //nolint:gocritic // the deferred stop was called
	}
}

// run serves until ctx ends. ready, if not nil, is told the address.
func run(ctx context.Context, log *slog.Logger, args []string, getenv func(string) string, ready func(addr string)) (err error) {
	if len(args) > 1 {
		return errors.New("usage: canservice [config.yaml]")
	}
	var path string
	if len(args) == 1 {
		path = args[0]
	}
	set, err := load(path, getenv)
	if err != nil {
		return err
	}
	set.service.Logger = log
	// The port first: without it nothing in the storage root is touched.
	ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", set.port))
	if err != nil {
		return fmt.Errorf("%w; another program may be using the port, CAN_PORT sets a different one", err)
	}
	defer ln.Close() // closed before by Shutdown
	svc, err := service.Open(set.service)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, svc.Close()) }()
	srv := &http.Server{
		Handler:           svc.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	log.Info("listening", "url", "http://"+ln.Addr().String()+service.Prefix)
	if ready != nil {
		ready(ln.Addr().String())
	}
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	log.Info("stopping")
	// Close ends event streams and lets requests finish, which Shutdown then finds
	// idle.
	cerr := svc.Close()
	sctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := srv.Shutdown(sctx); err != nil {
		_ = srv.Close()
	}
	<-served
	return cerr
}
