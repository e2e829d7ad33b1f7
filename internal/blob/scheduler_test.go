package blob

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cansync/cansync/internal/tier"
)

// peer is a simulated source.
type peer struct {
	name    string
	rate    float64       // bytes per second
	latency time.Duration // of each run
	// After so many groups the peer shows its fault; -1 is never.
	wrongAfter, stallAfter, goneAfter int
	back                              time.Duration // a gone peer returns after this, 0 never

	queue []Run
	at    uint64 // groups of queue[0] delivered
	next  time.Time
	sent  int
	away  time.Time // when it comes back
	left  bool
}

func honest(name string, rate float64) *peer {
	return &peer{name: name, rate: rate, latency: 2 * time.Millisecond, wrongAfter: -1, stallAfter: -1, goneAfter: -1}
}

func (p *peer) perGroup() time.Duration {
	return time.Duration(GroupSize / p.rate * float64(time.Second))
}

// world runs a scheduler against peers in virtual time.
type world struct {
	t       require.TestingT
	s       *Scheduler[string]
	peers   []*peer
	now     time.Time
	cfg     SchedulerConfig
	sent    uint64 // groups that crossed the wire, wrong ones included
	wrong   uint64
	steps   int
	orders  []Run
	stalled int
	breaks  int // how often the first peer's connection breaks again
}

func newWorld(t require.TestingT, have *Bitmap, cfg SchedulerConfig, peers ...*peer) *world {
	w := &world{t: t, s: NewScheduler[string](have, cfg), peers: peers, now: time.Unix(1000, 0), cfg: cfg.withDefaults()}
	for _, p := range peers {
		require.True(t, w.s.Add(p.name))
	}
	return w
}

func (w *world) assign() {
	for again := true; again; {
		again = false
		for _, p := range w.peers {
			run, ok := w.s.Assign(p.name, w.now)
			if !ok {
				continue
			}
			again = true
			require.False(w.t, p.left, "no work for a peer that is gone")
			require.Less(w.t, len(p.queue), w.cfg.InFlight)
			require.LessOrEqual(w.t, run.Count, w.cfg.MaxRun)
			require.Positive(w.t, run.Count)
			for i := run.First; i < run.End(); i++ {
				require.LessOrEqual(w.t, w.s.holders(i), 2)
			}
			w.orders = append(w.orders, run)
			if p.queue = append(p.queue, run); len(p.queue) == 1 {
				p.at, p.next = 0, w.now.Add(p.latency+p.perGroup())
			}
		}
	}
}

func (p *peer) drop(run Run, now time.Time) {
	for i, r := range p.queue {
		if r == run {
			p.queue = append(p.queue[:i:i], p.queue[i+1:]...)
			if i == 0 {
				p.at, p.next = 0, now.Add(p.latency+p.perGroup())
			}
			return
		}
	}
}

// deliver lets the peer's next group arrive.
func (w *world) deliver(p *peer) {
	run := p.queue[0]
	group := Run{First: run.First + p.at, Count: 1}
	switch p.sent++; {
	case p.wrongAfter >= 0 && p.sent > p.wrongAfter:
		w.sent, w.wrong = w.sent+1, w.wrong+1
		p.queue, p.left = nil, true
		w.s.Failed(p.name, run, CauseWrong, w.now)
		require.True(w.t, w.s.Dropped(p.name))
		require.False(w.t, w.s.Add(p.name))
	case p.goneAfter >= 0 && p.sent > p.goneAfter:
		p.queue, p.left, p.goneAfter = nil, true, -1
		p.away = w.now.Add(p.back)
		w.s.Failed(p.name, run, CauseGone, w.now)
	default:
		w.sent++
		w.s.Got(p.name, run, group, w.now)
		p.at++
		p.next = w.now.Add(p.perGroup())
		if p.at == run.Count {
			p.queue, p.at = p.queue[1:], 0
		}
	}
}

