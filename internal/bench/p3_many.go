package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// startService starts a CAN Service: the reference service if ref is set, else the
// one in memory.
func (e *env) startService(ctx context.Context, name string, ref bool) (c *child, url string, err error) {
	var s serviceSetup
	if ref {
		if s.Dir, err = e.temp("service"); err != nil {
			return nil, "", err
		}
	}
	if c, err = e.spawn("service", name, s); err != nil {
		return nil, "", err
	}
	return c, url, c.call(ctx, "url", none{}, &url)
}

// startNode starts a node; without a directory it gets a new one.
func (e *env) startNode(ctx context.Context, name string, s nodeSetup) (c *child, dir string, err error) {
	if s.Dir == "" {
		if s.Dir, err = e.temp("node"); err != nil {
			return nil, "", err
		}
	}
	if c, err = e.spawn("node", name, s); err != nil {
		return nil, "", err
	}
	return c, s.Dir, c.call(ctx, "status", none{}, nil)
}

// shared is a library that a node has announced in full.
type shared struct {
	service, node *child
	url           string
	ticket        string
	announced     time.Duration
}

// share fills a reference service and lets a node announce all of it.
func (e *env) share(ctx context.Context, f filling) (s shared, err error) {
	if s.service, s.url, err = e.startService(ctx, "service A", true); err != nil {
		return s, err
	}
	e.progress("storing %s assets of %s B", group(f.Count), group(f.Size))
	if err := s.service.call(ctx, "fill", f, nil); err != nil {
		return s, err
	}
	if s.node, _, err = e.startNode(ctx, "node A", nodeSetup{Service: s.url}); err != nil {
		return s, err
	}
	e.progress("announcing")
	if err := s.node.call(ctx, "create", "bench", &s.ticket); err != nil {
		return s, err
	}
	return s, s.node.call(ctx, "wait", f.Count, &s.announced)
}

// synced is what a first sync took.
type synced struct {
	took time.Duration // from the ticket to the last asset in the receiver's service
	use  []spent
	// extra is the most disk that the receiving node took beyond what it took when
	// it was started, and staged what is left of it in its staging folder.
	extra, staged int64
	asked         string // the requests that the receiver's service answered
}

// firstSync lets a fresh node with a fresh service join and fetch everything.
func (e *env) firstSync(ctx context.Context, a shared, want int) (s synced, err error) {
	svc, url, err := e.startService(ctx, "service B", true)
	if err != nil {
		return s, err
	}
	node, dir, err := e.startNode(ctx, "node B", nodeSetup{Service: url})
	if err != nil {
		return s, err
	}
	all := []*child{a.service, a.node, node, svc}
	m, err := measure(all...)
	if err != nil {
		return s, err
	}
	for _, k := range all {
		if err := k.start(ctx); err != nil {
			return s, err
		}
	}
	disk := watchDisk(dir)
	err = node.call(ctx, "join", joining{Ticket: a.ticket, Want: int64(want)}, &s.took)
	s.extra = disk()
	var merr error
	s.use, merr = m.end()
	if err == nil {
		err = svc.call(ctx, "asked", none{}, &s.asked)
	}
	if err != nil { // what measuring says of processes that are gone is no news
		return s, err
	}
	errs := []error{merr}
	for _, k := range all {
		errs = append(errs, k.finish(ctx))
	}
	errs = append(errs, node.close(), svc.close())
	s.staged = diskUse(dir + "/stage")
	return s, errors.Join(errs...)
}

// plainCopy copies everything to a fresh service without cansync.
func (e *env) plainCopy(ctx context.Context, a shared) (s synced, err error) {
	svc, url, err := e.startService(ctx, "service C", true)
	if err != nil {
		return s, err
	}
	cp, err := e.spawn("copy", "copy", none{})
	if err != nil {
		return s, err
	}
	m, err := measure(a.service, cp, svc)
	if err != nil {
		return s, err
	}
	err = cp.call(ctx, "copy", copying{From: a.url, To: url}, &s.took)
	var merr error
	if s.use, merr = m.end(); err == nil {
		err = errors.Join(merr, svc.call(ctx, "asked", none{}, &s.asked))
	}
	return s, errors.Join(err, cp.close(), svc.close())
}

// benchMany is P3.
func benchMany(ctx context.Context, e *env) error {
	for _, c := range []struct {
		count int
		size  int64
	}{{10_000, 64 << 10}, {100_000, 1 << 10}} {
		if err := e.scoped(ctx, func(ctx context.Context, e *env) error {
			return manyAssets(ctx, e, e.size(c.count), c.size)
		}); err != nil {
			return err
		}
	}
	return nil
}

func manyAssets(ctx context.Context, e *env, count int, size int64) error {
	a, err := e.share(ctx, filling{Count: count, Size: size})
	if err != nil {
		return err
	}
	var ours, plain []time.Duration
	var runs, copies []synced
	for i := range e.runs {
		p, err := e.plainCopy(ctx, a)
		if err != nil {
			return err
		}
		plain, copies = append(plain, p.took), append(copies, p)
		s, err := e.firstSync(ctx, a, count)
		if err != nil {
			return err
		}
		e.progress("run %d: %.2f s, plain copy %.2f s", i+1, s.took.Seconds(), p.took.Seconds())
		ours, runs = append(ours, s.took), append(runs, s)
	}
	t, p := median(ours), median(plain)
	ratio := p.Seconds() / t.Seconds()
	e.report(result{
		name:     fmt.Sprintf("%s × %s B end to end", group(count), group(size)),
		figure:   fmt.Sprintf("%.2f s, %s assets/s; %s", t.Seconds(), group(int(perSecond(int64(count), t))), describe(middle(runs).use)),
		baseline: fmt.Sprintf("plain copy %.2f s, %s assets/s", p.Seconds(), group(int(perSecond(int64(count), p)))),
		ratio:    ratio, limit: "≥ 0.90 ×", holds: ratio >= 0.9,
	})
	e.note("plain copy: %s", describe(middle(copies).use))
	e.note("service B answered %s; service C %s", middle(runs).asked, middle(copies).asked)
	e.note("announced at %s assets/s before", group(int(perSecond(int64(count), a.announced))))
	return nil
}

// middle returns the run that took the median time.
func middle(runs []synced) synced {
	took := make([]time.Duration, len(runs))
	for i, r := range runs {
		took[i] = r.took
	}
	return runs[slices.Index(took, median(took))]
}
