package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	ds "github.com/ipfs/go-datastore"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/kv"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/wire"
)

// maxRow bounds the stored records of one asset, as a guard against a damaged
// length.
const maxRow = 1 << 26

func encodeRows(rows []record.Record) []byte {
	n := 0
	for i := range rows {
		n += 4 + rows[i].Size()
	}
	b := make([]byte, 0, n)
	for i := range rows {
		b = wire.AppendU32(b, uint32(rows[i].Size()))
		b = rows[i].Append(b)
	}
	return b
}

func decodeRows(b []byte) ([]record.Record, error) {
	var rows []record.Record
	rd := wire.NewReader(b)
	for rd.Err() == nil && rd.Len() > 0 {
		raw := rd.Bytes(maxRow)
		if rd.Err() != nil {
			break
		}
		rec, err := record.Decode(raw)
		if err != nil {
			return nil, err
		}
		rows = append(rows, rec)
	}
	return rows, rd.End()
}

// rows reads all stored records of an asset.
func (r *Replica) rows(ctx context.Context, from ds.Read, asset can.Digest) ([]record.Record, error) {
	b, err := kv.Get(ctx, from, r.assetKey("a", asset))
	if err != nil {
		return nil, err
	}
	rows, err := decodeRows(b)
	if err != nil {
		return nil, fmt.Errorf("replica: stored records of %s: %w", asset, err)
	}
	return rows, nil
}

// lens is how a node looks at the records.
type lens struct {
	filter filter.View // what an asset has to match to be in the library
	own    filter.View // by which the node's view is narrower, in normal form
}

// entry finds the live record among the rows of an asset.
func (l lens) entry(asset can.Digest, rows []record.Record) Entry {
	e := Entry{Asset: asset}
	live, ahead := -1, -1
	for i := range rows {
		to := &live
		if !complete(rows[i]) {
			to = &ahead
		}
		if *to < 0 || record.Compare(rows[i].Header, rows[*to].Header) > 0 {
			*to = i
		}
	}
	switch {
	case ahead < 0 || live >= 0 && record.Compare(rows[ahead].Header, rows[live].Header) <= 0:
	case live >= 0 && len(l.own) == 0:
		head := rows[ahead]
		e.Ahead = &head
	default:
		live = ahead
	}
	if live >= 0 {
		e.Live = rows[live]
	}
	if !e.Known() || !e.Live.HasBody() {
		return e // nothing, a tombstone, or what is outside the view
	}
	body, err := record.DecodeAsset(e.Live.Body)
	if err != nil {
		return e // not a member: what can't be read can't match
	}
	e.Body = body
	e.Member = l.filter.Match(asset, body.Metadata())
	return e
}

// Entry returns what the library says of the asset; an Entry that is not Known
// when it says nothing.
func (r *Replica) Entry(ctx context.Context, asset can.Digest) (Entry, error) {
	rows, err := r.rows(ctx, r.opts.Store, asset)
	if err != nil {
		return Entry{}, err
	}
	return r.look().entry(asset, rows), nil
}

// Entries yields what the library says of each asset it knows, in ascending order
// of digests, as of one moment; tombstones and assets outside the filter are
// among them.
func (r *Replica) Entries(ctx context.Context) iter.Seq2[Entry, error] {
	return r.EntriesAfter(ctx, can.Digest{})
}

// EntriesAfter is Entries for the assets behind one; the zero digest is before all.
func (r *Replica) EntriesAfter(ctx context.Context, after can.Digest) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		l := r.look()
		for e, err := range kv.Scan(ctx, r.opts.Store, r.key("a"), false) {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			asset, err := kv.Last32(e.Key)
			var rows []record.Record
			if err == nil {
				if bytes.Compare(asset[:], after[:]) <= 0 {
					continue
				}
				rows, err = decodeRows(e.Value)
			}
			if err != nil {
				if !yield(Entry{}, err) {
					return
				}
				continue
			}
			if !yield(l.entry(asset, rows), nil) {
				return
			}
		}
	}
}

