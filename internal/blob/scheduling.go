package blob

import (
	"slices"
	"time"
)

func (s *Scheduler[S]) find(id S) *source[S] {
	for _, src := range s.sources {
		if src.id == id {
			return src
		}
	}
	return nil
}

func (src *source[S]) flight(run Run) *flight {
	for _, f := range src.flights {
		if f.run == run {
			return f
		}
	}
	return nil
}

// hasRoom reports whether the source may be given another run.
func (s *Scheduler[S]) hasRoom(src *source[S], now time.Time) bool {
	limit := s.cfg.InFlight
	if !src.given {
		limit = 1
	}
	return !src.gone && !src.dropped && !now.Before(src.paused) && len(src.flights) < limit
}

// nextFree finds the next groups that nobody has or fetches.
func (s *Scheduler[S]) nextFree(src *source[S]) (Run, bool) {
	want := s.runLength(src)
	if !s.begun {
		s.begun = true
		n := s.busy.Len()
		if tail := (Run{First: n - min(n, s.cfg.MinRun)}); n > 0 && !s.busy.Test(n-1) {
			// Only what is missing right before the end.
			for tail.First = n - 1; tail.First > 0 && n-tail.First < s.cfg.MinRun && !s.busy.Test(tail.First-1); {
				tail.First--
			}
			tail.Count = n - tail.First
			return tail, true
		}
	}
	run, ok := s.busy.NextMissing(s.free, want)
	if ok {
		s.free = run.End()
	} else {
		s.free = s.busy.Len()
	}
	return run, ok
}

// runLength is what the source does in the target time, but not more than half of
// its share of what is left, so that all sources come to the end together (guided
// self-scheduling, Polychronopoulos and Kuck, 1987).
func (s *Scheduler[S]) runLength(src *source[S]) uint64 {
	if src.rate == 0 {
		return s.cfg.MinRun
	}
	total := 0.0
	for _, other := range s.sources {
		if !other.gone && !other.dropped {
			total += other.rate
		}
	}
	left := float64(s.busy.Len() - s.busy.Count())
	want := min(src.rate*s.cfg.Target.Seconds(), left*src.rate/total/2, float64(s.cfg.MaxRun))
	return max(s.cfg.MinRun, uint64(want))
}

// overtake finds groups that are out with a slower source and that this one is
// expected to have in less than half the time.
func (s *Scheduler[S]) overtake(src *source[S], now time.Time) (Run, bool) {
	var best Run
	var bestAt time.Time
	s.chances(src, func(run Run, at time.Time) {
		if !at.After(now) && (best.Count == 0 || at.Before(bestAt)) {
			best, bestAt = run, at
		}
	})
	return best, best.Count > 0
}

// chances calls fn for each run of another source that this one could take over,
// with the time from which on it may.
func (s *Scheduler[S]) chances(src *source[S], fn func(run Run, at time.Time)) {
	if len(src.flights) > 0 || !s.mayRisk() {
		return
	}
	for _, other := range s.sources {
		if other == src {
			continue
		}
		for _, f := range other.flights {
			run, ok := s.have.NextMissing(f.run.First, 0)
			if !ok || run.First >= f.run.End() || s.holders(run.First) > 1 {
				continue
			}
			run.Count = min(run.Count, f.run.End()-run.First)
			if src.rate == 0 {
				run.Count = min(run.Count, s.cfg.MinRun)
			}
			for i := uint64(1); i < run.Count; i++ { // up to the next group held twice
				if s.holders(run.First+i) > 1 {
					run.Count = i
				}
			}
			fn(run, s.chanceAt(src, other, f, run))
		}
	}
}

// risk is how many groups one race may bring twice: if the one to be overtaken
// delivers that many before the other's first, it wins.
const risk = 4

// mayRisk reports whether what came twice, and what undecided races may yet bring
// twice, leaves room for one race more.
func (s *Scheduler[S]) mayRisk() bool {
	used := s.twice + risk
	for _, src := range s.sources {
		for _, f := range src.flights {
			if f.second && !f.beaten {
				used += risk
			}
		}
	}
	return used <= s.allowed
}

