// Command quickstart shows cansync at work on one machine: two CAN Services, a
// node beside each, and a library that they share.
//
//	go run ./examples/quickstart
//
// Everything is real, the services behind HTTP, the databases on disk and the
// encrypted connection between the nodes, but for the distance: both sides run in
// this process and talk over the loopback interface. Generated pictures are
// uploaded to one service and shown arriving in the other with all that was said
// about them. The data lies in a temporary folder that is removed at the end. It
// exits with 0, or with 1 and the reason.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// closeTime is how long everything may take to stop.
const closeTime = 30 * time.Second

// options are the command line.
type options struct {
	assets  int
	size    int64
	keep    bool
	timeout time.Duration
	verbose bool
}

const (
	maxAssets = 10_000
	minSize   = 1 << 10
	maxSize   = 4 << 30
)

func parse(args []string, out io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	f.SetOutput(out)
	f.IntVar(&o.assets, "assets", 8, "how many pictures to share, the large one included")
	f.Int64Var(&o.size, "size", 24<<20, "size of the large picture in bytes")
	f.BoolVar(&o.keep, "keep", false, "keep the data and say where it is")
	f.DurationVar(&o.timeout, "timeout", time.Minute, "give up after this time")
	f.BoolVar(&o.verbose, "v", false, "log what the nodes do to standard error")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case o.assets < 1 || o.assets > maxAssets:
		return o, fmt.Errorf("-assets %d: want 1 to %d", o.assets, maxAssets)
	case o.size < minSize || o.size > maxSize:
		return o, fmt.Errorf("-size %d: want %d to %d bytes", o.size, minSize, int64(maxSize))
	case o.timeout <= 0:
		return o, fmt.Errorf("-timeout %s: want more than 0", o.timeout)
	}
	return o, nil
}

func main() {
	o, err := parse(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt ends the process at once

	ended := make(chan error, 1)
	go func() { ended <- run(ctx, o, newScreen(os.Stdout, isTerminal(os.Stdout) && !o.verbose), os.Stderr) }()
	select {
	case err = <-ended:
	case <-time.After(o.timeout + closeTime):
		err = fmt.Errorf("still not stopped %s after the time was up", closeTime)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// isTerminal reports whether f shows its text to somebody.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}

// run makes the data folder and tells the story in it.
func run(ctx context.Context, o options, s *screen, logs io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "cansync-quickstart-")
	if err != nil {
		return err
	}
	defer func() {
		if o.keep {
			s.printf("\nThe data is kept in %s\n", dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	tctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	err = tell(tctx, o, s, logs, dir)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return errors.New("interrupted")
	case errors.Is(tctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("not through within %s (-timeout sets another time): %w", o.timeout, err)
	}
	return err
}
