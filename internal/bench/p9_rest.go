package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cansync/cansync/transport"
)

// quietBytes is what one small reconciliation a minute of both sets of a library,
// and the signs of life of its stream, may take in both directions.
const quietBytes = 1000

// benchRest is P9: two nodes that share ten libraries and are in step.
func benchRest(ctx context.Context, e *env) error {
	const libraries = 10
	count := e.size(100_000)
	long := 2 * time.Minute
	if e.quick {
		long = time.Minute // with one reconciliation in it
	}
	var dirs []string
	for range 2 {
		d, err := e.temp("node")
		if err != nil {
			return err
		}
		dirs = append(dirs, d)
	}
	// They meet while there is nothing to share, and get their records by hand.
	if err := e.scoped(ctx, func(ctx context.Context, e *env) error { return e.introduce(ctx, dirs, libraries) }); err != nil {
		return err
	}
	if err := e.seedNodes(ctx, count, dirs...); err != nil {
		return err
	}
	var svc, node []*child
	for i, name := range []string{"A", "B"} {
		s, url, err := e.fullService(ctx, "service "+name, count)
		if err != nil {
			return err
		}
		n, _, err := e.startNode(ctx, "node "+name, nodeSetup{Dir: dirs[i], Service: url, Count: true, FullScan: 24 * time.Hour})
		if err != nil {
			return err
		}
		svc, node = append(svc, s), append(node, n)
	}
	e.progress("starting")
	for _, n := range node {
		if err := n.call(ctx, "wait", count, nil); err != nil {
			return err
		}
	}
	if err := connect(ctx, node, libraries); err != nil {
		return err
	}
	if err := e.calm(ctx, node); err != nil {
		return err
	}
	return e.watchRest(ctx, svc, node, libraries, long)
}

// connect tells one node where the other is, since ports are others than before, and
// waits until they share all libraries.
func connect(ctx context.Context, node []*child, libraries int) error {
	var at transport.PeerInfo
	if err := node[0].call(ctx, "where", none{}, &at); err != nil {
		return err
	}
	if err := node[1].call(ctx, "learn", at, nil); err != nil {
		return err
	}
	var s nodeStatus
	for range 600 {
		if err := node[0].call(ctx, "status", none{}, &s); err != nil || s.Peers == libraries {
			return err
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("%d libraries of %d are shared after a minute", s.Peers, libraries)
}

// introduce makes libraries on one new node and lets another join them.
func (e *env) introduce(ctx context.Context, dirs []string, libraries int) error {
	var node []*child
	for i, name := range []string{"A", "B"} {
		_, url, err := e.startService(ctx, "service "+name, false)
		if err != nil {
			return err
		}
		n, _, err := e.startNode(ctx, "node "+name, nodeSetup{Dir: dirs[i], Service: url})
		if err != nil {
			return err
		}
		node = append(node, n)
	}
	for i := range libraries {
		var ticket string
		if err := node[0].call(ctx, "create", fmt.Sprintf("library %d", i), &ticket); err != nil {
			return err
		}
		if err := node[1].call(ctx, "join", joining{Ticket: ticket}, nil); err != nil {
			return err
		}
	}
	return nil
}

// calm waits until the nodes are through with what the data written for them and
// their start left to do: a database puts itself in order when it was idle for a
// while. Where it never becomes calm, the measurement shows it.
func (e *env) calm(ctx context.Context, node []*child) error {
	const (
		atLeast, atMost = 40 * time.Second, 3 * time.Minute
		window          = 5 * time.Second
	)
	e.progress("letting them come to rest")
	began := time.Now()
	for {
		m, err := measure(node...)
		if err != nil {
			return err
		}
		if err := pause(ctx, window); err != nil {
			return err
		}
		use, err := m.end()
		if err != nil {
			return err
		}
		busy := slices.ContainsFunc(use, func(u spent) bool { return u.cpu > window/50 || u.wrote > 1<<20 })
		if took := time.Since(began); took > atMost || took > atLeast && !busy {
			return nil
		}
	}
}

func (e *env) watchRest(ctx context.Context, svc, node []*child, libraries int, long time.Duration) error {
	e.progress("watching them rest for %v", long)
	read := func() (writes []int, carried map[string]int64, err error) {
		for _, s := range svc {
			var w int
			if err := s.call(ctx, "writes", none{}, &w); err != nil {
				return nil, nil, err
			}
			writes = append(writes, w)
		}
		return writes, carried, node[0].call(ctx, "carried", none{}, &carried)
	}
	writes, carried, err := read()
	if err != nil {
		return err
	}
	for _, n := range node {
		if err := n.start(ctx); err != nil {
			return err
		}
	}
	m, err := measure(node...)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := pause(ctx, long); err != nil {
		return err
	}
	took := time.Since(began)
	use, err := m.end()
	for _, n := range node {
		err = errors.Join(err, n.finish(ctx))
	}
	if err != nil {
		return err
	}
	writesNow, carriedNow, err := read()
	if err != nil {
		return err
	}
	share := 0.0
	for _, u := range use {
		share = max(share, u.cpu.Seconds()/took.Seconds())
	}
	e.report(result{
		name:   fmt.Sprintf("processor time at rest, %d libraries × %s", libraries, group(e.size(100_000))),
		figure: fmt.Sprintf("%.2f %% of a core, the busier of the two; %s", 100*share, describe(use)),
		limit:  "< 1 %", holds: share < 0.01,
	})
	e.report(result{
		name:   "writes to CAN Services at rest",
		figure: fmt.Sprintf("%d and %d in %.0f s", writesNow[0]-writes[0], writesNow[1]-writes[1], took.Seconds()),
		limit:  "none", holds: slices.Equal(writes, writesNow),
	})
	var sync int64
	var parts []string
	for _, p := range slices.Sorted(maps.Keys(carriedNow)) {
		d := carriedNow[p] - carried[p]
		if strings.HasPrefix(p, "/cansync/") {
			sync += d
		}
		if d > 0 && p != "total" {
			parts = append(parts, fmt.Sprintf("%s %s B", p, group(d)))
		}
	}
	perLibrary := float64(sync) / float64(libraries) / took.Minutes()
	e.report(result{
		name:   "traffic at rest",
		figure: fmt.Sprintf("%.0f B per library and minute in both directions (%s)", perLibrary, strings.Join(parts, ", ")),
		limit:  fmt.Sprintf("one small reconciliation and keep-alives, ≤ %d B", quietBytes), holds: perLibrary <= quietBytes,
	})
	return nil
}
