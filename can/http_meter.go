package can

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// Causes with which the client ends its own requests. They match
// os.ErrDeadlineExceeded and never context.DeadlineExceeded, which is reserved
// for the caller's context.
var (
	errTimeout = fmt.Errorf("no answer in time: %w", os.ErrDeadlineExceeded)
	errStalled = fmt.Errorf("transfer stalled: %w", os.ErrDeadlineExceeded)
	errIdle    = fmt.Errorf("no sign of life: %w", os.ErrDeadlineExceeded)
)

func ownCause(err error) bool {
	return errors.Is(err, errTimeout) || errors.Is(err, errStalled) || errors.Is(err, errIdle)
}

// meter ends a transfer in which the service is silent for a window of time, or
// moves fewer than floor bytes in a window. Only time between wait and got
// counts, so that a slow caller is not held against the service.
type meter struct {
	window time.Duration
	floor  int64
	cancel func(error)

	mu    sync.Mutex
	timer *time.Timer
	began time.Time
	spent time.Duration
	moved int64
	over  bool
}

func newMeter(window time.Duration, rate int64, cancel func(error)) *meter {
	m := &meter{window: window, cancel: cancel}
	if rate > 0 {
		m.floor = int64(float64(rate) * window.Seconds())
	}
	return m
}

// wait begins the service's turn.
func (m *meter) wait() { m.waitFor(m.window, errStalled) }

func (m *meter) waitFor(d time.Duration, cause error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over {
		return
	}
	if m.timer != nil {
		m.timer.Stop()
	}
	m.began = time.Now()
	m.timer = time.AfterFunc(d, func() { m.cancel(cause) })
}

// got ends the service's turn, in which it moved n bytes.
func (m *meter) got(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.timer == nil || m.over {
		return
	}
	m.timer.Stop()
	m.spent += time.Since(m.began)
	m.moved += int64(n)
	if m.spent < m.window {
		return
	}
	if m.moved < m.floor {
		m.cancel(errStalled)
	}
	m.spent, m.moved = 0, 0
}

// stop ends the watch for good.
func (m *meter) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = true
	if m.timer != nil {
		m.timer.Stop()
	}
}