// run goes on until the blob is complete and returns how long that took.
func (w *world) run() time.Duration {
	start := w.now
	for !w.s.Complete() {
		w.steps++
		require.Less(w.t, w.steps, 2_000_000, "no end in sight")
		w.assign()
		var next time.Time
		var who *peer
		for _, p := range w.peers {
			if p.left && p.back > 0 && !w.s.Dropped(p.name) && (next.IsZero() || p.away.Before(next)) {
				next, who = p.away, p
			}
			if len(p.queue) > 0 && !(p.stallAfter >= 0 && p.sent >= p.stallAfter) && (next.IsZero() || p.next.Before(next)) {
				next, who = p.next, p
			}
		}
		wake, ok := w.s.Wake(w.now)
		switch {
		case ok && (who == nil || wake.Before(next)):
			if wake.After(w.now) {
				w.now = wake
			}
			for _, c := range w.s.Expire(w.now) {
				for _, p := range w.peers {
					if p.name == c.Source {
						p.drop(c.Run, w.now)
					}
				}
				if c.Cause == CauseStalled {
					w.stalled++
				}
				w.s.Failed(c.Source, c.Run, c.Cause, w.now) // does no harm
			}
		case who == nil:
			require.FailNow(w.t, "nothing will ever happen again")
		case who.left:
			w.now = next
			who.left = false
			require.True(w.t, w.s.Add(who.name))
			if who == w.peers[0] && w.breaks > 0 {
				w.breaks--
				who.goneAfter = who.sent + 5
			}
		default:
			if next.After(w.now) {
				w.now = next
			}
			w.deliver(who)
		}
	}
	w.s.Expire(w.now)
	_, ok := w.s.Wake(w.now)
	require.False(w.t, ok, "nothing to wait for at the end")
	return w.now.Sub(start)
}

const mb = 1e6

func TestSchedulerBadPeers(t *testing.T) {
	const groups = 4096 // 64 MiB
	alone := newWorld(t, NewBitmap(groups), SchedulerConfig{}, honest("honest", 100*mb)).run()

	liar, staller, slow, leaver := honest("liar", 100*mb), honest("staller", 100*mb), honest("slow", 10_000), honest("leaver", 100*mb)
	liar.wrongAfter, staller.stallAfter, leaver.goneAfter = 100, 40, 200
	w := newWorld(t, NewBitmap(groups), SchedulerConfig{}, liar, staller, slow, leaver, honest("honest", 100*mb))
	took := w.run()
	require.LessOrEqual(t, took, alone*3/2)
	require.Equal(t, uint64(1), w.wrong, "one wrong group and the liar is out")
	require.LessOrEqual(t, (w.sent-groups)*100, uint64(groups)*5, "at most 5 %% twice")
	require.Equal(t, w.sent-groups-w.wrong, w.s.Twice())
	require.True(t, w.s.Dropped("liar"))
	require.False(t, w.s.Dropped("slow"))
}

func TestSchedulerSharesBySpeed(t *testing.T) {
	fast, slow := honest("fast", 80*mb), honest("slow", 20*mb)
	w := newWorld(t, NewBitmap(16*1024), SchedulerConfig{}, fast, slow)
	took := w.run()
	ideal := time.Duration(256 * float64(1<<20) / (100 * mb) * float64(time.Second))
	require.Less(t, took, ideal*11/10)
	require.InDelta(t, 4, float64(fast.sent)/float64(slow.sent), 0.5)
	require.InDelta(t, 80*mb, w.s.Rate("fast"), 12*mb) // each run waits 2 ms
	longest := uint64(0)
	for _, run := range w.orders {
		longest = max(longest, run.Count)
	}
	require.Equal(t, uint64(256), longest, "runs grow with speed")
	require.Equal(t, Run{First: 16*1024 - 16, Count: 16}, w.orders[0], "the end goes first")
}