// race decides between sources that have the same groups: f of src is about to take
// note of some.
func (s *Scheduler[S]) race(src *source[S], f *flight, groups Run) {
	first := f != nil && f.second
	if first {
		f.second = false
	}
	for _, other := range s.sources {
		if other == src {
			continue
		}
		for _, g := range other.flights {
			switch {
			case first && !g.second && g.run.First < f.run.End() && f.run.First < g.run.End():
				g.beaten = true
			case g.second && g.run.First < groups.End() && groups.First < g.run.End():
				g.behind += groups.Count
				g.beaten = g.beaten || g.behind >= risk
			}
		}
	}
}

// outrun lowers what is expected of a source that lost a race while silent.
func (src *source[S]) outrun(f *flight, now time.Time) {
	d := now.Sub(src.mark)
	if f.second || d <= 0 {
		return
	}
	if seen := float64(src.count+1) / d.Seconds(); src.rate == 0 || seen < src.rate {
		src.rate, src.given = seen, false
		src.mark, src.count = now, 0
	}
}

// chanceAt returns when the source may take over the run out of the other's f. The
// other's remaining time is the larger of what its average speed and what this run
// has seen of it say; the latter grows while it is silent.
func (s *Scheduler[S]) chanceAt(src, other *source[S], f *flight, run Run) time.Time {
	mine := s.cfg.Stall.Seconds() / 4 // of a source not yet measured nothing is expected
	if src.rate > 0 {
		mine = float64(run.Count) / src.rate
	}
	need := 2*mine + s.cfg.Overtake.Seconds()
	left := float64(f.run.Count - min(f.run.Count, f.got))
	at := f.start.Add(s.cfg.Overtake)
	if other.rate > 0 && left/other.rate > need {
		return at
	}
	// elapsed·left/(got+1) > need
	wait := need * float64(f.got+1) / max(1, left)
	if slow := f.start.Add(time.Duration(min(wait, 3600) * float64(time.Second))); slow.After(at) {
		return slow
	}
	return at
}

// holders counts the sources that a group is out with.
func (s *Scheduler[S]) holders(group uint64) (n int) {
	for _, src := range s.sources {
		for _, f := range src.flights {
			if f.run.Contains(group) {
				n++
			}
		}
	}
	return n
}

// end takes a run from its source; what has not come of it is free again, unless
// another source has it too.
func (s *Scheduler[S]) end(src *source[S], f *flight) {
	src.flights = slices.DeleteFunc(src.flights, func(g *flight) bool { return g == f })
	s.release(f.run)
}

func (s *Scheduler[S]) release(run Run) {
	for i := run.First; i < min(run.End(), s.busy.Len()); i++ {
		if !s.have.Test(i) && s.holders(i) == 0 {
			s.busy.Clear(Run{First: i, Count: 1})
			s.free = min(s.free, i)
		}
	}
}

// Wake returns the next time at which [Scheduler.Expire] or [Scheduler.Assign] can
// have something new to say without a report coming in between, or false when there
// is none. A time that is not after now means at once.
func (s *Scheduler[S]) Wake(now time.Time) (time.Time, bool) {
	var next time.Time
	consider := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	if s.Complete() {
		for _, src := range s.sources {
			if len(src.flights) > 0 {
				return now, true // to be cancelled
			}
		}
		return next, false
	}
	idle := s.busy.Full()
	for _, src := range s.sources {
		for _, f := range src.flights {
			if f.beaten || s.have.Has(f.run) {
				return now, true
			}
		}
		if len(src.flights) > 0 {
			consider(src.last.Add(s.cfg.Stall))
		}
		switch {
		case src.gone || src.dropped:
		case now.Before(src.paused):
			consider(src.paused)
		case idle && s.hasRoom(src, now):
			s.chances(src, func(_ Run, at time.Time) { consider(at) })
		}
	}
	return next, !next.IsZero()
}
