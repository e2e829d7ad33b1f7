package ingest

import (
	"context"
	"sync"
	"time"
)

// limiter lets as many ingests run at once as aimd says, in the order in which
// they ask, and none while the service has asked to be left alone.
type limiter struct {
	mu      sync.Mutex
	aimd    aimd
	running int
	waiting []chan struct{}
	pause   time.Time
}

func newLimiter() *limiter { return &limiter{aimd: newAIMD()} }

// slot is the right to run one ingest.
type slot struct {
	l     *limiter
	begun time.Time
	full  bool
}

// acquire waits for a slot. Whoever gets one releases it.
func (l *limiter) acquire(ctx context.Context) (*slot, error) {
	l.mu.Lock()
	if l.running < l.aimd.allowed() && len(l.waiting) == 0 {
		l.running++
		l.mu.Unlock()
	} else {
		turn := make(chan struct{})
		l.waiting = append(l.waiting, turn)
		l.mu.Unlock()
		select {
		case <-turn:
		case <-ctx.Done():
			l.giveUp(turn)
			return nil, ctx.Err()
		}
	}
	s := &slot{l: l}
	if err := l.rest(ctx); err != nil {
		s.release()
		return nil, err
	}
	s.begun = time.Now()
	l.mu.Lock()
	s.full = l.running >= l.aimd.allowed()
	l.mu.Unlock()
	return s, nil
}

// rest waits until the service may be asked again.
func (l *limiter) rest(ctx context.Context) error {
	for {
		l.mu.Lock()
		left := time.Until(l.pause)
		l.mu.Unlock()
		if left <= 0 {
			return ctx.Err()
		}
		t := time.NewTimer(left)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

// giveUp leaves the queue; a turn that came meanwhile is passed on.
func (l *limiter) giveUp(turn chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, w := range l.waiting {
		if w == turn {
			l.waiting = append(l.waiting[:i], l.waiting[i+1:]...)
			return
		}
	}
	l.running--
	l.admit()
}

// admit lets in who may run. It is called with mu held.
func (l *limiter) admit() {
	for len(l.waiting) > 0 && l.running < l.aimd.allowed() {
		l.running++
		close(l.waiting[0])
		l.waiting = l.waiting[1:]
	}
}

// release gives the slot back without a word on how it went.
func (s *slot) release() {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	s.l.running--
	s.l.admit()
}

// succeeded gives the slot back after an ingest of the size.
func (s *slot) succeeded(size int64) {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	s.l.running--
	s.l.aimd.succeeded(time.Now(), s.begun, size, s.full)
	s.l.admit()
}

// failed gives the slot back after the service failed, or asked to be left alone
// for the time.
func (s *slot) failed(alone time.Duration) {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	now := time.Now()
	s.l.running--
	s.l.aimd.failed(now, s.begun)
	if until := now.Add(min(alone, maxBackoff)); alone > 0 && until.After(s.l.pause) {
		s.l.pause = until
	}
	s.l.admit()
}

// parallel returns how many ingests may run at once now.
func (l *limiter) parallel() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.aimd.allowed()
}
