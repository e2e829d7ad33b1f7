package cansync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	ds "github.com/ipfs/go-datastore"

	"github.com/cansync/cansync/internal/kv"
	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/store"
)

// Events are kept in the store so that a reader can go on behind the last one it
// saw, also after a restart. One that comes alone is written before a reader sees
// it. When more come, numbers are reserved and events are seen at once and written
// once a second; a crash then may lose some, and the reserved numbers are skipped,
// which a reader is told as an EventMissed. When no more come the rest of the
// reserve is given back, so that a crash of a node at rest loses and skips nothing.

const (
	eventChunk   = 256
	eventFlush   = time.Second
	eventReserve = 1 << 10 // numbers that may be given out between two flushes; more wait for the next
	maxEventText = 500
)

func eventKey(chunk uint64) ds.Key {
	return kv.Key("n", "e", strconv.FormatUint(chunk, 10))
}

var eventTop = kv.Key("n", "m", "events")

func (e Event) append(b []byte) []byte {
	text := ""
	if e.Err != nil {
		text = e.Err.Error()
		if len(text) > maxEventText {
			text = text[:maxEventText]
		}
	}
	b = wire.AppendU64(b, e.Seq)
	b = wire.AppendU64(b, uint64(e.Time.UnixMilli()))
	b = wire.AppendString(b, string(e.Kind))
	b = append(append(append(b, e.Library[:]...), e.Asset[:]...), e.Peer[:]...)
	b = wire.AppendU64(wire.AppendU64(b, uint64(e.Size)), uint64(e.Duration))
	return wire.AppendBytes(b, []byte(text))
}

func readEvent(r *wire.Reader) Event {
	e := Event{Seq: r.U64(), Time: time.UnixMilli(r.I64()), Kind: EventKind(r.String(64))}
	e.Library, e.Asset, e.Peer = r.B32(), r.B32(), r.B32()
	e.Size, e.Duration = r.I64(), time.Duration(r.I64())
	if text := r.Bytes(maxEventText); len(text) > 0 {
		e.Err = errors.New(string(text))
	}
	return e
}

func decodeEvents(b []byte) ([]Event, error) {
	r := wire.NewReader(b)
	var out []Event
	for r.Err() == nil && r.Len() > 0 && len(out) < eventChunk {
		out = append(out, readEvent(r))
	}
	return out, r.End()
}

// load takes up the events of earlier starts. What can't be read is left out.
func (h *hub) load(ctx context.Context, s store.Store) error {
	b, err := kv.Get(ctx, s, eventTop)
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	// The chunks are looked for and not computed: after a crash there is a gap
	// between the last event and the number to go on from.
	stored := make(map[uint64]bool)
	var ring []Event
	for e, err := range kv.Scan(ctx, s, kv.Key("n", "e"), false) {
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		chunk, err := strconv.ParseUint(e.Key[strings.LastIndexByte(e.Key, '/')+1:], 10, 64)
		if err != nil {
			continue
		}
		stored[chunk] = true
		if events, err := decodeEvents(e.Value); err == nil {
			ring = append(ring, events...)
		}
	}
	slices.SortFunc(ring, func(a, b Event) int { return cmp.Compare(a.Seq, b.Seq) })
	if n := len(ring); n > 2*keptEvents {
		ring = ring[n-2*keptEvents:]
	}
	seq := wire.NewReader(b).U64()
	if n := len(ring); n > 0 {
		seq = max(seq, ring[n-1].Seq)
	}
	h.mu.Lock()
	h.ring, h.stored, h.seq, h.shown, h.flushed, h.top = ring, stored, seq, seq, seq, seq
	h.mu.Unlock()
	return nil
}

// run writes events to the store until the hub is closed, and the last ones then.
func (h *hub) run(s store.Store, report func(error)) {
	ctx := context.Background() // the store outlives the hub
	var last time.Time          // the last flush
	for {
		h.mu.Lock()
		wake, closed, news, open, hidden := h.wake, h.closed, h.seq > h.flushed, h.top > h.seq, h.seq > h.shown
		h.mu.Unlock()
		switch wait := eventFlush - time.Since(last); {
		case closed && !news && !open:
			return
		case closed:
			if err := h.flush(ctx, s, 0); err != nil {
				report(err)
			}
			return
		case !news && !open:
			<-wake
			continue
		case !hidden && wait > 0:
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-h.shut:
			case <-h.hid:
			}
			timer.Stop()
			continue
		}
		reserve := uint64(0)
		if news && time.Since(last) < 2*eventFlush {
			reserve = eventReserve
		}
		last = time.Now()
		if err := h.flush(ctx, s, reserve); err != nil {
			h.unheard()
			report(err)
		}
	}
}

// unheard lets readers see what the store refuses to keep.
func (h *hub) unheard() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deaf = true
	h.show(h.seq)
}

// show lets readers see the events up to one. It is called with mu held.
func (h *hub) show(seq uint64) {
	if seq > h.shown && !h.closed {
		h.shown = seq
		close(h.wake)
		h.wake = make(chan struct{})
	}
}

// flush writes the chunks that changed, forgets the oldest, and reserves numbers.
func (h *hub) flush(ctx context.Context, s store.Store, reserve uint64) error {
	h.mu.Lock()
	ring, seq, from := h.ring, h.seq, h.flushed
	top := seq + reserve
	// What comes while reserved numbers are given back is not seen before it is written, or
	// its number could be given again after a crash.
	h.top = min(h.top, top)
	var old []uint64
	for c := range h.stored {
		if len(ring) > 0 && c < ring[0].Seq/eventChunk {
			old = append(old, c)
		}
	}
	h.mu.Unlock()
	chunks := make(map[uint64][]byte)
	for i := range ring {
		if c := ring[i].Seq / eventChunk; c >= (from+1)/eventChunk {
			chunks[c] = ring[i].append(chunks[c])
		}
	}
	err := kv.Update(ctx, s, func(txn ds.Txn) error {
		for c, b := range chunks {
			if err := txn.Put(ctx, eventKey(c), b); err != nil {
				return err
			}
		}
		for _, c := range old {
			if err := txn.Delete(ctx, eventKey(c)); err != nil {
				return err
			}
		}
		return txn.Put(ctx, eventTop, wire.AppendU64(nil, top))
	})
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.flushed, h.top, h.deaf = seq, top, false
	h.show(min(h.seq, top))
	for c := range chunks {
		h.stored[c] = true
	}
	for _, c := range old {
		delete(h.stored, c)
	}
	return nil
}
