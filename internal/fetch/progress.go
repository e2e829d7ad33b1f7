package fetch

import (
	"bytes"
	"context"
	"encoding/hex"
	"slices"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/replica"
)

// census is what the rows of a queue add up to.
type census struct {
	at      time.Time
	stale   bool
	waiting int64 // rows whose time has not come
	due     int64 // when the first of them is
	causes  [16]int64
}

func (c *census) add(w replica.Work) {
	if int(w.Cause) < len(c.causes) {
		c.causes[w.Cause]++
	}
}

// Progress says how far a library is.
type Progress struct {
	// Wanted is the number of assets that the node has to look at, and Failed of
	// those among them whose last attempt failed, by cause.
	Wanted int64
	Failed map[replica.Cause]int64
	// Running is the number of assets that are worked on, and Done and Total the
	// bytes of the large ones among them.
	Running     int
	Done, Total int64
	// Missing is about the bytes of assets that are not here, what is staged of them
	// included: exact while no more than 10,000 assets are wanted, else estimated
	// from as many, and some seconds old at most.
	Missing int64
	// Transfers are the large assets on their way, ordered by digest.
	Transfers []Transfer
}

// Transfer is a large asset on its way.
type Transfer struct {
	Asset can.Digest
	// Done of Total bytes are here; all of them while the asset is ingested.
	Done, Total int64
	// Rate is in bytes per second, over the last seconds.
	Rate int64
}

// censusAge is how old the count of failed assets may be.
const censusAge = time.Second

// Progress returns how far a library is. Failed assets are counted at most once a
// second. Errors match [ErrUnknown] or are the store's.
func (f *Fetcher) Progress(ctx context.Context, id [32]byte) (Progress, error) {
	f.mu.Lock()
	d := f.libs[id]
	f.mu.Unlock()
	if d == nil {
		return Progress{}, ErrUnknown
	}
	p := Progress{Wanted: d.lib.Counts().Queued, Failed: make(map[replica.Cause]int64)}
	now := f.cfg.Now()
	f.mu.Lock()
	c := d.census
	f.mu.Unlock()
	if age := now.Sub(c.at); p.Wanted > 0 && (c.stale || c.at.IsZero()) && (age < 0 || age >= censusAge) {
		c = census{at: now, waiting: c.waiting}
		for w, err := range d.lib.Queue(ctx) {
			if err != nil {
				return Progress{}, err
			}
			c.add(w)
		}
		f.mu.Lock()
		d.census.at, d.census.stale, d.census.causes = c.at, false, c.causes
		f.mu.Unlock()
	}
	for cause, n := range c.causes {
		if n > 0 && replica.Cause(cause) != replica.NoCause && p.Wanted > 0 {
			p.Failed[replica.Cause(cause)] = n
		}
	}
	var err error
	if p.Missing, err = d.lacks(ctx); err != nil {
		return Progress{}, err
	}
	at := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range d.pending {
		if !t.running {
			continue
		}
		p.Running++
		p.Done += t.done
		if p.Total += t.total; t.total > 0 {
			p.Transfers = append(p.Transfers, Transfer{t.asset, t.done, t.total, t.rate.PerSecond(at)})
		}
	}
	slices.SortFunc(p.Transfers, func(a, b Transfer) int { return bytes.Compare(a.Asset[:], b.Asset[:]) })
	return p, nil
}

// Moving returns what a library's large assets on their way add up to, and which
// it is if it is one. It reads nothing but memory.
func (f *Fetcher) Moving(id [32]byte) (only can.Digest, count int, done, total int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.libs[id]
	if d == nil {
		return can.Digest{}, 0, 0, 0
	}
	for _, t := range d.pending {
		if t.running && t.total > 0 {
			only = t.asset
			count++
			done += t.done
			total += t.total
		}
	}
	if count != 1 {
		only = can.Digest{}
	}
	return only, count, done, total
}

func short(id [32]byte) string { return hex.EncodeToString(id[:4]) }
