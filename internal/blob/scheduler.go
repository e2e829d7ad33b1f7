package blob

import (
	"slices"
	"time"
)

// Cause says why a run failed.
type Cause uint8

const (
	// CauseUnavailable: the source said that it can't give these groups now, or
	// ended the run early. It is left alone for a while, longer each time, and
	// dropped when it does so [SchedulerConfig.Strikes] times without giving
	// anything in between. It is the zero value.
	CauseUnavailable Cause = iota
	// CauseWrong: a group or a proof was wrong. The source is dropped at once and
	// for good; what it gave before stays, it was verified.
	CauseWrong
	// CauseGone: the connection is gone, with all runs of the source. It counts
	// again after [Scheduler.Add].
	CauseGone
	// CauseStalled: nothing came within [SchedulerConfig.Stall]. It is treated as
	// CauseUnavailable.
	CauseStalled
	// CauseOvertaken: others deliver, or have delivered, what was still to come. No
	// blame.
	CauseOvertaken
)

// SchedulerConfig tunes a [Scheduler]; a zero field means its default.
type SchedulerConfig struct {
	// MinRun and MaxRun bound a run, in groups: 16 (256 KiB) and 256 (4 MiB).
	MinRun, MaxRun uint64
	// Target is how long a source should need for one run: 500 ms.
	Target time.Duration
	// InFlight is how many runs a source may have at once: 2, so that the next
	// one is asked for before the last has ended. A source that has not given
	// anything yet has one.
	InFlight int
	// Stall is how long a source may give nothing before its run goes to another
	// one, and the first pause of a source that failed: 10 s.
	Stall time.Duration
	// Overtake is how long a run must have been out before another source may be
	// given the same groups: 50 ms. Only an idle source expected to need less than
	// half the time is. The one that delivers first keeps the run, the other's is
	// cancelled, so hardly anything comes twice.
	Overtake time.Duration
	// Strikes is how many failures in a row drop a source: 5.
	Strikes int
	// WastePercent bounds the groups fetched twice by overtaking, in percent of
	// the blob, but not below one run of MinRun: 4.
	WastePercent uint64
}

func (c SchedulerConfig) withDefaults() SchedulerConfig {
	def := func(v *uint64, d uint64) {
		if *v == 0 {
			*v = d
		}
	}
	dur := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&c.MinRun, 16)
	def(&c.MaxRun, 256)
	def(&c.WastePercent, 4)
	dur(&c.Target, 500*time.Millisecond)
	dur(&c.Stall, 10*time.Second)
	dur(&c.Overtake, 50*time.Millisecond)
	if c.InFlight <= 0 {
		c.InFlight = 2
	}
	if c.Strikes <= 0 {
		c.Strikes = 5
	}
	c.MaxRun = max(c.MinRun, c.MaxRun)
	return c
}

// Scheduler splits the missing groups of one blob among its sources by the speed
// seen of each. It is a plain value: it knows no clock, does no I/O, gives the same
// answers for the same calls, and is not safe for concurrent use. Make one with
// [NewScheduler].
//
// The caller asks [Scheduler.Assign] for work whenever a source has room, reports
// verified groups with [Scheduler.Got] as they come and failures with
// [Scheduler.Failed], and calls [Scheduler.Expire] at the time that
// [Scheduler.Wake] names.
//
// Groups go out in ascending order, except that the end of the blob goes first: it
// alone ties the size to the root, so a lie about the length shows at once.
type Scheduler[S comparable] struct {
	cfg     SchedulerConfig
	have    *Bitmap // verified
	busy    *Bitmap // verified or out with a source
	free    uint64  // no group below this one is free
	begun   bool
	twice   uint64 // groups that came a second time
	allowed uint64 // bound of twice
	sources []*source[S]
}

type source[S comparable] struct {
	id      S
	flights []*flight
	rate    float64 // groups per second, 0 unknown
	mark    time.Time
	count   uint64 // groups since mark
	// last is the newest progress of any run, or the start of the first: a second
	// run waits for the one before it and has not stalled while that one moves.
	last    time.Time
	given   bool // has given a group since it was added
	gone    bool
	dropped bool
	strikes int
	paused  time.Time
}

// flight is a run that is out with a source.
type flight struct {
	run    Run
	second bool // races another source for its run, undecided
	beaten bool // another source is ahead; to be cancelled
	start  time.Time
	got    uint64
	behind uint64 // of a second: groups that came from the other before its first
}

// NewScheduler returns a scheduler for the groups missing in have, which is copied.
func NewScheduler[S comparable](have *Bitmap, cfg SchedulerConfig) *Scheduler[S] {
	cfg = cfg.withDefaults()
	return &Scheduler[S]{
		cfg: cfg, have: have.Clone(), busy: have.Clone(),
		allowed: max(have.Len()/100*cfg.WastePercent, cfg.MinRun),
	}
}

// Add makes a source known, or counts one that was gone in again. A source dropped
// for good stays dropped, and Add reports false.
func (s *Scheduler[S]) Add(id S) bool {
	src := s.find(id)
	if src == nil {
		s.sources = append(s.sources, &source[S]{id: id})
		return true
	}
	if src.gone {
		src.gone, src.given = false, false
	}
	return !src.dropped
}

