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
	var bare, hashing, ours []spell
	for i := range e.runs {
		var b, h, o spell
		if err := k.call(ctx, "raw", false, &b); err != nil {
			return err
		}
		if err := k.call(ctx, "raw", true, &h); err != nil {
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
		e.progress("run %d: %s, raw %s, raw with hashing %s", i+1, o.of(size), b.of(size), h.of(size))
		bare, hashing, ours = append(bare, b), append(hashing, h), append(ours, o)
	}
	o, b, h := usual(ours), usual(bare), usual(hashing)
	for _, c := range []struct {
		name string
		base spell
		want float64
	}{{"raw stream with the same hashing", h, 0.90}, {"bare raw stream", b, 0.65}} {
		ratio := c.base.Took.Seconds() / o.Took.Seconds()
		e.report(result{
			name: mib(size) + " through the engine", figure: o.of(size),
			baseline: c.name + " " + c.base.of(size), ratio: ratio,
			limit: fmt.Sprintf("≥ %.2f ×", c.want), holds: ratio >= c.want,
		})
	}
	// What hashing alone takes from the bare stream is out of the engine's hands; the
	// rest is its own. Processor time tells the two apart on a loaded machine too.
	e.note("the raw stream with the same hashing itself reaches %.2f × the bare one, by processor time %.2f ×; the engine by processor time %.2f × and %.2f ×",
		b.Took.Seconds()/h.Took.Seconds(), b.CPU.Seconds()/h.CPU.Seconds(), h.CPU.Seconds()/o.CPU.Seconds(), b.CPU.Seconds()/o.CPU.Seconds())
	return nil
}

// spell is what one transfer took.
type spell struct {
	Took time.Duration
	CPU  time.Duration // of both ends
}

// of describes a spell in which so many bytes came over.
func (s spell) of(size int64) string {
	return fmt.Sprintf("%.0f MiB/s, %.2f CPU s", rateMiB(size, s.Took), s.CPU.Seconds())
}

// usual returns the medians of the times and of the processor times.
func usual(all []spell) spell {
	var took, cpu []time.Duration
	for _, s := range all {
		took, cpu = append(took, s.Took), append(cpu, s.CPU)
	}
	return spell{median(took), median(cpu)}
}
