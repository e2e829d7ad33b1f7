package record

import (
	"fmt"
	"math"
	"time"
)

// Clock is a hybrid logical clock (Kulkarni, Demirbas, Madappa, Avva, Leone:
// Logical Physical Clocks, OPODIS 2014): Unix milliseconds in the upper 48 bits
// and a counter in the lower 16. It orders records by time where machines' clocks
// agree, and never goes back where they don't. The zero value is before all
// others. The integers order as the clocks do.
type Clock uint64

const (
	counterBits = 16
	maxMilli    = 1<<48 - 1
)

// ClockAt returns the first clock of a moment. Moments before 1970 become zero
// and those beyond 48 bits of milliseconds (the year 10889) the last millisecond.
func ClockAt(t time.Time) Clock {
	return Clock(min(max(t.UnixMilli(), 0), maxMilli)) << counterBits
}

// Next returns the clock of an event that happens at now and after everything
// that c has seen. A counter that runs over carries into the milliseconds; at the
// end of the range, which no record that passed [Deferred] comes near, the clock
// stands still.
func (c Clock) Next(now time.Time) Clock {
	if n := ClockAt(now); n > c {
		return n
	}
	if c == math.MaxUint64 {
		return c
	}
	return c + 1
}

// Merge returns the later of the two: what a node has seen after it heard of o.
func (c Clock) Merge(o Clock) Clock { return max(c, o) }

// Milli returns the physical part in Unix milliseconds.
func (c Clock) Milli() int64 { return int64(c >> counterBits) }

// Counter returns the logical part.
func (c Clock) Counter() uint16 { return uint16(c) }

// Time returns the physical part in UTC.
func (c Clock) Time() time.Time { return time.UnixMilli(c.Milli()).UTC() }

// String returns the time in RFC 3339 with milliseconds, a plus and the counter.
func (c Clock) String() string {
	return fmt.Sprintf("%s+%d", c.Time().Format("2006-01-02T15:04:05.000Z"), c.Counter())
}

// Deferred reports whether the record claims a time more than [MaxFuture] after
// now. Such a record is not invalid but early: it is neither stored nor passed on
// and may be offered again.
func Deferred(h Header, now time.Time) bool {
	return h.Clock.Milli() > now.Add(MaxFuture).UnixMilli()
}
