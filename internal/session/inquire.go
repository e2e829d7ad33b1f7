package session

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/transport"
)

const (
	inquireGap  = time.Second // between the first two batches of members visited
	inquireMost = 30 * time.Second
)

// Inquiry asks which members hold some contents. [Manager.Inquire] makes one and
// Close ends it. Turn is for one goroutine at a time.
//
// A goroutine for each member linked asks it; Close waits for them, and so does who
// ends the link.
type Inquiry struct {
	m      *Manager
	lib    [32]byte
	ds     []can.Digest
	news   chan struct{}
	ctx    context.Context // ends with Close, or the manager
	cancel context.CancelFunc
	wg     sync.WaitGroup

	// Guarded by the manager's mutex.
	e      *entry
	closed bool
	reach  bool
	next   time.Time
	gap    time.Duration
	asked  map[transport.PeerID]time.Time // who was visited, or is to be
	asking map[transport.PeerID]*asking

	mu    sync.Mutex
	tally *tally
}

// asking is how a linked member is asked.
type asking struct {
	p       *place
	through chan struct{} // closed when it was asked about everything once
}

// Inquire begins to look for members that hold some contents, until there are as many
// as needed for each; its error matches [ErrNoSession] when the library is
// not shared at all.
func (m *Manager) Inquire(lib [32]byte, need int, ds []can.Digest) (*Inquiry, error) {
	q := &Inquiry{
		m: m, lib: lib, ds: ds, news: make(chan struct{}, 1), gap: inquireGap,
		asked: make(map[transport.PeerID]time.Time), asking: make(map[transport.PeerID]*asking),
		tally: newTally(m.cfg.Transport.ID(), len(ds), need),
	}
	q.ctx, q.cancel = context.WithCancel(m.ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !q.attachLocked() {
		q.cancel()
		return nil, ErrNoSession
	}
	return q, nil
}

// attachLocked reports whether the library is shared, which may have begun anew.
func (q *Inquiry) attachLocked() bool {
	e := q.m.libs[q.lib]
	if e == nil || q.closed {
		return false
	}
	if q.e != e {
		q.e = e
		e.inquiries[q] = true
	}
	return true
}

// Close ends the inquiry.
func (q *Inquiry) Close() {
	q.cancel()
	q.m.mu.Lock()
	q.closed = true
	delete(q.e.inquiries, q)
	q.m.mu.Unlock()
	q.wg.Wait()
}

// Turn sees to it that every member that the library is shared with now is being
// asked, and looks whether the node itself holds contents, as have tells. It returns of
// how many contents there are too few holders: those count that said so in the last 10
// minutes and did not say otherwise since. It does not wait for members. Once all that
// are linked were asked, or leave questions without answers, and are not enough, others
// are visited, a few at a time, each once in 10 minutes.
func (q *Inquiry) Turn(ctx context.Context, have func(context.Context, can.Digest) (bool, error)) (lacking int, err error) {
	var asked []*asking
	q.m.mu.Lock()
	if q.attachLocked() {
		for _, p := range q.e.links {
			if a := q.beginLocked(p); a != nil {
				asked = append(asked, a)
			}
		}
	}
	q.m.mu.Unlock()
	if err := q.look(ctx, have); err != nil {
		return 0, err
	}
	q.mu.Lock()
	q.tally.expire(time.Now())
	lacking = q.tally.lacking
	waits := slices.ContainsFunc(asked, func(a *asking) bool { return !a.over() && !q.tally.silent(a.p.s.peer) })
	q.mu.Unlock()
	if lacking > 0 && !waits {
		q.reachOut()
	}
	return lacking, nil
}

func (a *asking) over() bool {
	select {
	case <-a.through:
		return true
	default:
		return false
	}
}

// reachOut has the inquiry visit further members until Close.
func (q *Inquiry) reachOut() {
	q.m.mu.Lock()
	begun := !q.reach
	q.reach = true
	q.m.mu.Unlock()
	if begun {
		q.m.Poke()
	}
}

// look looks what the node itself holds.
func (q *Inquiry) look(ctx context.Context, have func(context.Context, can.Digest) (bool, error)) error {
	self := q.m.cfg.Transport.ID()
	for {
		q.mu.Lock()
		p, _ := q.tally.next(self, time.Now())
		q.mu.Unlock()
		if len(p.at) == 0 {
			return nil
		}
		answers := make([]said, len(p.at))
		for k, i := range p.at {
			ok, err := have(ctx, q.ds[i])
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return err
			}
			answers[k] = saidNo
			if ok {
				answers[k] = saidYes
			}
		}
		q.mu.Lock()
		q.tally.learn(self, p, answers, true, time.Now())
		q.mu.Unlock()
	}
}

