package cansync

import "sync"

// gate counts the calls that are under way, so that Close can wait for them. A
// call within a call is counted anew, and is turned away once the gate is shut.
type gate struct {
	mu   sync.Mutex
	n    int
	shut bool
	idle chan struct{} // made by close, closed when the last call is through
}

// enter admits a call; the caller calls leave.
func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return false
	}
	g.n++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n--; g.n == 0 && g.shut {
		close(g.idle)
	}
}

// close admits no more calls and returns a channel that is closed when none is
// under way.
func (g *gate) close() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.shut {
		g.shut = true
		g.idle = make(chan struct{})
		if g.n == 0 {
			close(g.idle)
		}
	}
	return g.idle
}