// ErrNoRecord says that no record with the id is stored.
var ErrNoRecord = errors.New("replica: no such record")

// Record returns the stored record with the id, of either set. It returns
// [ErrNoRecord] for an id that is unknown, was replaced, or is known by its header
// alone.
func (r *Replica) Record(ctx context.Context, id record.ID, controlSet bool) (record.Record, error) {
	if controlSet {
		b, err := kv.Get(ctx, r.opts.Store, r.key("k", kv.Bin(id[:])))
		if err == nil && b == nil {
			err = ErrNoRecord
		}
		if err != nil {
			return record.Record{}, err
		}
		return record.Decode(b)
	}
	_, rows, at, err := r.stored(ctx, id)
	if err != nil {
		return record.Record{}, err
	}
	return rows[at], nil
}

// EntryOf returns what the library says of the asset that a record of the asset set
// is about, the live one or an older one. The error is [ErrNoRecord] when the record
// is not stored in full. It reads once what Record and Entry read twice.
func (r *Replica) EntryOf(ctx context.Context, id record.ID) (Entry, error) {
	asset, rows, _, err := r.stored(ctx, id)
	if err != nil {
		return Entry{}, err
	}
	return r.look().entry(asset, rows), nil
}

// stored finds a record of the asset set among all those of its asset.
func (r *Replica) stored(ctx context.Context, id record.ID) (asset can.Digest, rows []record.Record, at int, err error) {
	b, err := kv.Get(ctx, r.opts.Store, r.key("i", kv.Bin(id[:])))
	if err != nil {
		return asset, nil, 0, err
	}
	if len(b) != len(asset) {
		return asset, nil, 0, ErrNoRecord
	}
	asset = can.Digest(b)
	rows, err = r.rows(ctx, r.opts.Store, asset)
	if err != nil {
		return asset, nil, 0, err
	}
	at = slices.IndexFunc(rows, func(rec record.Record) bool { return complete(rec) && rec.ID() == id })
	if at < 0 {
		err = ErrNoRecord
	}
	return asset, rows, at, err
}

// Has reports whether a record is stored, or was seen and deferred.
func (r *Replica) Has(ctx context.Context, id record.ID, controlSet bool) (bool, error) {
	r.mu.Lock()
	if controlSet {
		defer r.mu.Unlock()
		return r.control.Has(id), nil
	}
	clock, deferred := r.deferred[id]
	if deferred && !record.Deferred(record.Header{Clock: clock}, r.opts.Now()) {
		delete(r.deferred, id)
		deferred = false
	}
	r.mu.Unlock()
	if deferred {
		return true, nil
	}
	return r.opts.Store.Has(ctx, r.key("i", kv.Bin(id[:])))
}

// Behind is how far the node's clock is behind the newest record that the library
// holds, where that is further than a record may be ahead; else it is 0. Every
// record was timely by this clock when it was stored, so that the clock was set back
// since.
func (r *Replica) Behind() time.Duration {
	now := r.opts.Now()
	r.mu.Lock()
	clock := r.clock
	r.mu.Unlock()
	if !record.Deferred(record.Header{Clock: clock}, now) {
		return 0
	}
	return clock.Time().Sub(now)
}

// Early counts the asset records that were offered and are deferred now, of which the
// first ten thousand are remembered.
func (r *Replica) Early() int {
	now := r.opts.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.deferred, func(_ record.ID, c record.Clock) bool {
		return !record.Deferred(record.Header{Clock: c}, now)
	})
	return len(r.deferred)
}

// refuseLocked remembers that a record is refused as long as the control set stays as it
// is. It is called with mu held.
func (r *Replica) refuseLocked(id record.ID, err error) {
	if len(r.refused) < maxRefused {
		r.refused[id] = err
	}
}

// Refuses reports whether the record came before and would be refused again, so that it
// need not be asked for.
func (r *Replica) Refuses(id record.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refused[id] != nil
}
