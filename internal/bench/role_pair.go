package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
)

// pairSetup is the setup of the role "pair": a host program with two nodes on
// loopback, each with its CAN Service in the same process.
type pairSetup struct{ Dir string }

type pair struct {
	svc  [2]*cantest.Service
	node [2]*cansync.Node
	next int
}

func openPair(ctx context.Context, log *slog.Logger, s pairSetup) (*role, error) {
	p := &pair{}
	if err := p.open(ctx, log, s.Dir); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return &role{
		methods: map[string]func(context.Context, json.RawMessage) (any, error){"live": method(p.live)},
		close:   p.close,
	}, nil
}

func (p *pair) open(ctx context.Context, log *slog.Logger, dir string) (err error) {
	for i := range p.node {
		p.svc[i] = cantest.New(cantest.Options{})
		p.node[i], err = cansync.New(ctx, cansync.Config{
			CAN: p.svc[i], DataDir: fmt.Sprintf("%s/%d", dir, i), Transport: lanTransport, Logger: log,
		})
		if err != nil {
			return err
		}
	}
	l, err := p.node[0].CreateLibrary(ctx, "bench", cansync.Filter{})
	if err != nil {
		return err
	}
	t, err := l.Invite(ctx, cansync.InviteOptions{})
	if err != nil {
		return err
	}
	if l, err = p.node[1].Join(ctx, t); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return l.Wait(ctx)
}

func (p *pair) close() error {
	var errs []error
	for i := range p.node {
		if p.node[i] != nil {
			errs = append(errs, p.node[i].Close())
		}
		if p.svc[i] != nil {
			errs = append(errs, p.svc[i].Close())
		}
	}
	return errors.Join(errs...)
}

// live adds assets to one service, one after another, and returns how long each
// took until the other had it.
func (p *pair) live(ctx context.Context, n int) (took []time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	arrived, stop := arrivals(ctx, p.svc[1])
	defer stop()
	for range n {
		p.next++
		content := fmt.Appendf(nil, "%01024d", p.next)
		began := time.Now()
		a := p.svc[0].Add(content, benchMetadata(p.next))
		at, err := arrived(a.Handle)
		if err != nil {
			return nil, err
		}
		took = append(took, at.Sub(began))
		time.Sleep(liveGap)
	}
	return took, nil
}

// liveGap is the pause between two assets whose way is timed.
const liveGap = 10 * time.Millisecond

type arrival struct {
	handle string
	at     time.Time
}

// arrivals watches a CAN Service for new assets. It returns once the watch stands.
// The function arrived waits for a handle; others that come before are passed over.
func arrivals(ctx context.Context, w can.Watcher) (arrived func(handle string) (time.Time, error), stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	seen := make(chan arrival, 1<<14)
	up := make(chan struct{})
	ended := make(chan error, 1)
	first := true
	go func() {
		ended <- w.Watch(ctx, func(ev can.Event) {
			if first {
				first = false
				close(up)
				return
			}
			if ev.Kind == can.EventNew {
				select {
				case seen <- arrival{ev.Asset.Handle, time.Now()}:
				default:
				}
			}
		})
	}()
	select {
	case <-up:
	case err := <-ended:
		ended <- err
	}
	arrived = func(handle string) (time.Time, error) {
		t := time.NewTimer(time.Minute)
		defer t.Stop()
		for {
			select {
			case a := <-seen:
				if a.handle == handle {
					return a.at, nil
				}
			case err := <-ended:
				ended <- err
				return time.Time{}, fmt.Errorf("watch: %w", err)
			case <-t.C:
				return time.Time{}, fmt.Errorf("%s did not come within a minute", handle)
			}
		}
	}
	return arrived, func() { cancel(); <-ended }
}
