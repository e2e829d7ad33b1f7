// Package meter measures rates over the last seconds. It reads no clock: the time
// is an argument.
package meter

import "time"

const (
	slots = 10
	slot  = 500 * time.Millisecond
	// Window is the time over which a rate is taken.
	Window = slots * slot
)

// Rate counts what passes and tells how much of it per second passed lately: the
// mean over the last [Window], or since the first bytes if they came later. The
// zero value is ready for use. It is not safe for concurrent use.
type Rate struct {
	begun time.Time // of the present run of traffic
	last  int64     // the newest slot, counted from begun
	sums  [slots + 1]int64
}

// Add counts n at a time. Times before the newest one count as the newest.
func (r *Rate) Add(now time.Time, n int64) {
	if r.begun.IsZero() || now.Sub(r.begun)-time.Duration(r.last)*slot > Window+slot {
		*r = Rate{begun: now} // after a rest the rate begins anew
	}
	r.advance(now)
	r.sums[r.last%(slots+1)] += n
}

// PerSecond returns the rate at a time, 0 after a [Window] without traffic.
func (r *Rate) PerSecond(now time.Time) int64 {
	if r.begun.IsZero() {
		return 0
	}
	at := max(r.last, int64(now.Sub(r.begun)/slot))
	var sum int64
	for s := max(0, at-slots, r.last-slots); s <= r.last; s++ {
		sum += r.sums[s%(slots+1)]
	}
	// The slots that were summed up cover the time from the start of the oldest,
	// a second at least, so that the first bytes do not make a huge rate.
	span := now.Sub(r.begun) - time.Duration(max(0, at-slots))*slot
	return int64(float64(sum) / max(span, time.Second).Seconds())
}

// advance opens the slot of a time and clears those that were skipped.
func (r *Rate) advance(now time.Time) {
	at := int64(now.Sub(r.begun) / slot)
	for n := 0; r.last < at && n <= slots; n++ {
		r.last++
		r.sums[r.last%(slots+1)] = 0
	}
	r.last = max(r.last, at)
}
