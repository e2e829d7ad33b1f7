package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"
)

// verifyRate returns how many Ed25519 signatures over 300 bytes one core verifies
// in a second, one by one.
func verifyRate() (float64, error) {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return 0, err
	}
	msg := make([]byte, 300)
	sig := ed25519.Sign(key, msg)
	n := int64(0)
	began := time.Now()
	for time.Since(began) < 500*time.Millisecond {
		for range 100 {
			if !ed25519.Verify(pub, msg, sig) {
				return 0, errors.New("a good signature does not verify")
			}
			n++
		}
	}
	return perSecond(n, time.Since(began)), nil
}

// benchRecords is P4: a process that holds the records of a library and no
// contents, and one that joins it, both with a database and libp2p on loopback.
func benchRecords(ctx context.Context, e *env) error {
	n := e.size(100_000)
	dir, err := e.temp("records")
	if err != nil {
		return err
	}
	a, err := e.spawn("records", "sender", recordsSetup{Dir: dir})
	if err != nil {
		return err
	}
	var ticket string
	var load loaded
	if err := a.call(ctx, "create", none{}, &ticket); err != nil {
		return err
	}
	e.progress("storing %s records", group(n))
	if err := a.call(ctx, "load", n, &load); err != nil {
		return err
	}
	var rates, base []float64
	var use []spent
	for i := range e.runs {
		v, err := verifyRate()
		if err != nil {
			return err
		}
		base = append(base, v)
		rate, s, err := e.syncRecords(ctx, a, ticket, n)
		if err != nil {
			return err
		}
		e.progress("run %d: %.0f records/s; %s", i+1, rate, describe(s))
		rates = append(rates, rate)
		if rate == median(rates) {
			use = s
		}
	}
	rate, verify := median(rates), median(base)
	e.report(result{
		name:     fmt.Sprintf("first sync of %s records (%d B each on the wire)", group(n), load.Bytes/int64(n)),
		figure:   fmt.Sprintf("%s records/s; %s", group(int(rate)), describe(use)),
		baseline: fmt.Sprintf("%s Ed25519 verifications/s on one core", group(int(verify))),
		ratio:    rate / verify, limit: "≥ 2 ×", holds: rate >= 2*verify,
	})
	e.note("published at %s records/s", group(int(perSecond(int64(n), load.Took))))
	return nil
}

// syncRecords lets a new process join and returns how many records a second it took
// in, durably, from the moment at which it began to join.
func (e *env) syncRecords(ctx context.Context, a *child, ticket string, n int) (float64, []spent, error) {
	dir, err := e.temp("records")
	if err != nil {
		return 0, nil, err
	}
	b, err := e.spawn("records", "receiver", recordsSetup{Dir: dir})
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = b.close() }()
	if err := b.call(ctx, "idle", none{}, nil); err != nil { // until it is up
		return 0, nil, err
	}
	m, err := measure(a, b)
	if err != nil {
		return 0, nil, err
	}
	if err := errors.Join(a.start(ctx), b.start(ctx)); err != nil {
		return 0, nil, err
	}
	var took time.Duration
	err = b.call(ctx, "join", joinRecords{Ticket: ticket, Want: n}, &took)
	s, merr := m.end()
	if err != nil {
		return 0, nil, err
	}
	if err := errors.Join(merr, a.finish(ctx), b.finish(ctx), b.close()); err != nil {
		return 0, nil, err
	}
	return perSecond(int64(n), took), s, nil
}
