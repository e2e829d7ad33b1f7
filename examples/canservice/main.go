// Command canservice is the reference CAN Service.
//
//	canservice [config.yaml]
//
// Without an argument it keeps its assets in ./can_data. It listens on
// 127.0.0.1, port 3210 or the one in CAN_PORT; CAN_STORAGE_ROOT overrides the
// storage root of the configuration. config.example.yaml explains the keys.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/cansync/cansync/examples/canservice/service"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := start(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil:
	case errors.Is(err, errUsage):
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "canservice:", strings.TrimPrefix(err.Error(), "canservice: "))
		os.Exit(1)
	}
}

// errUsage says that the user was told already how to call the command.
var errUsage = errors.New("wrong usage")

const usage = `usage: canservice [config.yaml]

Keeps assets, and offers them over HTTP on 127.0.0.1. Without an argument it uses
the defaults; config.example.yaml beside its source explains the keys.

  CAN_PORT          port to listen on (default 3210)
  CAN_STORAGE_ROOT  folder for the assets (default ./can_data)
  -h, --help        print this
`

// start parses the command line and serves until ctx ends.
func start(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	f := flag.NewFlagSet("canservice", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		_, err := io.WriteString(stdout, usage)
		return err
	case err != nil:
		fmt.Fprintf(stderr, "canservice: %v\n%s", err, usage)
		return errUsage
	case f.NArg() > 1:
		fmt.Fprintf(stderr, "canservice: one configuration file at most\n%s", usage)
		return errUsage
	}
	return run(ctx, slog.New(slog.NewTextHandler(stderr, nil)), f.Arg(0), getenv, nil)
}

// run serves until ctx ends, with the configuration at path, if any. ready, if not nil, is told the address.
func run(ctx context.Context, log *slog.Logger, path string, getenv func(string) string, ready func(addr string)) (err error) {
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
