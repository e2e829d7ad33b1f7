package fetch

import (
	"context"
	"time"

	"github.com/cansync/cansync/internal/ingest"
)

const (
	// aheadMin is the size from which on a content is worth being ingested while it
	// comes, and aheadSeen how much of it has to have come before it is known how
	// fast it does.
	aheadMin  = 4 << 20
	aheadSeen = 1 << 20
	// An ingest occupies the service for as long as it lasts. It is begun ahead when
	// the rest of the content will have come by the time at which a service that
	// takes serviceRate bytes per second would need it, or within aheadTime: small
	// contents that wait meanwhile leave room for one large one, so that is how long
	// they do without one of the service's places.
	serviceRate = 256 << 20
	aheadTime   = 10 * time.Second
)

// ahead ingests a content while it comes. What it sends is verified group by group,
// and its end is withheld until the digest of the whole is: an ingest whose content
// turns out wrong, or stops coming, is never completed. The calls are made by one
// goroutine.
type ahead struct {
	f   *Fetcher
	ctx context.Context
	job ingest.Job
	off bool

	early   Early
	from    int64 // bytes that were there before
	since   time.Time
	running chan struct{} // nil before it runs; closed when it ended
	cancel  context.CancelFunc
	res     ingest.Result
	err     error
}

// offer takes the content in hand.
func (a *ahead) offer(e Early) {
	if a.job.Size >= aheadMin && !a.off {
		a.early = e
	}
}

// advance takes note of how much is there, and begins when the time has come.
func (a *ahead) advance(now time.Time, done int64) {
	switch {
	case a.early == nil || a.running != nil:
		return
	case a.since.IsZero():
		a.since, a.from = now, done
		return
	}
	came := done - a.from
	if came < aheadSeen {
		return
	}
	left := float64(a.job.Size-done) / float64(came) * float64(now.Sub(a.since))
	if left > max(float64(aheadTime), float64(a.job.Size)/serviceRate*float64(time.Second)) {
		return
	}
	a.running = make(chan struct{})
	var ctx context.Context
	ctx, a.cancel = context.WithCancel(a.ctx)
	a.job.Content, a.job.Outboard = a.early.Open, a.early.Outboard
	go func() {
		defer close(a.running)
		a.res, a.err = a.f.cfg.Ingester.Ingest(ctx, a.job)
	}()
}

// wait returns how the ingest ended, if one was begun. The fetch has ended; if it
// failed, so does the ingest.
func (a *ahead) wait(failed bool) (res ingest.Result, ran bool, err error) {
	if a.running == nil {
		return ingest.Result{}, false, nil
	}
	if failed {
		a.cancel()
	}
	<-a.running
	a.cancel()
	return a.res, true, a.err
}