// Assign returns a run for the source to fetch, or false when there is none for it
// now: it has its share, is paused or dropped, or nothing useful is left.
func (s *Scheduler[S]) Assign(id S, now time.Time) (Run, bool) {
	src := s.find(id)
	if src == nil || !s.hasRoom(src, now) {
		return Run{}, false
	}
	run, ok := s.nextFree(src)
	second := false
	if !ok {
		run, ok = s.overtake(src, now)
		second = true
	}
	if !ok {
		return Run{}, false
	}
	s.busy.Set(run)
	if len(src.flights) == 0 {
		src.mark, src.count, src.last = now, 0, now
	}
	src.flights = append(src.flights, &flight{run: run, second: second, start: now})
	return run, true
}

// Got takes note of verified groups that came from a source as part of a run that
// was assigned to it, and returns how many of them were new. A run of which all
// groups have come is over. Groups of a run that was cancelled count all the same.
func (s *Scheduler[S]) Got(id S, run, groups Run, now time.Time) uint64 {
	fresh := s.have.Set(groups)
	s.busy.Set(groups)
	s.twice += groups.Count - fresh
	src := s.find(id)
	if src == nil {
		return fresh
	}
	src.given, src.strikes, src.last = true, 0, now
	src.count += groups.Count
	f := src.flight(run)
	s.race(src, f, groups)
	if f != nil {
		f.got += groups.Count
	}
	over := f != nil && f.got >= run.Count
	if d := now.Sub(src.mark); d >= 100*time.Millisecond || over && d > 0 {
		src.sample(d)
		src.mark, src.count = now, 0
	}
	if over {
		s.end(src, f)
	}
	return fresh
}

// sample takes the speed since mark into the moving average.
func (src *source[S]) sample(d time.Duration) {
	rate := float64(src.count) / d.Seconds()
	if src.rate > 0 {
		rate = 0.7*src.rate + 0.3*rate
	}
	src.rate = rate
}

// Failed takes note that a run ended before all its groups came; they are free for
// others. See [Cause] for what becomes of the source.
func (s *Scheduler[S]) Failed(id S, run Run, cause Cause, now time.Time) {
	src := s.find(id)
	if src == nil {
		return
	}
	f := src.flight(run)
	if f != nil {
		s.end(src, f)
	}
	switch cause {
	case CauseWrong, CauseGone:
		for len(src.flights) > 0 {
			s.end(src, src.flights[0])
		}
		src.dropped = src.dropped || cause == CauseWrong
		src.gone = true
	case CauseUnavailable, CauseStalled:
		if f != nil { // else it was cancelled, and is settled
			s.strike(src, now)
		}
	}
}

func (s *Scheduler[S]) strike(src *source[S], now time.Time) {
	src.paused = now.Add(s.cfg.Stall << min(src.strikes, 6))
	src.rate /= 2
	if src.strikes++; src.strikes >= s.cfg.Strikes {
		for len(src.flights) > 0 {
			s.end(src, src.flights[0])
		}
		src.dropped = true
	}
}

// Cancel is a run that its source should no longer work on.
type Cancel[S comparable] struct {
	Source S
	Run    Run
	// Cause is [CauseStalled] or [CauseOvertaken].
	Cause Cause
}

// Expire ends the runs that stalled, those that another source has overtaken and
// those of which nothing is missing any more, and returns them for the caller to
// stop. Reporting them as failed too does no
// harm.
func (s *Scheduler[S]) Expire(now time.Time) []Cancel[S] {
	var out []Cancel[S]
	for _, src := range s.sources {
		stalled := false
		for _, f := range slices.Clone(src.flights) {
			switch {
			case f.beaten || s.have.Has(f.run):
				src.outrun(f, now)
				out = append(out, Cancel[S]{src.id, f.run, CauseOvertaken})
			case now.Sub(src.last) >= s.cfg.Stall:
				out = append(out, Cancel[S]{src.id, f.run, CauseStalled})
				stalled = true
			default:
				continue
			}
			s.end(src, f)
		}
		if stalled {
			s.strike(src, now)
		}
	}
	return out
}

// Lost makes groups missing again that were had before.
func (s *Scheduler[S]) Lost(run Run) {
	s.have.Clear(run)
	s.release(run)
}

// Complete reports whether every group has come.
func (s *Scheduler[S]) Complete() bool { return s.have.Full() }

// Count returns the number of groups that have come.
func (s *Scheduler[S]) Count() uint64 { return s.have.Count() }

// Twice returns the number of groups that came a second time.
func (s *Scheduler[S]) Twice() uint64 { return s.twice }

// Rate returns the speed seen of a source in bytes per second, 0 if unknown.
func (s *Scheduler[S]) Rate(id S) float64 {
	if src := s.find(id); src != nil {
		return src.rate * GroupSize
	}
	return 0
}

// Dropped reports whether a source was dropped for good.
func (s *Scheduler[S]) Dropped(id S) bool {
	src := s.find(id)
	return src != nil && src.dropped
}

// Usable returns the number of sources that can be given work now or later: 0 means
// that the download waits for a source to be added.
func (s *Scheduler[S]) Usable() (n int) {
	for _, src := range s.sources {
		if !src.gone && !src.dropped {
			n++
		}
	}
	return n
}
