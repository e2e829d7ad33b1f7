package ingest

import "time"

// aimd decides how many ingests a service is given at once: one more for each
// round that went well, half as many when the service asks to be left alone or
// fails (additive increase, multiplicative decrease: Chiu and Jain 1989), and a
// little less when small ingests take much longer than they once did, since more
// parallelism then only makes a queue. It begins by doubling, as TCP does.
type aimd struct {
	limit  float64
	grow   bool // doubling still
	cut    time.Time
	best   time.Duration // least latency of a small ingest in the current window
	bestAt time.Time
	mean   time.Duration // of small ingests, exponentially weighted
}

const (
	minParallel   = 1
	maxParallel   = 16
	startParallel = 4
	// Latency alone never takes the limit below this: on a small machine the
	// latency of several at once is that of one times their number.
	latencyFloor = 4
	latencyRatio = 6
	latencySlack = 20 * time.Millisecond
	bestWindow   = time.Minute
	// smallIngest is the size up to which latencies are compared.
	smallIngest = 64 << 10
)

func newAIMD() aimd { return aimd{limit: startParallel, grow: true} }

// allowed is the number of ingests that may be in flight.
func (a *aimd) allowed() int { return int(a.limit) }

// succeeded takes note of an ingest that went well; full says that the limit was
// used up while it ran.
func (a *aimd) succeeded(now, begun time.Time, size int64, full bool) {
	if size <= smallIngest {
		took := now.Sub(begun)
		if a.best == 0 || took < a.best || now.Sub(a.bestAt) > bestWindow {
			a.best, a.bestAt = took, now
		}
		if a.mean == 0 {
			a.mean = took
		}
		a.mean += (took - a.mean) / 8
		if a.limit > latencyFloor && a.mean > a.best*latencyRatio+latencySlack {
			if begun.After(a.cut) {
				a.limit, a.cut, a.grow = max(a.limit*0.9, latencyFloor), now, false
			}
			return
		}
	}
	switch {
	case !full:
	case a.grow:
		a.limit = min(a.limit+1, maxParallel)
	default:
		a.limit = min(a.limit+1/a.limit, maxParallel)
	}
}

// failed takes note of an ingest that the service refused for being busy, or that
// failed with the service. Those that were in flight at the last cut count with it.
func (a *aimd) failed(now, begun time.Time) {
	if !begun.After(a.cut) {
		return
	}
	a.limit, a.cut, a.grow = max(a.limit/2, minParallel), now, false
}
