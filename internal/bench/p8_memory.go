package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// oldAssetSize is the size of the assets of nodes that have been in step for long.
// Their contents are not read again.
const oldAssetSize = 64

// seedNodes writes the data of nodes that hold so many assets in each library.
func (e *env) seedNodes(ctx context.Context, count int, dirs ...string) error {
	k, err := e.spawn("seed", "seed", none{})
	if err != nil {
		return err
	}
	e.progress("writing the data of %d nodes with %s records in each library", len(dirs), group(count))
	err = k.call(ctx, "seed", seeding{Dirs: dirs, filling: filling{Count: count, Size: oldAssetSize}}, nil)
	return errors.Join(err, k.close())
}

// fullService starts a CAN Service in memory that holds the assets of a seeded node.
func (e *env) fullService(ctx context.Context, name string, count int) (*child, string, error) {
	c, url, err := e.startService(ctx, name, false)
	if err != nil {
		return nil, "", err
	}
	return c, url, c.call(ctx, "fill", filling{Count: count, Size: oldAssetSize}, nil)
}

// oldNode starts a node that has held so many assets for long, beside its service.
func (e *env) oldNode(ctx context.Context, count int, s nodeSetup) (svc, node *child, err error) {
	if s.Dir, err = e.temp("node"); err != nil {
		return nil, nil, err
	}
	if err := e.seedNodes(ctx, count, s.Dir); err != nil {
		return nil, nil, err
	}
	if svc, s.Service, err = e.fullService(ctx, "service", count); err != nil {
		return nil, nil, err
	}
	node, _, err = e.startNode(ctx, "node", s)
	return svc, node, err
}

// nextScan returns when a full scan of the service has ended after a time.
func nextScan(ctx context.Context, node *child, after time.Time) (time.Time, error) {
	limit := time.Now().Add(longest)
	for {
		var at time.Time
		if err := node.call(ctx, "scanned", none{}, &at); err != nil {
			return at, err
		}
		if at.After(after) {
			return at, nil
		}
		if time.Now().After(limit) {
			return at, fmt.Errorf("no full scan within %v", longest)
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return at, err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// benchMemory is P8.
func benchMemory(ctx context.Context, e *env) error {
	for _, c := range []struct {
		count int
		limit int64
	}{{100_000, 150 << 20}, {1_000_000, 300 << 20}} {
		if err := e.scoped(ctx, func(ctx context.Context, e *env) error {
			return memoryOf(ctx, e, e.size(c.count), c.limit)
		}); err != nil {
			return err
		}
	}
	return nil
}

func memoryOf(ctx context.Context, e *env, count int, limit int64) error {
	_, node, err := e.oldNode(ctx, count, nodeSetup{})
	if err != nil {
		return err
	}
	if err := node.start(ctx); err != nil {
		return err
	}
	m, err := measure(node)
	if err != nil {
		return err
	}
	began := time.Now()
	e.progress("starting, and the first full scan")
	at, err := nextScan(ctx, node, time.Time{})
	if err != nil {
		return err
	}
	if err := node.call(ctx, "wait", count, nil); err != nil {
		return err
	}
	if err := pause(ctx, 10*time.Second); err != nil {
		return err
	}
	use, err := m.end()
	if err != nil {
		return err
	}
	var rest []int64
	for range 20 {
		u, err := usageOf(node.pid())
		if err != nil {
			return err
		}
		rest = append(rest, u.anon)
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	if err := node.finish(ctx); err != nil {
		return err
	}
	peak := max(use[0].peak, slices.Max(rest))
	e.report(result{
		name:   fmt.Sprintf("memory with %s records", group(count)),
		figure: fmt.Sprintf("%s at most while starting and scanning (%.1f s), %s at rest", mib(peak), at.Sub(began).Seconds(), mib(median(rest))),
		limit:  "≤ " + mib(limit), holds: peak <= limit,
	})
	return nil
}
