package memory

import (
	"sync"
	"time"
)

// deadline is a channel that is closed when a time has come, and opened again
// when the time is changed.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	past  chan struct{}
}

func newDeadline() deadline { return deadline{past: make(chan struct{})} }

// set changes the time; the zero time means never.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	select {
	case <-d.past:
		d.past = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	past := d.past
	wait := time.Until(t)
	if wait <= 0 {
		close(past)
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.timer == timer { // not replaced meanwhile
			d.timer = nil
			close(past)
		}
	})
	d.timer = timer
}

// done returns a channel that is closed at the time set last. A waiter sees a
// deadline that is brought forward; one that is set back while it waits may still
// end the wait, as the pipe looks again.
func (d *deadline) done() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.past
}

func (d *deadline) passed() bool {
	select {
	case <-d.done():
		return true
	default:
		return false
	}
}