func TestSchedulerLoneStaller(t *testing.T) {
	// A source that stalls is left alone and asked again; one that never gives
	// anything is dropped in the end.
	s := NewScheduler[string](NewBitmap(100), SchedulerConfig{})
	s.Add("a")
	now := time.Unix(0, 0)
	strikes := 0
	for range 100 {
		if run, ok := s.Assign("a", now); ok {
			require.Equal(t, Run{First: 84, Count: 16}.Count, run.Count)
		}
		wake, ok := s.Wake(now)
		if !ok {
			break
		}
		require.True(t, wake.After(now))
		now = wake
		for _, c := range s.Expire(now) {
			require.Equal(t, CauseStalled, c.Cause)
			strikes++
		}
	}
	require.Equal(t, 5, strikes)
	require.True(t, s.Dropped("a"))
	require.Zero(t, s.Usable())
	s.Add("b")
	require.Equal(t, 1, s.Usable())
	run, ok := s.Assign("b", now)
	require.True(t, ok)
	require.Equal(t, Run{Count: 16}, run)
	require.Equal(t, uint64(16), s.Got("b", run, run, now))
	require.Zero(t, s.Got("b", run, run, now))
	require.Equal(t, uint64(16), s.Twice())
	s.Lost(Run{First: 3, Count: 1})
	run, ok = s.Assign("b", now)
	require.True(t, ok)
	require.Equal(t, Run{First: 3, Count: 1}, run)
	s.Failed("b", run, CauseGone, now)
	_, ok = s.Assign("b", now)
	require.False(t, ok)
}

func TestSchedulerDisconnects(t *testing.T) {
	// Both connections break, again and again for one of them, as after resets of a
	// relay.
	p, q := honest("p", 50*mb), honest("q", mb)
	p.goneAfter, p.back = 7, time.Second
	q.goneAfter, q.back = 90, 2*time.Second
	w := newWorld(t, NewBitmap(1024), SchedulerConfig{}, p, q)
	w.breaks = 5
	w.run()
	require.Zero(t, w.breaks)
	require.LessOrEqual(t, (w.sent-1024)*100, uint64(1024*5))
}

// TestSchedulerAnyWorld: with one honest source every blob arrives, whatever the
// others do; never twice beyond the bound; the same world gives the same course.
func TestSchedulerAnyWorld(t *testing.T) {
	overtaken := uint64(0)
	tier.Check(t, 1000, 1000, func(t *rapid.T) {
		n := rapid.Uint64Range(1, 600).Draw(t, "groups")
		have := NewBitmap(n)
		for range rapid.IntRange(0, 3).Draw(t, "parts there") {
			have.Set(Run{First: rapid.Uint64Range(0, n-1).Draw(t, "first"), Count: rapid.Uint64Range(0, n/2).Draw(t, "count")})
		}
		type draw struct {
			rate           float64
			wrong, st, out int
			back           time.Duration
		}
		var draws []draw
		for range rapid.IntRange(0, 5).Draw(t, "peers") {
			some := rapid.OneOf(rapid.Just(-1), rapid.IntRange(0, 100))
			draws = append(draws, draw{
				rate:  rapid.SampledFrom([]float64{5_000, 100_000, mb, 30 * mb, 500 * mb}).Draw(t, "rate"),
				wrong: some.Draw(t, "wrong"), st: some.Draw(t, "stall"), out: some.Draw(t, "gone"),
				back: time.Duration(rapid.IntRange(0, 3).Draw(t, "back")) * time.Second,
			})
		}
		rate := rapid.SampledFrom([]float64{50_000, mb, 100 * mb}).Draw(t, "honest rate")
		course := func() *world {
			peers := []*peer{honest("honest", rate)}
			for i, d := range draws {
				p := honest(string(rune('a'+i)), d.rate)
				p.wrongAfter, p.stallAfter, p.goneAfter, p.back = d.wrong, d.st, d.out, d.back
				peers = append(peers, p)
			}
			w := newWorld(t, have, SchedulerConfig{}, peers...)
			w.run()
			return w
		}
		w := course()
		require.LessOrEqual(t, w.s.Twice(), max(n/100*4, 16))
		require.Equal(t, w.sent, n-have.Count()+w.s.Twice()+w.wrong)
		require.LessOrEqual(t, w.wrong, uint64(len(draws)))
		require.False(t, w.s.Dropped("honest"))
		overtaken += w.s.Twice()
		again := course()
		require.Equal(t, w.orders, again.orders)
		require.Equal(t, w.now, again.now)
	})
	require.Positive(t, overtaken, "no world in which anything came twice")
}

func BenchmarkScheduler(b *testing.B) {
	const groups = 65536 // 1 GiB
	b.SetBytes(groups * GroupSize)
	for b.Loop() {
		newWorld(b, NewBitmap(groups), SchedulerConfig{}, honest("a", 100*mb), honest("b", 50*mb), honest("c", 10*mb)).run()
	}
}
