package cansync

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/transport"
)

// EventKind says what an [Event] reports.
type EventKind string

// The kinds of events. New ones may be added.
const (
	// EventAnnounced: a local asset was announced in the library, or an edit of it.
	EventAnnounced EventKind = "announced"
	// EventRecord: a peer's record changed what the library says of an asset.
	EventRecord EventKind = "record"
	// EventFetched: an asset was fetched, verified and ingested.
	EventFetched EventKind = "fetched"
	// EventUpdated: the metadata of a local asset was brought up to date.
	EventUpdated EventKind = "updated"
	// EventTrashed: a local asset was trashed, as the library's policy says.
	EventTrashed EventKind = "trashed"
	// EventRemoved: an asset was removed from the library by this node.
	EventRemoved EventKind = "removed"
	// EventFailed: something about an asset did not work; it is tried again unless
	// the error says otherwise.
	EventFailed EventKind = "failed"
	// EventPending: a local asset waits for approval; see [PublishApprove].
	EventPending EventKind = "pending"
	// EventHeld: removals are held back until the host confirms them.
	EventHeld EventKind = "held"
	// EventJoined: the node became a member of the library.
	EventJoined EventKind = "joined"
	// EventRefused: a ticket was refused by a member.
	EventRefused EventKind = "refused"
	// EventPeerUp and EventPeerDown: a library began or ended to be shared with a
	// connected member.
	EventPeerUp   EventKind = "peer_up"
	EventPeerDown EventKind = "peer_down"
	// EventService: the CAN Service became reachable (no Err) or failed (Err).
	EventService EventKind = "service"
	// EventClock: the machine's clock is found to be behind (Err, which matches
	// [ErrClock]), or is right again (no Err); see [ClockStatus].
	EventClock EventKind = "clock"
	// EventProgress: large assets of the library are on their way; Size of Total
	// bytes are here, Rate is what the library receives, and Asset says which it is
	// if it is one. It comes at most twice a second for each library and only while
	// bytes arrive. It is not kept for readers that come later, and its Seq is that of
	// the event before it.
	EventProgress EventKind = "progress"
	// EventPeerLied: a peer sent bytes that are not what a record promises, and is
	// left alone for ten minutes.
	EventPeerLied EventKind = "peer_lied"
	// EventMissed: the reader was too slow, and events were dropped before this
	// one, or a crash may have lost some. Size tells how many at most.
	EventMissed EventKind = "missed"
)

// Event is something that happened on the node. Fields that do not apply to a kind
// are zero.
type Event struct {
	// Seq grows from event to event, over restarts too.
	Seq uint64
	// Time is when it happened, in whole milliseconds.
	Time    time.Time
	Kind    EventKind
	Library LibraryID
	Asset   can.Digest
	Peer    transport.PeerID
	// Size is the number of bytes fetched, of removals held, or of events missed at
	// most.
	Size int64
	// Total is the number of bytes that an [EventProgress] is about, and Rate how
	// many of the library's arrive in a second, the mean over the last five.
	Total int64
	Rate  int64
	// Duration is how long it took.
	Duration time.Duration
	Err      error
}

// keptEvents is how many events a slow reader can be behind.
const keptEvents = 4096

// hub keeps the last events and wakes their readers.
type hub struct {
	now func() time.Time

	shut chan struct{} // closed by close
	hid  chan struct{} // told of events that readers can't see yet

	mu      sync.Mutex
	ring    []Event // in order of Seq, at most twice keptEvents
	seq     uint64
	shown   uint64          // the last that readers may see
	flushed uint64          // the last that is in the store
	top     uint64          // the store says that numbers up to this one may be given out
	deaf    bool            // the store refuses to write: readers need not wait for it
	stored  map[uint64]bool // the chunks that are in the store
	wake    chan struct{}   // closed and replaced at each event
	closed  bool
	reports map[LibraryID]report // the last EventProgress of each library
	told    uint64               // how many there were
}

