package announce

import (
	"errors"
	"sync"
	"time"

	"github.com/cansync/cansync/can"
)

// maxHints bounds the assets that events named and nobody looked at yet. Beyond,
// a full scan takes their place.
const maxHints = 4096

// hints gathers reasons to look at the service and wakes the live loop.
type hints struct {
	wake chan struct{}

	mu    sync.Mutex
	order []string
	named map[string]hint
	look  bool // at the newest assets
	lost  bool // hints: scan
}

func (h *hints) init() {
	h.wake, h.named = make(chan struct{}, 1), make(map[string]hint)
}

// check wakes the live loop, which sees then what changed about the libraries.
func (h *hints) check() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *hints) poll() {
	h.mu.Lock()
	h.look = true
	h.mu.Unlock()
	h.check()
}

func (h *hints) add(ev can.Event) {
	if ev.Asset.Handle == "" {
		h.poll()
		return
	}
	h.mu.Lock()
	_, known := h.named[ev.Asset.Handle]
	switch {
	case !known && len(h.order) == maxHints:
		h.lost = true
	case !known:
		h.order = append(h.order, ev.Asset.Handle)
		fallthrough
	default:
		now := hint{kind: ev.Kind}
		if ev.Kind == can.EventNew && len(h.order) <= maxKept && textLen(ev.Asset.Metadata) <= maxKeptText {
			now.asset = ev.Asset
		}
		h.named[ev.Asset.Handle] = now
	}
	h.mu.Unlock()
	h.check()
}

// hint is what the last event about an asset said: of a new one what it is, unless
// that would take too much room.
type hint struct {
	kind  can.EventKind
	asset can.Asset
}

// Of so many new assets it is kept what they are, if it is no more text than that.
const (
	maxKept     = 1024
	maxKeptText = 4 << 10
)

func textLen(m can.Metadata) int {
	n := len(m.MIMEType) + len(m.Application) + len(m.User) + len(m.Description) + len(m.Filename) + len(m.Path)
	for _, t := range m.Tags {
		n += len(t) + 16
	}
	return n
}

type hinted struct {
	order      []string
	named      map[string]hint
	look, lost bool
}

func (h *hints) take() hinted {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := hinted{h.order, h.named, h.look, h.lost}
	h.order, h.named, h.look, h.lost = nil, make(map[string]hint), false, false
	return t
}

// reprobe is how long a service is believed to lack a call.
const reprobe = 10 * time.Minute

// watch turns the service's events into hints.
func (a *Announcer) watch() {
	w, ok := a.cfg.Client.(can.Watcher)
	if !ok {
		return
	}
	for failures := 1; ; failures++ {
		err := w.Watch(a.ctx, func(ev can.Event) {
			failures = 0
			a.hints.add(ev)
		})
		wait := backoff(max(failures, 1), err)
		if errors.Is(err, can.ErrUnsupported) {
			wait = reprobe
		} else if a.ctx.Err() == nil {
			a.log.Debug("watch ended", "error", err, "again_in", wait)
		}
		if !sleep(a.ctx, wait) {
			return
		}
	}
}
