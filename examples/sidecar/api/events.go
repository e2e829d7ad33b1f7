package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/cansync/cansync"
)

// events streams what happens on the node as server-sent events, with a comment
// as a sign of life in between. A parameter chooses one library, and a
// Last-Event-ID goes on after that event, as browsers do by themselves.
func (h *Handler) events(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead {
		h.fail(w, r, failf(http.StatusMethodNotAllowed, "an event stream has no head"))
		return
	}
	q, err := query(r, "library")
	if err != nil {
		h.fail(w, r, err)
		return
	}
	var only cansync.LibraryID
	if q.Has("library") {
		if only, err = cansync.ParseLibraryID(q.Get("library")); err != nil {
			h.fail(w, r, failf(http.StatusBadRequest, "parameter \"library\": want the id of a library"))
			return
		}
	}
	last := h.node.LastEvent()
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		n, err := strconv.ParseUint(id, 10, 64)
		if err != nil {
			h.fail(w, r, failf(http.StatusBadRequest, "Last-Event-ID: want the id of an event"))
			return
		}
		last = n
	}
	select {
	case h.streams <- struct{}{}:
		defer func() { <-h.streams }()
	default:
		h.fail(w, r, failf(http.StatusServiceUnavailable, "too many event streams; close one"))
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(h.stop, cancel)()

	// The node hands out events in a loop of its own, which ends with ctx.
	feed := make(chan cansync.Event)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	seq := h.node.EventsAfter(ctx, last)
	wg.Go(func() {
		defer close(feed)
		for e := range seq {
			select {
			case feed <- e:
			case <-ctx.Done():
				return
			}
		}
	})

	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{})
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	send := func(format string, args ...any) bool {
		_ = rc.SetWriteDeadline(time.Now().Add(writeTime))
		if _, err := fmt.Fprintf(w, format, args...); err != nil {
			return false
		}
		return rc.Flush() == nil
	}
	if !send(": events follow\n\n") {
		return
	}
	beat := time.NewTicker(h.opts.Heartbeat)
	defer beat.Stop()
	for {
		select {
		case e, ok := <-feed:
			if !ok {
				return
			}
			if only != (cansync.LibraryID{}) && e.Library != only && e.Library != (cansync.LibraryID{}) {
				continue
			}
			data, err := json.Marshal(eventViewOf(e))
			if err != nil || !send("id: %d\nevent: %s\ndata: %s\n\n", e.Seq, e.Kind, data) {
				return
			}
		case <-beat.C:
			if !send(": alive\n\n") {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}
