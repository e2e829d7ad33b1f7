package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// benchBulk is P2: one asset of 1 GiB, from the sender's CAN Service to the
// receiver's.
func benchBulk(ctx context.Context, e *env) error {
	size := int64(e.size(1 << 30))
	dir, err := e.temp("tls")
	if err != nil {
		return err
	}
	server, err := e.spawn("tls-server", "tls server", plainTLS{Dir: dir, Size: size})
	if err != nil {
		return err
	}
	var at fileAt
	if err := server.call(ctx, "at", none{}, &at); err != nil {
		return err
	}
	client, err := e.spawn("tls-client", "tls client", plainTLS{Dir: dir, Size: size})
	if err != nil {
		return err
	}
	a, err := e.share(ctx, filling{Count: 1, Size: size})
	if err != nil {
		return err
	}
	var plain, ours []time.Duration
	var runs, downloads []synced
	for i := range e.runs {
		var p time.Duration
		m, err := measure(server, client)
		if err != nil {
			return err
		}
		err = client.call(ctx, "get", at, &p)
		use, merr := m.end()
		if err != nil {
			return err
		}
		if merr != nil {
			return merr
		}
		s, err := e.firstSync(ctx, a, 1)
		if err != nil {
			return err
		}
		e.progress("run %d: %.0f MiB/s, TLS download %.0f MiB/s", i+1, rateMiB(size, s.took), rateMiB(size, p))
		plain, ours, runs = append(plain, p), append(ours, s.took), append(runs, s)
		downloads = append(downloads, synced{took: p, use: use})
	}
	if err := errors.Join(client.close(), server.close()); err != nil {
		return err
	}
	t, p, mid := median(ours), median(plain), middle(runs)
	ratio := p.Seconds() / t.Seconds()
	e.report(result{
		name:     mib(size) + " end to end",
		figure:   fmt.Sprintf("%.0f MiB/s; %s", rateMiB(size, t), describe(mid.use)),
		baseline: fmt.Sprintf("TLS 1.3 download to a file %.0f MiB/s", rateMiB(size, p)),
		ratio:    ratio, limit: "≥ 0.45 ×", holds: ratio >= 0.45,
	})
	e.report(result{
		name:   "disk beside the CAN Services",
		figure: fmt.Sprintf("%s more while running, %s in the staging folder afterwards", mib(mid.extra), mib(mid.staged)),
		ratio:  float64(mid.extra) / float64(size), baseline: "the asset " + mib(size),
		limit: "≤ 1.20 ×, 0 at rest", holds: float64(mid.extra) <= 1.2*float64(size) && mid.staged < 1<<20,
	})
	e.note("TLS download: %s", describe(middle(downloads).use))
	e.note("announced at %.0f MiB/s before; node B took %s at most", rateMiB(size, a.announced), mib(mid.use[2].peak))
	return nil
}
