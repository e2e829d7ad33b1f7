package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"

	ds "github.com/ipfs/go-datastore"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/kv"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/transport"
)

// Reasons for which a record is not stored.
var (
	// ErrClock says that the node's own clock is further behind what the library has
	// seen than a record may be ahead. Publishing works again when the clock does.
	ErrClock = errors.New("clock of this machine is behind the library's newest record; set it right")
	// ErrDeferred says that the record's clock is too far in the future for now.
	ErrDeferred = errors.New("replica: record from the future")
	// ErrLibrary says that the record belongs to another library.
	ErrLibrary = errors.New("replica: record of another library")
)

// maxDeferred bounds the ids of records from the future that are remembered.
const maxDeferred = 10_000

// maxRefused bounds the ids of refused records that are remembered.
const maxRefused = 16384

// txnRecords is how many assets one transaction goes through.
const txnRecords = 512

// A store takes a little over a megabyte in one transaction, and each is synced. So
// one takes records until their bytes, and about as much for each as its keys and
// other rows have, come near that.
const (
	txnBytes  = 1 << 20
	recordOwn = 384
)

// together returns how many of the n records at the front one transaction takes, at
// least one of them.
func together(n int, size func(int) int) int {
	total := 0
	for i := range n {
		if total += size(i) + recordOwn; i > 0 && total > txnBytes {
			return i
		}
	}
	return n
}

// Refused is a record that was not stored, and why.
type Refused struct {
	ID  record.ID
	Err error
}

// Result says what became of the records given to Apply. Records that were known
// or outdated are in neither list.
type Result struct {
	New     int
	Refused []Refused
	// Touched are the assets of which something new was stored, in the order in
	// which it was.
	Touched []Change
}

// ApplyChecked stores what is new and valid among records that were checked, all of
// the asset set or all of the control set, and tells the observers. A bad record does
// not keep the others from being stored. The error is that of the store; what was
// stored before it stays.
func (r *Replica) ApplyChecked(ctx context.Context, c Checked, from transport.PeerID) (Result, error) {
	res := Result{Refused: slices.Clip(c.refused)}
	good := c.good
	if len(good) == 0 {
		return res, nil
	}
	if c.library != r.opts.Library {
		return res, ErrLibrary
	}
	var disk behind
	early, err := r.applyParts(ctx, good, from, &disk, &res)
	if early {
		err = errors.Join(err, r.Durable(ctx))
	}
	return res, errors.Join(err, disk.wait())
}

// applyParts stores records in as many transactions as they need. It reports whether
// what the last one stored is seen, and told of, before it is durable; of the others
// disk sees to that.
func (r *Replica) applyParts(ctx context.Context, good []record.Record, from transport.PeerID, disk *behind, res *Result) (early bool, err error) {
	if err := r.lock(ctx); err != nil {
		return false, err
	}
	defer r.unlock()
	for len(good) > 0 {
		n := together(len(good), func(i int) int { return good[i].Size() })
		control := good[0].Header.Kind.Control()
		for i := range good[:n] {
			if good[i].Header.Kind.Control() != control {
				n = i
				break
			}
		}
		if control {
			err = r.applyControl(ctx, good[:n], from, res)
		} else {
			if early {
				disk.start(func() error { return r.Durable(ctx) })
			}
			_, early, err = r.applyAssets(ctx, good[:n], from, false, res)
		}
		if err != nil {
			return early, err
		}
		good = good[n:]
	}
	return early, nil
}

// Durable returns when all that the replica tells of is on disk. Who is told of
// something by [Replica.Observe] calls it before doing what could not be undone, unless
// something is written to the same store before that.
func (r *Replica) Durable(ctx context.Context) error {
	if err := kv.Sync(ctx, r.opts.Store); err != nil {
		return fmt.Errorf("replica: store records: %w", err)
	}
	return nil
}

// Publish signs the drafts with the author key under the certificate and stores
// them as the node's own: the assets stand in the node's CAN Service as the
// records say, so they are not queued. It returns what was stored.
func (r *Replica) Publish(ctx context.Context, sign Signer, drafts []record.Draft) ([]record.Record, error) {
	if err := r.lock(ctx); err != nil {
		return nil, err
	}
	defer r.unlock()
	var all []record.Record
	for len(drafts) > 0 {
		n := together(len(drafts), func(i int) int { return record.MaxSize - record.MaxBody + len(drafts[i].Body) })
		recs, err := r.publish(ctx, sign, drafts[:n])
		if err != nil {
			return all, err
		}
		all = append(all, recs...)
		drafts = drafts[n:]
	}
	return all, nil
}

// Signer signs up to [record.MaxBatch] drafts; it fills in author and certificate, and
// sees the clock.
type Signer func(drafts []record.Draft) ([]record.Record, error)

