// Command study shows what a record costs in libraries of 10 to 10,000 members
// whose links are those that the overlay chooses. It is a discrete-event simulation
// of the overlay's plans, pushes and reconciliations, with neither stores nor
// goroutines per member, and prints a table in Markdown:
//
//	go run ./internal/overlay/study
//
// Equal flags print equal tables.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "study:", err)
		}
		os.Exit(1)
	}
}

// run prints the table that the arguments ask for.
func run(args []string, to io.Writer) error {
	flags := flag.NewFlagSet("study", flag.ContinueOnError)
	seed := flags.Uint64("seed", 1, "seed of ids, links, latencies, faults and authors")
	degree := flags.Int("degree", 8, "degree of the overlay, 1 to 64")
	records := flags.Int("records", 10, "records that spread in each scenario")
	size := flags.Int("size", 512, "bytes of one record on the wire")
	sizes := flags.String("members", "10,100,1000,10000", "sizes of the library")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *degree < 1 || *degree > 64 || *records < 1 || *size < 1 {
		return errors.New("degree must be 1 to 64, records and size at least 1")
	}
	out := bufio.NewWriter(to)
	fmt.Fprint(out, header)
	for field := range strings.SplitSeq(*sizes, ",") {
		members, err := strconv.Atoi(strings.TrimSpace(field))
		if err != nil || members < 2 || members > 100_000 {
			return fmt.Errorf("members: %q is not a number from 2 to 100000", field)
		}
		for _, r := range study(members, *degree, *records, *seed) {
			r.write(out, *size)
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
	return out.Flush()
}

const header = "" +
	"| members | down | pushes lost | links mean (most) | hops mean (most) | pushes mean (most) | bytes | duplicates | repaired | time to half | to 99 % | to all (worst) |\n" +
	"|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"

// write prints one row.
func (r result) write(out io.Writer, size int) {
	members := float64(r.total.up)
	down := "0"
	if r.down > 0 {
		down = fmt.Sprintf("%d, %s", r.down, map[bool]string{true: "noticed", false: "just now"}[r.noticed])
	}
	fmt.Fprintf(out, "| %d | %s | %.0f %% | %.1f (%d) | %.1f (%d) | %.1f (%d) | %.0f | %.0f %% | %d | %.2f s | %.2f s | %.2f s (%.2f s) |\n",
		r.members, down, 100*r.fault.loss, r.meanLinks, r.mostLinks,
		float64(r.total.hopSum)/float64(r.total.reached), r.total.hops,
		float64(r.total.pushed)/members, r.total.mostPushed,
		float64(r.total.pushed*size)/members,
		100*float64(r.total.duplicates)/float64(max(1, r.total.arrived)), r.total.repairs,
		median(r.half).Seconds(), median(r.most).Seconds(), median(r.all).Seconds(), slices.Max(r.all).Seconds())
}
