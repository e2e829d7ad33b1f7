// Command sidecar runs cansync beside a CAN Service and offers it over HTTP.
//
//	sidecar [-log level] [config.yaml]
//
// Without an argument it uses config.yaml in the working directory if there is
// one, else the defaults: it listens on http://127.0.0.1:3213 and talks to the CAN
// Service at http://127.0.0.1:3210/api/v1/can/0. The README says more.
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
	"syscall"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/examples/sidecar/api"
)

func main() {
	restrict()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := start(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil:
	case errors.Is(err, errUsage):
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "sidecar:", api.Plain(err))
		os.Exit(1)
	}
}

// errUsage says that the user was told already how to call the command.
var errUsage = errors.New("wrong usage")

const usage = `usage: sidecar [-log level] [config.yaml]

Runs cansync beside a CAN Service. Without an argument it uses config.yaml in the
working directory if there is one, else the defaults.

  -log level   debug, info, warn or error (default info)
  -h, --help   print this
  --version    print the version
`

// start parses the command line and runs the sidecar until ctx ends.
func start(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := flag.NewFlagSet("sidecar", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	var level slog.Level
	f.Func("log", "", func(s string) error {
		if level.UnmarshalText([]byte(s)) != nil {
			return errors.New("want debug, info, warn or error")
		}
		return nil
	})
	version := f.Bool("version", false, "")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		_, err := io.WriteString(stdout, usage)
		return err
	case err != nil:
		fmt.Fprintf(stderr, "sidecar: %v\n%s", err, usage)
		return errUsage
	case f.NArg() > 1:
		fmt.Fprintf(stderr, "sidecar: one configuration file at most\n%s", usage)
		return errUsage
	}
	if *version {
		_, err := fmt.Fprintln(stdout, "sidecar", cansync.Version())
		return err
	}
	c, err := load(f.Arg(0))
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	quiet(stderr, level)
	return run(ctx, c, log, nil)
}