func (r *Replica) publish(ctx context.Context, sign Signer, drafts []record.Draft) ([]record.Record, error) {
	now := r.opts.Now()
	r.mu.Lock()
	clock := r.clock
	r.mu.Unlock()
	if record.Deferred(record.Header{Clock: clock}, now) {
		return nil, ErrClock // nobody could tell the record from one of a wrong clock
	}
	stamped := make([]record.Draft, len(drafts))
	for i, d := range drafts {
		clock = clock.Next(now)
		d.Library, d.Clock = r.opts.Library, clock
		stamped[i] = d
	}
	recs := make([]record.Record, 0, len(stamped))
	for batch := range slices.Chunk(stamped, record.MaxBatch) {
		signed, err := sign(batch)
		if err != nil {
			return nil, err
		}
		recs = append(recs, signed...)
	}
	var res Result
	var err error
	if drafts[0].Kind.Control() {
		err = r.applyControl(ctx, recs, transport.PeerID{}, &res)
	} else {
		recs, _, err = r.applyAssets(ctx, recs, transport.PeerID{}, true, &res)
	}
	if err == nil && len(res.Refused) > 0 {
		err = res.Refused[0].Err
	}
	return recs, err
}

// applyAssets runs one transaction. It is called with the writer held. Records of
// others are told of as soon as they are seen, and early says that they may not be
// durable yet; the node's own are durable before anybody hears of them.
func (r *Replica) applyAssets(ctx context.Context, recs []record.Record, from transport.PeerID, own bool, res *Result) (added []record.Record, early bool, err error) {
	now := r.opts.Now()
	r.mu.Lock()
	lens, counts, clock := r.lensLocked(), r.counts, r.clock
	valid := make([]record.Record, 0, len(recs))
	for _, rec := range recs {
		err := r.control.Check(rec.Header)
		if err == nil && record.Deferred(rec.Header, now) {
			err = ErrDeferred
			if len(r.deferred) < maxDeferred {
				r.deferred[rec.ID()] = rec.Header.Clock
			}
		} else if err != nil {
			r.refuseLocked(rec.ID(), err)
		}
		if err != nil {
			res.Refused = append(res.Refused, Refused{rec.ID(), err})
			continue
		}
		valid = append(valid, rec)
	}
	r.mu.Unlock()

	t := &tx{r: r, lens: lens, own: own, now: now.UnixMilli(), room: len(valid)}
	fn := func(txn ds.Txn) error {
		t.reset(txn, counts, clock)
		for _, rec := range valid {
			if err := t.put(ctx, rec); err != nil {
				return err
			}
		}
		if len(t.added) == 0 {
			return nil
		}
		return t.finish(ctx)
	}
	if own {
		err = kv.Update(ctx, r.opts.Store, fn)
	} else {
		early, err = kv.UpdateEarly(ctx, r.opts.Store, fn)
	}
	if errors.Is(err, store.ErrTooLarge) && len(valid) > 1 {
		half := len(valid) / 2
		a, first, err := r.applyAssets(ctx, valid[:half], from, own, res)
		if err != nil {
			return a, first, err
		}
		b, second, err := r.applyAssets(ctx, valid[half:], from, own, res)
		return append(a, b...), first || second, err
	}
	if err != nil {
		return nil, false, fmt.Errorf("replica: store records: %w", err)
	}
	if len(t.added) == 0 {
		return nil, false, nil
	}
	res.New += len(t.added)
	r.mu.Lock()
	r.counts, r.clock = t.counts, t.clock
	if t.owed {
		r.debts++
	}
	for _, id := range t.removed {
		r.assets.Remove(id)
	}
	for _, rec := range t.added {
		if complete(rec) {
			r.assets.Insert(rec.ID())
		}
		if len(r.deferred) > 0 {
			delete(r.deferred, rec.ID())
		}
	}
	for _, vs := range r.views {
		for _, d := range t.order {
			if c := t.changes[d]; c.news {
				vs.change(c)
			}
		}
	}
	r.mu.Unlock()
	ap := Applied{Records: t.added, From: from}
	ap.Touched, ap.Changes = t.touched()
	res.Touched = append(res.Touched, ap.Touched...)
	r.notify(ap)
	return t.added, early, nil
}

// tx is one transaction over asset records. Its results count once it committed.
type tx struct {
	r    *Replica
	txn  ds.Txn
	lens lens
	own  bool // what is stored the node says itself
	now  int64
	room int // how many records may come

	counts  Counts
	clock   record.Clock
	added   []record.Record
	removed []record.ID
	order   []can.Digest
	changes map[can.Digest]*change
	owed    bool // records began to be owed
}

// change is an asset that a transaction touches, before and after.
type change struct {
	had, rows     []record.Record
	before, entry Entry
	news, gain    bool // something was stored, something whole
}

