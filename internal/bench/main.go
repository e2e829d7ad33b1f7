// Command bench measures cansync against its budgets, each beside a baseline that
// it runs itself on the same machine in the same run.
//
//	go run ./internal/bench [P1 P2 …] [-quick] [-strict] [-runs N] [-dir DIR] [-profile DIR]
//
// Without names it runs all budgets; -list tells what they are. It prints one line
// for each figure: its name, what was measured, the baseline, their ratio, the
// budget, and "holds" or "falls short". The exit code is 0 unless something broke;
// with -strict it is 1 as well when a budget falls short.
//
// Whole processes are measured by starting this program again, as a CAN Service, a
// node, or a baseline. They talk over loopback alone, keep their data in temporary
// directories below -dir, and end with this program.
//
// Baseline and subject take turns, and figures are medians. On a machine that does
// other things meanwhile the ratios mean little: the load is printed with them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// budget is one row of the table of budgets.
type budget struct {
	name  string
	about string
	run   func(ctx context.Context, e *env) error
}

func budgets() []budget {
	return []budget{
		{"P1", "bulk transfer engine in one process", benchEngine},
		{"P2", "one large asset end to end, four processes", benchBulk},
		{"P3", "many small assets end to end, four processes", benchMany},
		{"P4", "first sync of records alone, two processes", benchRecords},
		{"P5", "finding the differences of two large sets", benchReconcile},
		{"P6", "keeping coded symbols up to date, and rebuilding them", benchSymbols},
		{"P7", "from ingest on one machine to listed on another", benchLive},
		{"P7b", "a burst of assets while a peer listens", benchBurst},
		{"P8", "memory of a node with many records", benchMemory},
		{"P9", "two nodes in step, at rest", benchRest},
		{"P10", "full scans of a large service", benchScan},
	}
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == childArg {
		os.Exit(childMain(os.Args[2:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	short, err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	case short:
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	names   []string
	quick   bool
	strict  bool
	list    bool
	verbose bool
	runs    int
	dir     string
	profile string
}

// parse reads flags and names in any order.
func parse(args []string) (o options, err error) {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.BoolVar(&o.quick, "quick", false, "do a tenth of the size")
	fs.BoolVar(&o.strict, "strict", false, "exit with 1 when a budget falls short")
	fs.BoolVar(&o.list, "list", false, "list the budgets and do nothing")
	fs.BoolVar(&o.verbose, "v", false, "let the processes log what they do")
	fs.IntVar(&o.runs, "runs", 0, "how often each measurement is taken; 0 is 3, the median counts")
	fs.StringVar(&o.dir, "dir", os.TempDir(), "where temporary data goes; /dev/shm measures without a disk")
	fs.StringVar(&o.profile, "profile", "", "keep CPU and heap profiles in this directory")
	for {
		if err := fs.Parse(args); err != nil {
			return o, err
		}
		if fs.NArg() == 0 {
			break
		}
		o.names = append(o.names, fs.Arg(0))
		args = fs.Args()[1:]
	}
	if o.runs <= 0 {
		o.runs = 3
	}
	known := budgets()
	for i, n := range o.names {
		at := slices.IndexFunc(known, func(b budget) bool { return strings.EqualFold(b.name, n) })
		if at < 0 {
			return o, fmt.Errorf("no budget %q; -list tells which there are", n)
		}
		o.names[i] = known[at].name
	}
	return o, nil
}

// run measures what the arguments ask for. short says that -strict was given and a
// budget fell short.
func run(ctx context.Context, args []string, w io.Writer) (short bool, err error) {
	o, err := parse(args)
	if err != nil {
		return false, err
	}
	if o.list {
		for _, b := range budgets() {
			fmt.Fprintf(w, "%-4s %s\n", b.name, b.about)
		}
		return false, nil
	}
	e, err := newEnv(o, w)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	e.header()
	var errs []error
	for _, b := range budgets() {
		if len(o.names) > 0 && !slices.Contains(o.names, b.name) {
			continue
		}
		e.budget = b.name
		if err := e.scoped(ctx, b.run); err != nil {
			fmt.Fprintf(w, "%-4s broke: %v\n", b.name, err)
			errs = append(errs, fmt.Errorf("%s: %w", b.name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	e.footer()
	return o.strict && e.short > 0, errors.Join(errs...)
}
