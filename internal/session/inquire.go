package session

import (
	"context"
	"sync"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/transport"
)

const (
	inquireGap  = time.Second // between the first two batches of members visited
	inquireMost = 30 * time.Second
	answerFor   = 10 * time.Minute // that an answer counts, and before a visit is repeated
)

// Inquiry asks which members hold some contents. [Manager.Inquire] makes one and
// Close ends it. Its methods but Close may be used by one goroutine at a time.
type Inquiry struct {
	m    *Manager
	e    *entry
	ds   []can.Digest
	news chan struct{}

	// Guarded by the manager's mutex.
	reach bool
	next  time.Time
	gap   time.Duration
	asked map[transport.PeerID]time.Time // who was visited, or is to be

	mu  sync.Mutex
	who []map[transport.PeerID]time.Time // who said so last when
}

// Inquire begins an inquiry; its error matches [ErrNoSession] when the library is
// not shared at all.
func (m *Manager) Inquire(lib [32]byte, ds []can.Digest) (*Inquiry, error) {
	q := &Inquiry{
		m: m, ds: ds, news: make(chan struct{}, 1), gap: inquireGap,
		asked: make(map[transport.PeerID]time.Time), who: make([]map[transport.PeerID]time.Time, len(ds)),
	}
	for i := range q.who {
		q.who[i] = make(map[transport.PeerID]time.Time)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if q.e = m.libs[lib]; q.e == nil {
		return nil, ErrNoSession
	}
	q.e.inquiries[q] = true
	return q, nil
}

// Close ends the inquiry.
func (q *Inquiry) Close() {
	q.m.mu.Lock()
	defer q.m.mu.Unlock()
	delete(q.e.inquiries, q)
}

// Ask asks every member that the library is shared with now, and returns who said
// for each content that it holds it: now, or on a visit in the last 10 minutes.
func (q *Inquiry) Ask(ctx context.Context) ([][]transport.PeerID, error) {
	err := q.m.each(ctx, q.e.lib.ID, q.ds, q.answer)
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make([][]transport.PeerID, len(q.ds))
	for i, who := range q.who {
		for id, at := range who {
			if now.Sub(at) > answerFor {
				delete(who, id)
				continue
			}
			out[i] = append(out[i], id)
		}
	}
	return out, err
}

// Reach has the inquiry visit further members, a few at a time, each once in 10
// minutes, until Close.
func (q *Inquiry) Reach() {
	q.m.mu.Lock()
	begun := !q.reach
	q.reach = true
	q.m.mu.Unlock()
	if begun {
		q.m.Poke()
	}
}

// News receives after a visited member answered.
func (q *Inquiry) News() <-chan struct{} { return q.news }

// answer takes note of what a member said; nil is no answer.
func (q *Inquiry) answer(peer transport.PeerID, have []bool) {
	if have == nil {
		return
	}
	now := time.Now()
	q.mu.Lock()
	for i, h := range have {
		if h {
			q.who[i][peer] = now
		} else {
			delete(q.who[i], peer)
		}
	}
	q.mu.Unlock()
	select {
	case q.news <- struct{}{}:
	default:
	}
}

func (q *Inquiry) due(now time.Time) bool { return q.reach && !q.next.After(now) }

func (q *Inquiry) may(id transport.PeerID, now time.Time) bool {
	at, ok := q.asked[id]
	return !ok || now.Sub(at) >= answerFor
}

func (q *Inquiry) batch(now time.Time) {
	q.next = now.Add(q.gap)
	q.gap = min(q.gap*3/2, inquireMost)
}
