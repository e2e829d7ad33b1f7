package can

import (
	"sync"
	"sync/atomic"
	"time"
)

type flag = atomic.Bool

// ability remembers whether the service has an optional call.
type ability struct {
	mu    sync.Mutex
	seen  bool // it answered once as only an existing call does
	until time.Time
}

// missing reports whether the call is known to be absent at now.
func (a *ability) missing(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return now.Before(a.until)
}

// known reports whether the call was seen to exist.
func (a *ability) known() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen
}

func (a *ability) found() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen, a.until = true, time.Time{}
}

func (a *ability) lost(until time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen, a.until = false, until
}