// complete says that nothing of the record is missing. An asset record that came
// without its body, since it left the node's view, is in no set: should the view
// widen, the whole record is among what the node lacks.
func complete(r record.Record) bool { return r.HasBody() || r.Kind == record.Tombstone }

func (t *tx) reset(txn ds.Txn, counts Counts, clock record.Clock) {
	t.txn, t.counts, t.clock = txn, counts, clock
	t.removed, t.owed = nil, false
	t.added, t.order = make([]record.Record, 0, t.room), make([]can.Digest, 0, t.room)
	t.changes = make(map[can.Digest]*change, t.room)
}

// put adds one record to the rows of its asset unless its author already said
// something newer. Of each author the rows have the greatest whole record and, where
// a greater one is known by its header, that header: it takes the place of nothing
// that is whole, or a member that sees more would offer that for ever.
func (t *tx) put(ctx context.Context, rec record.Record) error {
	asset := can.Digest(rec.Header.Subject)
	c := t.changes[asset]
	if c == nil {
		rows, err := t.r.rows(ctx, t.txn, asset)
		if err != nil {
			return err
		}
		c = &change{had: slices.Clone(rows), rows: rows, before: t.lens.entry(asset, rows)}
		t.changes[asset] = c
		t.order = append(t.order, asset)
	}
	full, bare := -1, -1
	for i := range c.rows {
		switch {
		case c.rows[i].Header.Author != rec.Header.Author:
		case complete(c.rows[i]):
			full = i
		default:
			bare = i
		}
	}
	if full >= 0 && record.Compare(rec.Header, c.rows[full].Header) <= 0 {
		return nil
	}
	at := full
	if !complete(rec) {
		if at = bare; bare >= 0 && record.Compare(rec.Header, c.rows[bare].Header) <= 0 {
			return nil
		}
	}
	switch {
	case at < 0:
		c.rows = append(c.rows, rec)
		if complete(rec) {
			t.counts.Records++
		}
	default:
		if err := t.drop(ctx, c.rows[at]); err != nil {
			return err
		}
		c.rows[at] = rec
	}
	c.news = true
	t.added = append(t.added, rec)
	t.clock = max(t.clock, rec.Header.Clock)
	if !complete(rec) {
		return nil
	}
	c.gain = true
	if bare >= 0 && record.Compare(c.rows[bare].Header, rec.Header) <= 0 {
		t.forget(c.rows[bare])
		c.rows = slices.Delete(c.rows, bare, bare+1)
	}
	id := rec.ID()
	return t.txn.Put(ctx, t.r.key("i", kv.Bin(id[:])), asset[:])
}

// drop takes a record out that a newer one of its author replaced.
func (t *tx) drop(ctx context.Context, rec record.Record) error {
	came := t.forget(rec)
	if !complete(rec) {
		return nil
	}
	id := rec.ID()
	if err := t.txn.Delete(ctx, t.r.key("i", kv.Bin(id[:]))); err != nil {
		return err
	}
	if !came {
		t.removed = append(t.removed, id)
	}
	return t.forgive(ctx, rec)
}

// forget takes a record out of what was added, and reports whether it came in this
// very transaction.
func (t *tx) forget(rec record.Record) bool {
	for i := range t.added {
		if t.added[i].Header == rec.Header && complete(t.added[i]) == complete(rec) {
			t.added = append(t.added[:i], t.added[i+1:]...)
			return true
		}
	}
	return false
}

// finish writes the rows of every asset that was touched, counts, and queues.
func (t *tx) finish(ctx context.Context) error {
	for _, asset := range t.order {
		c := t.changes[asset]
		was := c.before
		c.entry = t.lens.entry(asset, c.rows)
		if !c.news {
			continue
		}
		t.counts.replace(was, c.entry)
		if err := t.settleDebt(ctx, c); err != nil {
			return err
		}
		if err := t.txn.Put(ctx, t.r.assetKey("a", asset), encodeRows(c.rows)); err != nil {
			return err
		}
		if c.entry.Live.Header == was.Live.Header && c.entry.Live.HasBody() == was.Live.HasBody() {
			continue
		}
		if t.own {
			if err := t.settle(ctx, asset, was.Known(), c.entry); err != nil {
				return err
			}
			continue
		}
		if !was.Known() && !c.entry.Member {
			continue // a tombstone, or out of the filter, of what we never had
		}
		if err := t.enqueue(ctx, asset, was.Known()); err != nil {
			return err
		}
	}
	return t.txn.Put(ctx, t.r.key("c"), t.counts.encode(t.clock))
}

func (r *Replica) notify(ap Applied) {
	r.mu.Lock()
	obs := r.observers
	r.mu.Unlock()
	for _, fn := range obs {
		fn(ap)
	}
}
