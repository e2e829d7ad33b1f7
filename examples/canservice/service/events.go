package service

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

const (
	eventNew     = "new_asset"
	eventChanged = "asset_changed"
	eventTrashed = "asset_trashed"

	maxListeners   = 64
	listenerQueue  = 1024 // events a slow listener may lag behind
	eventHeartbeat = 15 * time.Second
	eventDeadline  = 30 * time.Second
)

// hub hands events to listeners. It never waits for one: a listener that lags
// too far behind is cut off, reconnects, and lists what it missed.
type hub struct {
	mu        sync.Mutex
	closed    bool
	listeners map[chan []byte]struct{}
}

func newHub() *hub { return &hub{listeners: make(map[chan []byte]struct{})} }

// publish encodes the event once for all listeners.
func (h *hub) publish(kind string, at cursor, a *asset) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.listeners) == 0 {
		return
	}
	data, err := json.Marshal(a)
	if err != nil {
		return // an asset is always encodable
	}
	msg := fmt.Appendf(nil, "id: %s\nevent: %s\ndata: %s\n\n", at, kind, data)
	for ch := range h.listeners {
		select {
		case ch <- msg:
		default:
			delete(h.listeners, ch)
			close(ch)
		}
	}
}

// listen adds a listener; its channel is closed when it is too slow or the hub
// closes. ok is false when there are too many.
func (h *hub) listen() (ch chan []byte, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || len(h.listeners) >= maxListeners {
		return nil, false
	}
	ch = make(chan []byte, listenerQueue)
	h.listeners[ch] = struct{}{}
	return ch, true
}

func (h *hub) leave(ch chan []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.listeners[ch]; ok {
		delete(h.listeners, ch)
		close(ch)
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for ch := range h.listeners {
		delete(h.listeners, ch)
		close(ch)
	}
}

// handleEvents streams events. The stream begins with a comment, sent once the
// listener is in place: what is ingested after that is reported.
func (s *Service) handleEvents(w http.ResponseWriter, r *http.Request) error {
	ch, ok := s.events.listen()
	if !ok {
		return &requestError{status: http.StatusServiceUnavailable, msg: fmt.Sprintf("no more than %d event streams at a time", maxListeners)}
	}
	defer s.events.leave(ch)
	rc := http.NewResponseController(w)
	send := func(msg []byte) bool {
		_ = rc.SetWriteDeadline(time.Now().Add(eventDeadline))
		if _, err := w.Write(msg); err != nil {
			return false
		}
		return rc.Flush() == nil
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	if !send([]byte(": listening\n\n")) {
		return nil
	}
	beat := time.NewTicker(eventHeartbeat)
	defer beat.Stop()
	for {
		select {
		case msg, ok := <-ch:
			if !ok || !send(msg) {
				return nil
			}
		case <-beat.C:
			if !send([]byte(": alive\n\n")) {
				return nil
			}
		case <-r.Context().Done():
			return nil
		case <-s.ctx.Done():
			return nil
		}
	}
}
