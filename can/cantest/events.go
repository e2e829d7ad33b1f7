package cantest

import (
	"sync"

	"github.com/cansync/cansync/can"
)

// watcher is one subscription. Its queue is bounded: a watcher that does not keep
// up loses events, as the contract allows.
type watcher struct {
	ch   chan can.Event
	gone chan struct{}
	once sync.Once
}

func (w *watcher) kick() { w.once.Do(func() { close(w.gone) }) }

func (s *Service) subscribe() *watcher {
	w := &watcher{ch: make(chan can.Event, 1024), gone: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[w] = struct{}{}
	return w
}

func (s *Service) unsubscribe(w *watcher) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.watchers, w)
}

// publish is called with the lock held and never blocks.
func (s *Service) publish(ev can.Event) {
	if s.lacks(FeatureEvents) || ev.Kind != can.EventNew && s.lacks(FeatureChangeEvents) {
		return
	}
	for w := range s.watchers {
		select {
		case w.ch <- ev:
		default:
		}
	}
}

// DropWatches breaks the connection of all watches.
func (s *Service) DropWatches() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.watchers {
		w.kick()
	}
}