func newHub(now func() time.Time) *hub {
	return &hub{now: now, wake: make(chan struct{}), shut: make(chan struct{}), hid: make(chan struct{}, 1), stored: make(map[uint64]bool)}
}

func (h *hub) emit(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	h.seq++
	e.Seq, e.Time = h.seq, eventTime(h.now())
	if h.seq <= h.top || h.deaf {
		h.shown = h.seq
	} else {
		select {
		case h.hid <- struct{}{}:
		default:
		}
	}
	if len(h.ring) >= 2*keptEvents {
		h.ring = append([]Event(nil), h.ring[keptEvents:]...)
	}
	h.ring = append(h.ring, e)
	close(h.wake)
	h.wake = make(chan struct{})
}

// eventTime is the time of an event, as precise as it is after a restart.
func eventTime(t time.Time) time.Time { return t.Truncate(time.Millisecond) }

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.closed, h.shown = true, h.seq
		close(h.shut)
		close(h.wake)
	}
}

// after returns the events behind seq, and what to wait for when there are none.
func (h *hub) after(seq uint64) (events []Event, wake <-chan struct{}, closed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at, _ := slices.BinarySearchFunc(h.ring, seq+1, func(e Event, s uint64) int { return cmp.Compare(e.Seq, s) })
	end, _ := slices.BinarySearchFunc(h.ring, h.shown+1, func(e Event, s uint64) int { return cmp.Compare(e.Seq, s) })
	if at = max(at, len(h.ring)-keptEvents); at < end {
		events = append(events, h.ring[at:end]...)
	}
	return events, h.wake, h.closed
}

// down returns when each peer was last lost for a library, as far back as events
// are kept.
func (h *hub) down(lib LibraryID) map[transport.PeerID]time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make(map[transport.PeerID]time.Time)
	for _, e := range h.ring {
		if e.Kind == EventPeerDown && e.Library == lib {
			out[e.Peer] = e.Time
		}
	}
	return out
}

// Events yields what happens on the node from now on, in order, until ctx ends or
// the node is closed. A reader that falls more than a few thousand events behind
// gets an [EventMissed] in their place; what counts is in [Library.Status] and
// [Library.Assets], events only tell when to look.
func (n *Node) Events(ctx context.Context) iter.Seq[Event] {
	return n.EventsAfter(ctx, n.LastEvent())
}

// LastEvent returns the number of the newest event.
func (n *Node) LastEvent() uint64 {
	n.events.mu.Lock()
	defer n.events.mu.Unlock()
	return n.events.shown
}

// EventsAfter is [Node.Events] for a reader that saw everything up to the event
// with the number seq, before a restart of the node perhaps; 0 yields everything
// that is still kept, the last 4,096 events at least. A crash of the node within a
// second or two of an event may lose events, and only then skips numbers, which are
// reported as missed. A number that the node never gave, since its data
// directory is not the one that it was, yields an [EventMissed] and what happens from
// now on.
func (n *Node) EventsAfter(ctx context.Context, seq uint64) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		seq, told := seq, n.events.reported()
		if last := n.LastEvent(); seq > last {
			seq = last
			if !yield(Event{Seq: last, Time: eventTime(n.cfg.Now()), Kind: EventMissed, Size: int64(last)}) {
				return
			}
		}
		for {
			events, wake, closed := n.events.after(seq)
			reports := n.events.reportsAfter(told)
			for _, e := range events {
				if missed := e.Seq - seq - 1; missed > 0 && seq > 0 {
					if !yield(Event{Seq: e.Seq - 1, Time: e.Time, Kind: EventMissed, Size: int64(missed)}) {
						return
					}
				}
				seq = e.Seq
				if !yield(e) {
					return
				}
			}
			for _, r := range reports {
				told, r.e.Seq = r.number, seq
				if !yield(r.e) {
					return
				}
			}
			if len(events)+len(reports) > 0 {
				continue
			}
			if closed {
				return
			}
			select {
			case <-wake:
			case <-ctx.Done():
				return
			}
		}
	}
}
