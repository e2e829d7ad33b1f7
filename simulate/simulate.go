package simulate

import (
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/transport/memory"
)

// A flag is the one thing that a test package can't be given otherwise.
var seedFlag = flag.Uint64("simulate.seed", 0, "run only the world of this seed, with its logs")

// Options of a simulation. The zero value is one world of three peers with every
// kind of fault.
type Options struct {
	// Seed of the first world; 0 means 1. Further worlds count up from it.
	Seed uint64
	// Seeds is the number of worlds; 0 means 1. A tenth of them runs under
	// -test.short, and more until each kind of fault had an effect. More than one
	// run in parallel, which needs a test that is not in a bubble itself.
	Seeds int
	// Peers that share the library from the start; 0 means 3.
	Peers int
	// Filter and Policy of the library.
	Filter cansync.Filter
	Policy cansync.DeletePolicy
	// Link is how peers are connected while nothing is broken.
	Link memory.Link
	// Network makes what connects the peers of a world from a seed; nil means a
	// network in memory. The kinds of faults below have the effects that it gives
	// them.
	Network func(seed uint64) Network
	// Assets is about how many contents each [World.Chaos] adds in all; 0 means what
	// comes of a few in some of its steps.
	Assets int
	// Faults are the kinds that [World.Chaos] draws from; nil means all, an empty
	// slice none. Run fails if one of them never had an effect. Faults that a test
	// injects by hand may be listed too.
	Faults []Fault
	// Bound is how long [World.Settle] waits for the peers to agree; 0 means 15
	// minutes, of which a service without events and changes takes up to five for
	// the next full listing, and one whose contents could not be read as much.
	Bound time.Duration
	// Service changes how the CAN Service of the peer with the number i is made; nil
	// leaves the mix of hash rules and missing features that the seed draws.
	Service func(i int, o *cantest.Options)
	// Client makes the client that a node is given; nil means the service itself.
	// A client with a Close method is closed after its node.
	Client func(*cantest.Service) can.Client
	// Configure changes a node's configuration before each start; nil leaves it.
	Configure func(i int, c *cansync.Config)
	// Logger makes the logger of the peer with the number i; nil discards, except
	// when a single seed is run again.
	Logger func(t testing.TB, i int) *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Seed == 0 {
		o.Seed = 1
	}
	if o.Seeds == 0 {
		o.Seeds = 1
	}
	if o.Peers == 0 {
		o.Peers = 3
	}
	if o.Faults == nil {
		o.Faults = AllFaults()
	}
	if o.Bound == 0 {
		o.Bound = 15 * time.Minute
	}
	return o
}

// Run calls f with a new world for each seed. The peers of the world are members of
// its library by then. What is left of the world when f returns is closed.
func Run(t *testing.T, o Options, f func(w *World)) {
	t.Helper()
	o = o.withDefaults()
	if again := *seedFlag; again != 0 {
		o.Seed, o.Seeds = again, 1
		if o.Logger == nil {
			o.Logger = func(t testing.TB, i int) *slog.Logger {
				return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("peer", i)
			}
		}
	}
	total := &counters{}
	began := time.Now()
	ran, ok := 0, true
	for next := o.Seeds; ran < o.Seeds && ok; {
		if testing.Short() {
			if ran > 0 && len(total.missing(o.Faults)) == 0 {
				break
			}
			next = min((o.Seeds+9)/10, o.Seeds-ran)
		}
		ok = t.Run("worlds", func(t *testing.T) { batch(t, o, o.Seed+uint64(ran), next, total, f) })
		ran += next
	}
	t.Logf("%d seeds, %.0f a minute; faults: %s", ran, float64(ran)/time.Since(began).Minutes(), total)
	if *seedFlag != 0 || !ok || t.Failed() {
		return
	}
	for _, kind := range total.missing(o.Faults) {
		t.Errorf("no fault of the kind %q had an effect (%s): the test shows nothing about it", kind, total)
	}
}

// batch runs n worlds from a seed on; it returns when all have ended.
func batch(t *testing.T, o Options, from uint64, n int, total *counters, f func(w *World)) {
	test, _, _ := strings.Cut(t.Name(), "/worlds")
	for i := range n {
		seed := from + uint64(i)
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			if n > 1 {
				t.Parallel()
			}
			synctest.Test(t, func(t *testing.T) {
				t.Cleanup(func() {
					if t.Failed() {
						t.Logf("seed %d failed; run it again with: %s", seed, replay(test, seed))
					}
				})
				w := newWorld(t, seed, o, total)
				defer w.close()
				w.begin()
				f(w)
			})
		})
	}
}

// replay returns the command that runs one seed of a test again.
func replay(test string, seed uint64) string {
	var run []string
	for part := range strings.SplitSeq(test, "/") {
		run = append(run, "^"+part+"$")
	}
	return fmt.Sprintf("go test -run '%s' . -simulate.seed %d", strings.Join(run, "/"), seed)
}

// counters count the effects of faults. They are safe for concurrent use.
type counters struct {
	mu sync.Mutex
	n  map[Fault]int
	up *counters // that of all worlds, or nil
}

func (c *counters) add(f Fault, n int) {
	if c == nil || n == 0 {
		return
	}
	c.mu.Lock()
	if c.n == nil {
		c.n = make(map[Fault]int)
	}
	c.n[f] += n
	c.mu.Unlock()
	c.up.add(f, n)
}

func (c *counters) get(f Fault) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[f]
}

// missing returns the kinds that had no effect.
func (c *counters) missing(kinds []Fault) []Fault {
	return slices.DeleteFunc(slices.Clone(kinds), func(f Fault) bool { return c.get(f) > 0 })
}

func (c *counters) all() map[Fault]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.n)
}

// String lists the counts by kind.
func (c *counters) String() string {
	all := c.all()
	var parts []string
	for _, f := range slices.Sorted(maps.Keys(all)) {
		parts = append(parts, fmt.Sprintf("%s %d", f, all[f]))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}
