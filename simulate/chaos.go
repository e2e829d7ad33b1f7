package simulate

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/transport/memory"
)

// trouble is a fault that lasts.
type trouble struct {
	kind  Fault
	until time.Time
	end   func()
}

// maxTroubles bounds how many faults last at the same time.
const maxTroubles = 4

// Chaos takes the given number of steps. Each adds, edits or trashes assets on some
// peer or begins a fault of a kind in [Options.Faults], and lets some time pass:
// seconds mostly, at times minutes, rarely hours. Faults last for a while, up to six
// hours; those that still do when it returns are ended by [World.Settle].
func (w *World) Chaos(steps int) {
	first := len(w.order)
	w.batch = 4
	if w.o.Assets > 0 {
		w.batch = max(1, 4*w.o.Assets/steps) // nearly half of the steps add half of it on average
	}
	for i := range steps {
		if i == steps-1 {
			for len(w.order)-first < w.o.Assets {
				w.addSomething(w.peers[w.rng.IntN(len(w.peers))])
			}
		}
		if len(w.o.Faults) > 0 && w.rng.IntN(3) == 0 {
			w.breakSomething(w.draw())
		} else {
			w.use()
		}
		if i < steps-1 { // the last is for Settle to see through
			w.pass(w.pause())
		}
	}
}

// draw draws a kind of fault, each as often as the others.
func (w *World) draw() Fault {
	if len(w.deck) == 0 {
		w.deck = slices.Clone(w.o.Faults)
		w.rng.Shuffle(len(w.deck), func(i, j int) { w.deck[i], w.deck[j] = w.deck[j], w.deck[i] })
	}
	kind := w.deck[0]
	w.deck = w.deck[1:]
	return kind
}

// pass lets time pass and ends the faults whose time comes.
func (w *World) pass(d time.Duration) {
	for end := time.Now().Add(d); ; {
		w.expire()
		next := end
		for _, t := range w.active {
			if t.until.Before(next) {
				next = t.until
			}
		}
		if left := time.Until(next); left > 0 {
			w.Sleep(left)
		} else {
			return
		}
	}
}

func (w *World) pause() time.Duration {
	switch r := w.rng.IntN(1000); {
	case r < 600:
		return w.upTo(5 * time.Second)
	case r < 950:
		return w.upTo(time.Minute)
	case r < 996:
		return w.upTo(10 * time.Minute)
	default:
		return w.upTo(6 * time.Hour)
	}
}

// spread draws a duration from a second to six hours, as likely below ten seconds
// as between one hour and six.
func (w *World) spread() time.Duration {
	const least, most = time.Second, 6 * time.Hour
	return time.Duration(float64(least) * math.Pow(float64(most/least), w.rng.Float64()))
}

func (w *World) upTo(d time.Duration) time.Duration { return 1 + time.Duration(w.rng.Int64N(int64(d))) }

// somePeer draws a peer that satisfies ok, or returns nil.
func (w *World) somePeer(ok func(*Peer) bool) *Peer {
	var fit []*Peer
	for _, p := range w.peers {
		if ok(p) {
			fit = append(fit, p)
		}
	}
	if len(fit) == 0 {
		return nil
	}
	return fit[w.rng.IntN(len(fit))]
}

func up(p *Peer) bool { return p.node != nil }

// use does what users do.
func (w *World) use() {
	p := w.peers[w.rng.IntN(len(w.peers))]
	switch r := w.rng.IntN(20); {
	case r < 13 || len(w.order) == 0:
		for range 1 + w.rng.IntN(w.batch) {
			w.addSomething(p)
		}
	case r < 18:
		d := w.order[w.rng.IntN(len(w.order))]
		text := fmt.Sprintf("edit %d", w.rng.Uint32())
		p.Edit(d, can.Update{Description: &text})
	default:
		// Few enough of many that the nodes do not take it for an accident.
		held := p.held()
		gone := 0
		for _, a := range w.assets {
			if len(a.trashed) > 0 {
				gone++
			}
		}
		if d := w.order[w.rng.IntN(len(w.order))]; len(held) >= 8 && gone < len(w.order)/6 {
			p.Trash(d)
		}
	}
}

// addSomething adds a content, now and then one that another peer has, or an empty
// or large one.
func (w *World) addSomething(p *Peer) {
	n := len(w.order)
	content := fmt.Appendf(nil, "content %d of seed %d", n, w.seed)
	switch r := w.rng.IntN(20); {
	case r == 0 && n > 0:
		d := w.order[w.rng.IntN(n)]
		held := p.held()[d]
		for _, o := range w.peers {
			if copies := o.held()[d]; len(held) == 0 && len(copies) > 0 {
				content, _ = o.svc.Content(copies[0].Handle)
				p.Add(content, copies[0].Metadata)
				return
			}
		}
	case r < 4:
		big := make([]byte, 1+w.rng.IntN(150_000))
		for i := range big {
			big[i] = byte(w.rng.Uint32())
		}
		content = append(content, big...)
	}
	p.Add(content, can.Metadata{
		MIMEType: []string{"image/png", "text/plain"}[w.rng.IntN(2)], Application: fmt.Sprintf("app %d", w.rng.IntN(3)),
		User: fmt.Sprintf("user %d", p.index), Tags: []string{"all", fmt.Sprintf("tag %d", w.rng.IntN(4))},
		Description: fmt.Sprintf("the %dth — ünïcode", n), Filename: fmt.Sprintf("%d.png", n), Path: "/a/b",
	})
}

