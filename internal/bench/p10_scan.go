package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/cansync/cansync/can"
)

// scanEvery is the time between full scans that a node is set to by default, and
// scanPause the one that it is set to here.
const (
	scanEvery = 5 * time.Minute
	scanPause = 5 * time.Second
)

// benchScan is P10. The service of a million assets is the one in memory, over HTTP
// in a process of its own. The reference service is measured with a tenth of that,
// since filling it takes long.
func benchScan(ctx context.Context, e *env) error {
	n := e.size(1_000_000)
	if err := e.scoped(ctx, func(ctx context.Context, e *env) error {
		svc, node, err := e.oldNode(ctx, n, nodeSetup{FullScan: scanPause})
		if err != nil {
			return err
		}
		return e.scans(ctx, svc, node, n, "service in memory")
	}); err != nil {
		return err
	}
	n /= 10
	return e.scoped(ctx, func(ctx context.Context, e *env) error {
		svc, url, err := e.startService(ctx, "service", true)
		if err != nil {
			return err
		}
		e.progress("storing %s assets", group(n))
		if err := svc.call(ctx, "fill", filling{Count: n, Size: oldAssetSize}, nil); err != nil {
			return err
		}
		s := nodeSetup{Service: url, FullScan: scanPause}
		if s.Dir, err = e.temp("node"); err != nil {
			return err
		}
		if err := e.seedNodes(ctx, n, s.Dir); err != nil {
			return err
		}
		node, _, err := e.startNode(ctx, "node", s)
		if err != nil {
			return err
		}
		return e.scans(ctx, svc, node, n, "reference service")
	})
}

// scans measures full scans, and assets that are ingested while one runs.
func (e *env) scans(ctx context.Context, svc, node *child, count int, what string) error {
	e.progress("the first full scan")
	last, err := nextScan(ctx, node, time.Time{})
	if err != nil {
		return err
	}
	if err := node.call(ctx, "wait", count, nil); err != nil {
		return err
	}
	var ours, theirs []time.Duration
	var peak int64
	if err := errors.Join(svc.start(ctx), node.start(ctx)); err != nil {
		return err
	}
	for range e.runs {
		// What the node does at rest is not the scan's: see P9.
		if err := pause(ctx, time.Until(last.Add(scanPause-200*time.Millisecond))); err != nil {
			return err
		}
		m, err := measure(node, svc)
		if err != nil {
			return err
		}
		if last, err = nextScan(ctx, node, last); err != nil {
			return err
		}
		use, err := m.end()
		if err != nil {
			return err
		}
		ours, theirs, peak = append(ours, use[0].cpu), append(theirs, use[1].cpu), max(peak, use[0].peak)
	}
	if err := errors.Join(svc.finish(ctx), node.finish(ctx)); err != nil {
		return err
	}
	memory := int64(300 << 20) // as of P8
	if count <= 100_000 {
		memory = 150 << 20
	}
	cpu := median(ours)
	share := cpu.Seconds() / scanEvery.Seconds()
	allowed := 0.05 * float64(count) / 1_000_000 // the budget is for a million
	e.report(result{
		name: fmt.Sprintf("full scan of %s assets, %s", group(count), what),
		figure: fmt.Sprintf("%.2f CPU s, %.1f µs an asset, %.2f %% of a core every %v (service %.2f CPU s); %s at most",
			cpu.Seconds(), 1e6*cpu.Seconds()/float64(count), 100*share, scanEvery, median(theirs).Seconds(), mib(peak)),
		limit: fmt.Sprintf("≤ %.2f %%, %s", 100*allowed, mib(memory)), holds: share <= allowed && peak <= memory,
	})
	return e.duringScans(ctx, svc, node, count, what)
}

// duringScans times assets from the answer to their ingest until the node has
// announced them, while it scans over and over.
func (e *env) duringScans(ctx context.Context, svc, node *child, count int, what string) error {
	var url string
	if err := svc.call(ctx, "url", none{}, &url); err != nil {
		return err
	}
	var took []time.Duration
	const live = 300
	for i := range live {
		content := fmt.Appendf(nil, "live %0100d", i)
		d := can.Digest(sha256.Sum256(content))
		if err := ingest(ctx, http.DefaultClient, url, bytes.NewReader(content), benchMetadata(i), benchTimestamp(count+i)); err != nil {
			return err
		}
		var t time.Duration
		if err := node.call(ctx, "announced", d.String(), &t); err != nil {
			return err
		}
		took = append(took, t)
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	p50, p99 := quantile(took, 0.5), quantile(took, 0.99)
	e.report(result{
		name:   fmt.Sprintf("announcing new assets meanwhile, %s", what),
		figure: fmt.Sprintf("p50 %s, p99 %s", ms(p50), ms(p99)),
		limit:  "p99 ≤ 30 ms", holds: p99 <= 30*time.Millisecond,
	})
	return nil
}
