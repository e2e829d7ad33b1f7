package session

import (
	"context"
	"sync"

	"github.com/cansync/cansync/internal/wire"
)

// onWay knows whether what a reconciliation found the peer to lack is still on its way.
// Behind it goes a ping, and pongs come in the order of pings: with that one the peer
// has stored all before it. To reconcile earlier would find the same missing again, and
// over a link that takes minutes send it as many times.
type onWay struct {
	pongs   uint64
	open    int  // surpluses that were ordered and not answered
	waiting bool // a round of the asset set is due when there is none

	mu    sync.Mutex // guards what the writer uses too
	pings uint64     // written
	marks []uint64   // those of them that stand behind a surplus
}

// ping is called for each ping before it is written; behind says that it follows a
// surplus.
func (w *onWay) ping(behind bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pings++
	if behind {
		w.marks = append(w.marks, w.pings)
	}
}

// pong is called for each pong. It reports, once, whether a round is due now.
func (w *onWay) pong() bool {
	w.pongs++
	w.mu.Lock()
	for len(w.marks) > 0 && w.marks[0] <= w.pongs {
		w.marks = w.marks[1:]
		w.open--
	}
	w.mu.Unlock()
	if w.open > 0 || !w.waiting {
		return false
	}
	w.waiting = false
	return true
}

// nextAssets begins a round of the asset set, at once or when the peer has what it
// lacks by the rounds before.
func (l *link) nextAssets(ctx context.Context) error {
	if l.onWay.open > 0 {
		l.onWay.waiting = true
		return nil
	}
	return l.start(ctx, false)
}

// ponged takes a pong.
func (l *link) ponged(ctx context.Context) error {
	// A round under way is of the control set, and one of the asset set follows it.
	if !l.onWay.pong() || !l.round.over || l.respite.holds() {
		return nil
	}
	return l.start(ctx, false)
}

// putPing writes a ping behind what went before.
func (l *link) putPing() error {
	l.onWay.ping(true)
	return l.put(pingFrame())
}

func pingFrame() []byte { return wire.AppendFrame(nil, framePing, nil) }

// isPing reports whether a frame is one that pingFrame made.
func isPing(frame []byte) bool { return len(frame) == 5 && frame[4] == framePing }
