package cansync

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/meter"
	"github.com/cansync/cansync/transport"
)

// Progress is how far a library's contents are. Rates are in bytes of content per
// second, the mean over the last five seconds; 0 when nothing moves.
type Progress struct {
	// Assets and Bytes are in the library; AssetsDone of the assets are as they
	// should be in the local CAN Service. BytesDone are here, what is staged of the
	// large assets on their way included; it is exact while at most 10,000 assets
	// are wanted, and else estimated from as many.
	Assets, AssetsDone int64
	Bytes, BytesDone   int64
	// AssetsTrashed and BytesTrashed were trashed here and are not fetched again: they
	// are neither done nor on their way. Those whose removal is held count among them,
	// with their bytes among BytesDone until that is decided.
	AssetsTrashed, BytesTrashed int64
	// Rate is what the node receives, and UploadRate what it serves.
	Rate, UploadRate int64
	// ETA is how long the rest takes at this rate; 0 when nothing is left or when
	// it can't be known, since nothing moves. In a mode that fetches only what is asked
	// for, the rest is that of Transfers.
	ETA time.Duration
	// Transfers are the large assets (more than 64 KiB) on their way, ordered by
	// digest. Smaller ones come and go too fast to be listed.
	Transfers []AssetTransfer
}

// AssetTransfer is a large asset on its way.
type AssetTransfer struct {
	Digest can.Digest
	// Done of Total bytes are here and verified; all of them while the asset is
	// ingested.
	Done, Total int64
	// Rate is in bytes per second.
	Rate int64
}

// Progress returns how far the library is. It is zero while the library is being
// joined.
func (l *Library) Progress(ctx context.Context) (Progress, error) {
	lib, done, err := l.member()
	if errors.Is(err, ErrNotJoined) {
		return Progress{}, nil
	}
	if err != nil {
		return Progress{}, err
	}
	defer done()
	c := lib.Counts() // first: what comes meanwhile may be missing twice, and not once too few
	f, err := l.n.fetcher.Progress(ctx, l.id)
	if err != nil {
		return Progress{}, err
	}
	trashed := c.Trashed + int64(l.n.announcer.Held(l.id))
	p := Progress{
		Assets: c.Live, AssetsDone: max(0, c.Live-c.Queued-trashed), Bytes: c.LiveBytes,
		AssetsTrashed: trashed, BytesTrashed: c.TrashedBytes,
	}
	missing, rest := f.Missing, int64(0)
	for _, t := range f.Transfers {
		p.Transfers = append(p.Transfers, AssetTransfer{Digest: t.Asset, Done: t.Done, Total: t.Total, Rate: t.Rate})
		missing -= t.Done
		rest += t.Total - t.Done
	}
	missing = min(max(missing, rest), max(0, p.Bytes-p.BytesTrashed))
	p.BytesDone = max(0, p.Bytes-p.BytesTrashed-missing)
	p.Rate, p.UploadRate = l.n.flows.rates(l.id, time.Now())
	if !lib.Fetches() { // only what was asked for by name comes
		missing = rest
	}
	p.ETA = eta(missing, p.Rate)
	return p, nil
}

// eta returns how long the rest takes; 0 is unknown. Beyond a century nothing is.
func eta(rest, rate int64) time.Duration {
	if rest <= 0 || rate <= 0 {
		return 0
	}
	secs := float64(rest) / float64(rate)
	if secs > 100*365*24*3600 {
		return 0
	}
	return max(time.Duration(secs*float64(time.Second)), 1)
}

// progressEvery is the least time between two EventProgress of a library.
const progressEvery = 500 * time.Millisecond

// flows measures the traffic of contents.
type flows struct {
	mu   sync.Mutex
	libs map[[32]byte]*flow
}

// flow is the traffic of one library.
type flow struct {
	down, up meter.Rate
	told     time.Time // the last EventProgress
}

func (f *flows) at(lib [32]byte) *flow {
	fl := f.libs[lib]
	if fl == nil {
		fl = new(flow)
		if f.libs == nil {
			f.libs = make(map[[32]byte]*flow)
		}
		f.libs[lib] = fl
	}
	return fl
}

// received counts bytes and reports whether it is time for an EventProgress.
func (f *flows) received(lib [32]byte, n int, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl := f.at(lib)
	fl.down.Add(now, int64(n))
	if !fl.told.IsZero() && now.Sub(fl.told) < progressEvery {
		return false
	}
	fl.told = now
	return true
}

func (f *flows) sent(lib [32]byte, n int, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at(lib).up.Add(now, int64(n))
}

func (f *flows) rates(lib [32]byte, now time.Time) (down, up int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl := f.libs[lib]
	if fl == nil {
		return 0, 0
	}
	return fl.down.PerSecond(now), fl.up.PerSecond(now)
}

func (f *flows) forget(lib [32]byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.libs, lib)
}

// report is an EventProgress, which is handed to whoever listens and not kept.
type report struct {
	number uint64
	e      Event
}

func (h *hub) report(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	if h.reports == nil {
		h.reports = make(map[LibraryID]report)
	}
	h.told++
	e.Time = eventTime(h.now())
	h.reports[e.Library] = report{h.told, e}
	close(h.wake)
	h.wake = make(chan struct{})
}

// reported returns the number of the last report.
func (h *hub) reported() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.told
}

// reportsAfter returns the newest report of each library that has one behind a
// number, in order.
func (h *hub) reportsAfter(number uint64) (out []report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.reports {
		if r.number > number {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b report) int { return cmp.Compare(a.number, b.number) })
	return out
}

// onReceived counts content bytes. Progress is reported from here, so that there is
// no report without traffic.
func (n *Node) onReceived(lib [32]byte, _ transport.PeerID, bytes int) {
	now := time.Now()
	if !n.flows.received(lib, bytes, now) {
		return
	}
	if only, count, done, total := n.fetcher.Moving(lib); count > 0 {
		rate, _ := n.flows.rates(lib, now)
		n.events.report(Event{Kind: EventProgress, Library: lib, Asset: only, Size: done, Total: total, Rate: rate})
	}
}

func (n *Node) onSent(lib [32]byte, _ transport.PeerID, bytes int) {
	n.flows.sent(lib, bytes, time.Now())
}