// breakSomething begins a fault, or has it happen at once.
func (w *World) breakSomething(kind Fault) {
	same := slices.ContainsFunc(w.active, func(t *trouble) bool { return t.kind == kind })
	if same || len(w.active) >= maxTroubles {
		return
	}
	last := func(end func()) {
		d := w.upTo(2 * time.Minute)
		if w.rng.IntN(20) == 0 {
			d = w.upTo(6 * time.Hour)
		}
		if kind == Split {
			d = w.spread()
		}
		w.active = append(w.active, &trouble{kind: kind, until: time.Now().Add(d), end: end})
	}
	p := w.somePeer(up)
	if p == nil {
		return
	}
	other := w.somePeer(func(o *Peer) bool { return o != p && !o.id.IsZero() })
	switch kind {
	case Crash:
		p.Crash(w.rng.IntN(8))
		last(p.Start)
	case Restart:
		p.Restart()
	case ClockJump:
		p.SetSkew(time.Duration(w.rng.Int64N(int64(2*saneSkew))) - saneSkew)
		w.counts.add(ClockJump, 1)
	case ServiceDown:
		last(p.Outage())
	case ServiceErrors:
		last(p.Inject(someServiceFault(w.rng)))
	case EventsLost:
		if p = w.somePeer(func(p *Peer) bool { return up(p) && p.opts.Lacks&cantest.FeatureEvents == 0 }); p != nil {
			last(p.Inject(eventFaults(w.rng)))
			w.addSomething(p) // there is to be an event
		}
		return
	case Split:
		w.split()
		last(w.Heal)
	}
	if other == nil {
		return
	}
	switch kind {
	case OneWay:
		w.OneWay(p, other, true)
		last(func() { w.OneWay(p, other, false) })
	case Flap:
		w.Flap(p, other, 50*time.Millisecond+w.upTo(3*time.Second), 1+w.rng.IntN(10))
	case Slow:
		w.SetLink(p, other, memory.Link{
			Latency: 5*time.Millisecond + w.upTo(300*time.Millisecond), Bandwidth: 2_000 + w.rng.Int64N(1_000_000),
		})
		last(func() { w.Mend(p, other) })
	case Loss, Reorder, Duplicate:
		l, part := w.o.Link, 0.01+0.1*w.rng.Float64()
		switch kind {
		case Loss:
			l.Loss = part
		case Duplicate:
			l.Duplicate = part
		default:
			l.Jitter = w.upTo(300 * time.Millisecond)
		}
		w.SetLink(p, other, l)
		last(func() { w.Mend(p, other) })
	}
}

// split draws two or three groups.
func (w *World) split() {
	groups := make([][]*Peer, 2+w.rng.IntN(2))
	for _, p := range w.peers {
		i := w.rng.IntN(len(groups))
		groups[i] = append(groups[i], p)
	}
	w.Partition(groups...)
}

// Outage makes the peer's CAN Service refuse connections until the function that it
// returns is called.
func (p *Peer) Outage() (end func()) {
	p.svc.SetDown(true)
	return func() {
		if p.node != nil && p.node.Status().Service.Err != nil {
			p.w.counts.add(ServiceDown, 1)
		}
		p.svc.SetDown(false)
	}
}

// Inject makes the peer's CAN Service fail until the function that it returns is
// called. Faults of the route cantest.RouteEvent count as [EventsLost], others as
// [ServiceErrors].
func (p *Peer) Inject(f cantest.Fault) (end func()) {
	kind := ServiceErrors
	if f.Route == cantest.RouteEvent {
		kind = EventsLost
	}
	in := p.svc.Inject(f)
	return func() {
		in.Remove()
		p.w.counts.add(kind, in.Fired())
	}
}

// expire ends the faults whose time is over.
func (w *World) expire() {
	now := time.Now()
	w.active = slices.DeleteFunc(w.active, func(t *trouble) bool {
		if now.Before(t.until) {
			return false
		}
		t.end()
		return true
	})
}

// calm ends all faults that Chaos began, heals the network and starts what is down.
func (w *World) calm() {
	for _, t := range w.active {
		t.end()
	}
	w.active = nil
	w.Heal()
	for i, a := range w.peers {
		for _, b := range w.peers[i+1:] {
			w.OneWay(a, b, false)
			w.OneWay(b, a, false)
			w.Mend(a, b)
		}
	}
	for _, p := range w.peers {
		if p.node == nil {
			p.Start()
		}
	}
}
