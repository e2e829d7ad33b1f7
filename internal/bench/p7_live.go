package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cansync/cansync/can"
)

// meeting is two nodes that share a library, each with a reference service.
type meeting struct {
	svc, node [2]*child
	url       [2]string
}

func (e *env) meet(ctx context.Context) (m meeting, err error) {
	for i, n := range []string{"A", "B"} {
		if m.svc[i], m.url[i], err = e.startService(ctx, "service "+n, true); err != nil {
			return m, err
		}
		if m.node[i], _, err = e.startNode(ctx, "node "+n, nodeSetup{Service: m.url[i]}); err != nil {
			return m, err
		}
	}
	var ticket string
	if err := m.node[0].call(ctx, "create", "bench", &ticket); err != nil {
		return m, err
	}
	return m, m.node[1].call(ctx, "join", joining{Ticket: ticket}, nil)
}

func (m meeting) all() []*child { return []*child{m.svc[0], m.node[0], m.node[1], m.svc[1]} }

// benchLive is P7.
func benchLive(ctx context.Context, e *env) error {
	n := max(e.size(2_000), 200)
	if err := e.scoped(ctx, func(ctx context.Context, e *env) error { return liveHTTP(ctx, e, n) }); err != nil {
		return err
	}
	return e.scoped(ctx, func(ctx context.Context, e *env) error { return livePair(ctx, e, n) })
}

// liveHTTP times assets from the answer to their ingest on A to the event by which
// B's service says that it lists them.
func liveHTTP(ctx context.Context, e *env, n int) error {
	m, err := e.meet(ctx)
	if err != nil {
		return err
	}
	watcher, err := can.NewHTTPClient(m.url[1], can.HTTPOptions{})
	if err != nil {
		return err
	}
	defer func() { _ = watcher.Close() }()
	arrived, stop := arrivals(ctx, watcher)
	defer stop()
	mt, err := measure(m.all()...)
	if err != nil {
		return err
	}
	for _, k := range m.all() {
		if err := k.start(ctx); err != nil {
			return err
		}
	}
	var answered, sent []time.Duration
	for i := range n {
		content := fmt.Appendf(nil, "%01024d", i)
		sum := sha256.Sum256(content)
		began := time.Now()
		if err := ingest(ctx, http.DefaultClient, m.url[0], bytes.NewReader(content), benchMetadata(i), benchTimestamp(i)); err != nil {
			return err
		}
		stored := time.Now()
		at, err := arrived(can.Digest(sum).String())
		if err != nil {
			return err
		}
		answered, sent = append(answered, at.Sub(stored)), append(sent, at.Sub(began))
		time.Sleep(liveGap)
	}
	use, err := mt.end()
	for _, k := range m.all() {
		err = errors.Join(err, k.finish(ctx))
	}
	if err != nil {
		return err
	}
	p50, p99 := quantile(answered, 0.5), quantile(answered, 0.99)
	e.report(result{
		name: fmt.Sprintf("live over HTTP with events, %s × 1 KiB", group(n)),
		figure: fmt.Sprintf("p50 %s, p99 %s (counted from before the ingest %s and %s); %s",
			ms(p50), ms(p99), ms(quantile(sent, 0.5)), ms(quantile(sent, 0.99)), describe(use)),
		limit: "p50 ≤ 10 ms, p99 ≤ 30 ms", holds: p50 <= 10*time.Millisecond && p99 <= 30*time.Millisecond,
	})
	return nil
}

func livePair(ctx context.Context, e *env, n int) error {
	dir, err := e.temp("pair")
	if err != nil {
		return err
	}
	k, err := e.spawn("pair", "pair", pairSetup{Dir: dir})
	if err != nil {
		return err
	}
	if err := k.call(ctx, "live", 20, nil); err != nil { // to warm up
		return err
	}
	if err := k.start(ctx); err != nil {
		return err
	}
	var took []time.Duration
	if err := k.call(ctx, "live", n, &took); err != nil {
		return err
	}
	if err := k.finish(ctx); err != nil {
		return err
	}
	p50, p99 := quantile(took, 0.5), quantile(took, 0.99)
	e.report(result{
		name:   fmt.Sprintf("live with clients in the process, %s × 1 KiB", group(n)),
		figure: fmt.Sprintf("p50 %s, p99 %s", ms(p50), ms(p99)),
		limit:  "p50 ≤ 3 ms", holds: p50 <= 3*time.Millisecond,
	})
	return nil
}

// benchBurst is P7b.
func benchBurst(ctx context.Context, e *env) error {
	n := e.size(10_000)
	var late, plain []time.Duration
	var rates []float64
	for i := range e.runs {
		if err := e.scoped(ctx, func(ctx context.Context, e *env) error {
			l, rate, p, err := burst(ctx, e, n)
			e.progress("run %d: ingested at %.0f/s, converged %.2f s after, plain copy %.2f s", i+1, rate, l.Seconds(), p.Seconds())
			late, plain, rates = append(late, l), append(plain, p), append(rates, rate)
			return err
		}); err != nil {
			return err
		}
	}
	l, p := median(late), median(plain)
	e.report(result{
		name:     fmt.Sprintf("burst of %s × 1 KiB", group(n)),
		figure:   fmt.Sprintf("all on B %.2f s after the last was ingested (at %s/s)", l.Seconds(), group(int(median(rates)))),
		baseline: fmt.Sprintf("plain copy %.2f s", p.Seconds()), ratio: l.Seconds() / p.Seconds(),
		limit: fmt.Sprintf("≤ 2 s + plain copy = %.2f s", (p + 2*time.Second).Seconds()), holds: l <= p+2*time.Second,
	})
	return nil
}

func burst(ctx context.Context, e *env, n int) (late time.Duration, rate float64, plain time.Duration, err error) {
	m, err := e.meet(ctx)
	if err != nil {
		return 0, 0, 0, err
	}
	for _, k := range m.all() {
		if err := k.start(ctx); err != nil {
			return 0, 0, 0, err
		}
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2 * copyWorkers}}
	defer client.CloseIdleConnections()
	began := time.Now()
	if err := ingestMany(ctx, client, m.url[0], n); err != nil {
		return 0, 0, 0, err
	}
	last := time.Now()
	if err := m.node[1].call(ctx, "wait", n, nil); err != nil {
		return 0, 0, 0, err
	}
	late = time.Since(last)
	for _, k := range m.all() {
		err = errors.Join(err, k.finish(ctx))
	}
	if err != nil {
		return 0, 0, 0, err
	}
	there, err := can.NewHTTPClient(m.url[1], can.HTTPOptions{})
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { _ = there.Close() }()
	page, err := there.List(ctx, can.ListOptions{Limit: 1})
	if err != nil {
		return 0, 0, 0, err
	}
	if page.Total != n {
		return 0, 0, 0, fmt.Errorf("%d assets of %d on B", page.Total, n)
	}
	copied, err := e.plainCopy(ctx, shared{service: m.svc[0], url: m.url[0]})
	return late, perSecond(int64(n), last.Sub(began)), copied.took, err
}

// ingestMany posts n contents of 1 KiB as fast as the service takes them.
func ingestMany(ctx context.Context, client *http.Client, url string, n int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range copyWorkers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				content := fmt.Appendf(nil, "%01024d", i)
				if err := ingest(ctx, client, url, bytes.NewReader(content), benchMetadata(i), benchTimestamp(i)); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
