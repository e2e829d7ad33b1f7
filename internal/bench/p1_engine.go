package main

import (
	"context"
	"fmt"
	"time"
)

// benchEngine is P1. Everything is in one process, so the memory and processor time
// of both ends come in one figure.
func benchEngine(ctx context.Context, e *env) error {
	size := int64(e.size(1 << 30))
	dir, err := e.temp("engine")
	if err != nil {
		return err
	}
	k, err := e.spawn("engine", "both ends", engineSetup{Dir: dir, Size: int(size)})
	if err != nil {
		return err
	}
	if err := k.call(ctx, "idle", none{}, nil); err != nil {
		return err
	}
	var bare, hashing, ours []time.Duration
	var use []spent
	for i := range e.runs {
		var b, h, o time.Duration
		if err := k.call(ctx, "raw", false, &b); err != nil {
			return err
		}
		if err := k.call(ctx, "raw", true, &h); err != nil {
			return err
		}
		m, err := measure(k)
		if err != nil {
			return err
		}
		if err := k.start(ctx); err != nil {
			return err
		}
		if err := k.call(ctx, "engine", none{}, &o); err != nil {
			return err
		}
		if err := k.finish(ctx); err != nil {
			return err
		}
		u, err := m.end()
		if err != nil {
			return err
		}
		e.progress("run %d: %.0f MiB/s, raw %.0f, raw with hashing %.0f", i+1, rateMiB(size, o), rateMiB(size, b), rateMiB(size, h))
		bare, hashing = append(bare, b), append(hashing, h)
		if ours = append(ours, o); o == median(ours) {
			use = u
		}
	}
	o, b, h := median(ours), median(bare), median(hashing)
	figure := fmt.Sprintf("%.0f MiB/s; %.1f CPU s", rateMiB(size, o), use[0].cpu.Seconds())
	for _, c := range []struct {
		name string
		base time.Duration
		want float64
	}{{"raw stream with the same hashing", h, 0.90}, {"bare raw stream", b, 0.65}} {
		ratio := c.base.Seconds() / o.Seconds()
		e.report(result{
			name: mib(size) + " through the engine", figure: figure,
			baseline: fmt.Sprintf("%s %.0f MiB/s", c.name, rateMiB(size, c.base)), ratio: ratio,
			limit: fmt.Sprintf("≥ %.2f ×", c.want), holds: ratio >= c.want,
		})
	}
	return nil
}