// beginLocked begins to ask a member, unless that was done. It returns nil when the
// member is not linked.
func (q *Inquiry) beginLocked(p *place) *asking {
	id := p.s.peer
	if a := q.asking[id]; a != nil && a.p == p {
		return a
	}
	if q.closed || p.link == nil || p.s.places[p.handle] != p || len(q.ds) == 0 {
		return nil
	}
	a := &asking{p, make(chan struct{})}
	q.asking[id] = a
	q.mu.Lock()
	q.tally.meet(id, rand.IntN(len(q.ds)), time.Now())
	q.mu.Unlock()
	p.wg.Add(1) // in force, so nobody waits yet
	l := p.link
	q.wg.Go(func() {
		defer p.wg.Done()
		q.ask(a, l)
		q.m.mu.Lock()
		defer q.m.mu.Unlock()
		if q.asking[id] == a {
			delete(q.asking, id)
		}
	})
	return a
}

// ask asks a member as long as it is linked.
func (q *Inquiry) ask(a *asking, l *link) {
	ctx, cancel := context.WithCancel(q.ctx)
	defer cancel()
	defer context.AfterFunc(a.p.ctx, cancel)()
	id, through := a.p.s.peer, false
	for l.hear(ctx) && ctx.Err() == nil {
		q.mu.Lock()
		p, wait := q.tally.next(id, time.Now())
		over := !p.first && q.tally.through(id)
		q.mu.Unlock()
		if over && !through {
			through = true
			close(a.through)
			q.tell()
		}
		if len(p.at) == 0 {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
			timer.Stop()
			continue
		}
		ds := make([]can.Digest, len(p.at))
		for k, i := range p.at {
			ds[k] = q.ds[i]
		}
		have, ok := l.ask(ctx, ds)
		if ctx.Err() != nil && !ok {
			return
		}
		q.mu.Lock()
		q.tally.learn(id, p, have, ok, time.Now())
		q.mu.Unlock()
		q.tell()
	}
}

func (q *Inquiry) tell() {
	select {
	case q.news <- struct{}{}:
	default:
	}
}

// visit returns when a visited member was asked about everything, or takes too long.
func (q *Inquiry) visit(p *place) {
	q.m.mu.Lock()
	a := q.beginLocked(p)
	q.m.mu.Unlock()
	if a == nil {
		return
	}
	timer := time.NewTimer(askingWait(len(q.ds)))
	defer timer.Stop()
	select {
	case <-a.through:
	case <-timer.C:
	case <-p.ctx.Done():
	case <-q.ctx.Done():
	}
}

// News receives after a member answered.
func (q *Inquiry) News() <-chan struct{} { return q.news }

func (q *Inquiry) due(now time.Time) bool { return q.reach && !q.next.After(now) }

func (q *Inquiry) may(id transport.PeerID, now time.Time) bool {
	at, ok := q.asked[id]
	return !ok || now.Sub(at) >= answerFor
}

func (q *Inquiry) batch(now time.Time) {
	q.next = now.Add(q.gap)
	q.gap = min(q.gap*3/2, inquireMost)
}
