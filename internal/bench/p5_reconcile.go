package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/cansync/cansync/internal/reconcile"
	"github.com/cansync/cansync/internal/wire"
)

// benchKey keys the coded symbols of the bench.
var benchKey = reconcile.Key{'b', 'e', 'n', 'c', 'h'}

// randomIDs yields n ids that a seed decides.
func randomIDs(seed uint64, n int) iter.Seq2[reconcile.ID, error] {
	return func(yield func(reconcile.ID, error) bool) {
		src := source(seed)
		var id reconcile.ID
		for range n {
			_, _ = src.Read(id[:])
			if !yield(id, nil) {
				return
			}
		}
	}
}

func source(seed uint64) *rand.ChaCha8 {
	var key [32]byte
	wire.AppendU64(key[:0], seed)
	return rand.NewChaCha8(key)
}

// frameOverhead is what the sync stream adds to each message: length, type, set
// and round.
const frameOverhead = 4 + 1 + 1 + 4

// exchange is what one reconciliation took.
type exchange struct {
	bytes, rounds, scans, symbols int
	missing, surplus              int // as the initiator found them
}

// reconcileOnce runs both ends of a reconciliation.
func reconcileOnce(a, b *reconcile.Snapshot) (x exchange, err error) {
	ini, first, err := reconcile.NewInitiator(a, reconcile.Config{})
	if err != nil {
		return x, err
	}
	res, err := reconcile.NewResponder(b, reconcile.Config{})
	if err != nil {
		return x, err
	}
	messages := 0
	deliver := func(s *reconcile.Session, in [][]byte, ours bool) (out [][]byte, err error) {
		for _, m := range in {
			messages++
			step, err := s.Handle(m)
			switch {
			case err != nil:
				return nil, err
			case step.Scan != nil:
				return nil, errors.New("a session asked for a scan")
			case step.Bulk != nil:
				return nil, errors.New("a session chose to send everything")
			}
			if ours {
				x.missing += len(step.Missing)
				x.surplus += len(step.Surplus)
			}
			out = append(out, step.Send...)
		}
		return out, nil
	}
	toB := [][]byte{first}
	for len(toB) > 0 {
		toA, err := deliver(res, toB, false)
		if err != nil {
			return x, err
		}
		if toB, err = deliver(ini, toA, true); err != nil {
			return x, err
		}
	}
	si, sr := ini.Stats(), res.Stats()
	x.bytes = si.BytesSent + si.BytesReceived + messages*frameOverhead
	x.rounds, x.scans, x.symbols = si.Rounds, si.Scans+sr.Scans, si.Symbols
	return x, nil
}

// differing returns two copies of the base that differ in d ids, half of them on
// each side.
func differing(base *reconcile.Set, d int, seed uint64) (x, y *reconcile.Set, err error) {
	x, y = reconcile.NewSet(benchKey, 0), reconcile.NewSet(benchKey, 0)
	if err := errors.Join(x.Merge(base), y.Merge(base)); err != nil {
		return nil, nil, err
	}
	i := 0
	for id := range randomIDs(seed, d) {
		if i++; i%2 == 0 {
			x.Insert(id)
		} else {
			y.Insert(id)
		}
	}
	return x, y, nil
}

// benchReconcile is P5. Each figure is the median over many pairs of sets; the
// worst is told too, since how many symbols decode is a matter of chance.
func benchReconcile(ctx context.Context, e *env) error {
	n := e.size(1_000_000)
	base, err := reconcile.Build(benchKey, 0, randomIDs(1, n))
	if err != nil {
		return err
	}
	for _, c := range []struct {
		diff, pairs, bytes, rounds int
		cpu                        time.Duration // 0 is no limit
		limit                      string
	}{
		{0, 1, 200, 1, 5 * time.Millisecond, "≤ 200 B, 1 round trip, no scan, < 5 ms CPU"},
		{10, 200, 3_000, 2, 5 * time.Millisecond, "≤ 3,000 B, ≤ 2 round trips, no scan, < 5 ms CPU"},
		{1_000, 50, 120_000, 2, 0, "≤ 120,000 B, ≤ 2 round trips, no scan"},
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		var bytes, rounds, symbols []int
		var cpu []time.Duration
		scans := 0
		for pair := range c.pairs {
			x, y, err := differing(base, c.diff, uint64(1000*c.diff+pair+2))
			if err != nil {
				return err
			}
			sx, sy := x.Snapshot(), y.Snapshot()
			const repeat = 20 // one run is shorter than the clock can tell
			var ex exchange
			began := ownCPU()
			for range repeat {
				if ex, err = reconcileOnce(sx, sy); err != nil {
					return fmt.Errorf("%d differences: %w", c.diff, err)
				}
			}
			cpu = append(cpu, (ownCPU()-began)/repeat)
			if ex.missing+ex.surplus != c.diff {
				return fmt.Errorf("%d differences of %d found", ex.missing+ex.surplus, c.diff)
			}
			bytes, rounds, symbols = append(bytes, ex.bytes), append(rounds, ex.rounds), append(symbols, ex.symbols)
			scans += ex.scans
		}
		perDiff := ""
		if c.diff > 0 {
			perDiff = fmt.Sprintf(", %.2f symbols and %.0f B per difference", float64(median(symbols))/float64(c.diff), float64(median(bytes))/float64(c.diff))
		}
		listing := 32 * n
		e.report(result{
			name: fmt.Sprintf("%s of %s differ", group(c.diff), group(n)),
			figure: fmt.Sprintf("%s B in both directions (worst of %d: %s), %d round trips (worst %d), %d scans%s, %s CPU of both ends",
				group(median(bytes)), c.pairs, group(largest(bytes)), median(rounds), largest(rounds), scans, perDiff, ms(median(cpu))),
			baseline: fmt.Sprintf("listing all ids %s B", group(listing)), ratio: 0,
			limit: c.limit,
			holds: median(bytes) <= c.bytes && median(rounds) <= c.rounds && scans == 0 && (c.cpu == 0 || median(cpu) < c.cpu),
		})
	}
	return nil
}
