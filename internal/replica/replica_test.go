package replica_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/keyring"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/tier"
	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/store/memory"
	"github.com/cansync/cansync/transport"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// author is a member that signs records.
type author struct {
	key  capability.SigningKey
	cert capability.CertID
}

// world is a library with its keys, its control records and a few authors.
type world struct {
	keys    keyring.Library
	control []record.Record
	authors []author
	rights  []capability.Rights
}

func check(t require.TestingT, err error) {
	require.NoError(t, err)
}

func newWorld(t testing.TB, rights ...capability.Rights) *world {
	ctx := context.Background()
	dev, err := capability.NewDevice(rand.Reader)
	check(t, err)
	keys, err := library.Create("l", dev, rand.Reader)
	check(t, err)
	now := func() time.Time { return start }
	lib, err := library.Open(ctx, library.Options{
		Keys: keys, Device: dev, Rand: rand.Reader,
		Replica: replica.Options{Store: memory.New(), Verifier: record.NewVerifier(0), Now: now, Rand: rand.Reader},
	})
	check(t, err)
	defer func() { check(t, lib.Close()) }()
	check(t, lib.Describe(ctx, control.Description{Name: "l", Filter: filter.Filter{MIMEPrefix: "image/"}}))
	w := &world{keys: keys, authors: []author{{dev.Author(keys.ID), keys.Cert}}, rights: []capability.Rights{capability.AllRights}}
	for _, r := range rights {
		tk, err := lib.Invite(ctx, capability.InviteOptions{Rights: r, RedeemBy: start.Add(time.Hour)}, nil)
		check(t, err)
		d, err := capability.NewDevice(rand.Reader)
		check(t, err)
		q, err := capability.NewJoinRequest(tk, d, [32]byte{1})
		check(t, err)
		reply := lib.Session(nil).Admit(ctx, q, d.PeerID(), [32]byte{1})
		g, _, err := reply.Open(q, d)
		check(t, err)
		w.authors = append(w.authors, author{d.Author(keys.ID), g.ID})
		w.rights = append(w.rights, g.Rights)
	}
	for r, err := range lib.RecordsFrom(ctx, true, nil, can.Digest{}) {
		check(t, err)
		w.control = append(w.control, r)
	}
	return w
}

func (w *world) open(t require.TestingT, s store.Store) *replica.Replica {
	return w.openView(t, s, filter.Filter{})
}

func (w *world) openView(t require.TestingT, s store.Store, own filter.Filter) *replica.Replica {
	r, err := replica.Open(context.Background(), replica.Options{
		Library: w.keys.ID, Store: s, Verifier: record.NewVerifier(0), ReconcileKey: w.keys.Lasting.ReconcileKey(),
		Now: func() time.Time { return start }, Rand: rand.Reader, View: own,
	})
	check(t, err)
	return r
}

func (w *world) sign(t require.TestingT, who int, kind record.Kind, asset can.Digest, clock record.Clock, mime string, size uint64) record.Record {
	d := record.Removal(clock, w.keys.ID, asset, w.authors[who].cert)
	if kind != record.Tombstone {
		var err error
		d, err = record.Asset(kind, clock, w.keys.ID, asset, w.authors[who].cert, record.AssetBody{Size: size, Root: [32]byte{1}, MIMEType: mime})
		check(t, err)
	}
	rs, err := record.SignWith(w.authors[who].key, []record.Draft{d})
	check(t, err)
	return rs[0]
}

func digest(i int) can.Digest { return sha256.Sum256([]byte{byte(i)}) }

// model is what a library is by the rules, the slow and obvious way.
type model map[can.Digest]map[[32]byte]record.Record

func (m model) add(r record.Record) {
	d := can.Digest(r.Subject)
	if m[d] == nil {
		m[d] = make(map[[32]byte]record.Record)
	}
	if old, ok := m[d][r.Author]; !ok || record.Newer(r.Header, old.Header) {
		m[d][r.Author] = r
	}
}

func (m model) live(d can.Digest) (best record.Record) {
	for _, r := range m[d] {
		if best.Kind == 0 || record.Newer(r.Header, best.Header) {
			best = r
		}
	}
	return best
}

func (m model) counts(v filter.View) (c replica.Counts) {
	for d, byAuthor := range m {
		c.Records += int64(len(byAuthor))
		live := m.live(d)
		if live.Kind == record.Tombstone {
			c.Tombstones++
			continue
		}
		b, _ := record.DecodeAsset(live.Body)
		if v.Match(d, b.Metadata()) {
			c.Live++
			c.LiveBytes += int64(b.Size)
		}
	}
	return c
}

func (m model) ids() []record.ID {
	var ids []record.ID
	for _, byAuthor := range m {
		for r := range maps.Values(byAuthor) {
			ids = append(ids, r.ID())
		}
	}
	slices.SortFunc(ids, record.ID.Compare)
	return ids
}

func agree(t require.TestingT, m model, v filter.View, r *replica.Replica) {
	ctx := context.Background()
	c := r.Counts()
	c.Queued = 0
	require.Equal(t, m.counts(v), c)
	var ids []record.ID
	for id, err := range r.IDs(ctx, false, nil) {
		check(t, err)
		ids = append(ids, id)
	}
	require.Equal(t, m.ids(), ids)
	snap, err := r.Snapshot(ctx, false, nil)
	check(t, err)
	require.Equal(t, len(ids), snap.Len())
	seen := 0
	for e, err := range r.Entries(ctx) {
		check(t, err)
		seen++
		require.Equal(t, m.live(e.Asset).ID(), e.ID())
		one, err := r.Entry(ctx, e.Asset)
		check(t, err)
		require.Equal(t, e, one)
		got, err := r.Record(ctx, e.ID(), false)
		check(t, err)
		require.Equal(t, e.Live, got)
		of, err := r.EntryOf(ctx, e.ID())
		check(t, err)
		require.Equal(t, e, of)
	}
	_, err = r.EntryOf(ctx, record.ID{1})
	require.ErrorIs(t, err, replica.ErrNoRecord)
	require.Equal(t, len(m), seen)
	var queued int64
	for w, err := range r.Queue(ctx) {
		check(t, err)
		queued++
		e, err := r.Entry(ctx, w.Asset)
		check(t, err)
		require.True(t, e.Known())
	}
	require.Equal(t, queued, r.Counts().Queued)
}

// Whatever the order, the batches, the restarts, and the filters and views on the
// way, a replica ends as the rules say (S-12).
func TestStateIsAFunctionOfTheRecords(t *testing.T) {
	w := newWorld(t, capability.Read|capability.Write, capability.Read|capability.Write)
	v := record.NewVerifier(0)
	tier.Check(t, 500, 20_000, func(t *rapid.T) {
		ctx := context.Background()
		m := truth{model: model{}, filter: filter.Filter{MIMEPrefix: "image/"}}
		for _, r := range w.control {
			if r.Kind == record.Description {
				m.describe(r, m.filter)
			}
		}
		clock := func() record.Clock {
			return record.ClockAt(start) + record.Clock(rapid.IntRange(-3, 3).Draw(t, "clock"))
		}
		var recs []record.Record
		for range rapid.IntRange(1, 40).Draw(t, "records") {
			if rapid.IntRange(0, 7).Draw(t, "description") == 0 {
				f := rapid.SampledFrom(filters).Draw(t, "filter")
				d, err := control.NewDescription(clock()+10, w.keys.ID, w.keys.Cert, control.Description{Name: "l", Filter: f})
				check(t, err)
				rs, err := record.SignWith(w.authors[0].key, []record.Draft{d})
				check(t, err)
				m.describe(rs[0], f)
				recs = append(recs, rs[0])
				continue
			}
			kind := rapid.SampledFrom([]record.Kind{record.Announce, record.Edit, record.Tombstone}).Draw(t, "kind")
			r := w.sign(t, rapid.IntRange(0, 2).Draw(t, "author"), kind, digest(rapid.IntRange(0, 4).Draw(t, "asset")), clock(),
				rapid.SampledFrom([]string{"image/png", "text/plain"}).Draw(t, "mime"), uint64(rapid.IntRange(0, 9).Draw(t, "size")))
			recs = append(recs, r)
			m.add(r)
		}
		p := &member{w: w, store: memory.New(), check: v, now: func() time.Time { return start }}
		p.open(t)
		_, err := p.r.Apply(ctx, w.control, transport.PeerID{})
		check(t, err)
		for _, order := range [][]record.Record{rapid.Permutation(recs).Draw(t, "order"), recs} {
			for len(order) > 0 {
				k := rapid.IntRange(1, len(order)).Draw(t, "batch")
				res, err := p.r.Apply(ctx, order[:k], transport.PeerID{9})
				check(t, err)
				require.Empty(t, res.Refused)
				order = order[k:]
				switch rapid.IntRange(0, 7).Draw(t, "event") {
				case 0, 1:
					check(t, p.r.Close())
					p.open(t)
				case 2:
					p.own = rapid.SampledFrom(filters).Draw(t, "view")
					check(t, p.r.SetOwnView(ctx, p.own))
				}
			}
		}
		whole := filter.View{m.filter, p.own}
		agree(t, m.model, whole, p.r)
		within(t, m.model, p.r)
		check(t, p.r.Close())
		p.open(t)
		agree(t, m.model, whole, p.r)
		check(t, p.r.Close())
	})
}

// within checks what lies in each narrower view: all that was said of the assets
// whose live records match.
func within(t require.TestingT, m model, r *replica.Replica) {
	ctx := context.Background()
	for _, f := range filters[1:] {
		v := filter.View{f}
		var want []record.ID
		for d, byAuthor := range m {
			live := m.live(d)
			if live.Kind == record.Tombstone {
				continue
			}
			b, err := record.DecodeAsset(live.Body)
			check(t, err)
			if v.Match(d, b.Metadata()) {
				for _, rec := range byAuthor {
					want = append(want, rec.ID())
				}
			}
		}
		slices.SortFunc(want, record.ID.Compare)
		var ids []record.ID
		for id, err := range r.IDs(ctx, false, v) {
			check(t, err)
			ids = append(ids, id)
		}
		require.Equal(t, want, ids)
		snap, err := r.Snapshot(ctx, false, v)
		check(t, err)
		require.Equal(t, len(want), snap.Len())
	}
}

func TestRecordsWithoutTheRightAreNotStored(t *testing.T) {
	w := newWorld(t, capability.Read)
	r := w.open(t, memory.New())
	ctx := context.Background()
	rec := w.sign(t, 1, record.Announce, digest(1), record.ClockAt(start), "image/png", 1)

	res, err := r.Apply(ctx, []record.Record{rec}, transport.PeerID{9})
	check(t, err)
	require.ErrorIs(t, res.Refused[0].Err, control.ErrUnknownCert)

	_, err = r.Apply(ctx, w.control, transport.PeerID{9})
	check(t, err)
	own := w.sign(t, 0, record.Announce, digest(2), record.ClockAt(start), "image/png", 1)
	forged := own
	forged.Body = bytes.Clone(own.Body)
	forged.Body[len(forged.Body)-1] ^= 1
	future := w.sign(t, 0, record.Announce, digest(3), record.ClockAt(start.Add(11*time.Minute)), "image/png", 1)
	res, err = r.Apply(ctx, []record.Record{rec, forged, future, own}, transport.PeerID{9})
	check(t, err)
	require.Equal(t, 1, res.New)
	why := map[record.ID]error{}
	for _, ref := range res.Refused {
		why[ref.ID] = errors.Join(why[ref.ID], ref.Err)
	}
	require.ErrorIs(t, why[rec.ID()], control.ErrForbidden)
	require.ErrorIs(t, why[forged.ID()], record.ErrInvalid)
	require.ErrorIs(t, why[future.ID()], replica.ErrDeferred)
	require.EqualValues(t, 1, r.Counts().Live)
	check(t, r.Close())
}

func TestAFilterMovesAssetsInAndOut(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t)
	s := memory.New()
	r := w.open(t, s)
	_, err := r.Apply(ctx, w.control, transport.PeerID{})
	check(t, err)
	var recs []record.Record
	for i := range 50 {
		recs = append(recs, w.sign(t, 0, record.Announce, digest(i), record.ClockAt(start), []string{"image/png", "text/plain"}[i%2], 10))
	}
	_, err = r.Apply(ctx, recs, transport.PeerID{9})
	check(t, err)
	require.EqualValues(t, 25, r.Counts().Live)
	describe := func(f filter.Filter, clock record.Clock) {
		d, err := control.NewDescription(clock, w.keys.ID, w.keys.Cert, control.Description{Name: "l", Filter: f})
		check(t, err)
		rs, err := record.SignWith(w.authors[0].key, []record.Draft{d})
		check(t, err)
		_, err = r.Apply(ctx, rs, transport.PeerID{})
		check(t, err)
	}
	describe(filter.Filter{}, record.ClockAt(start)+100)
	require.EqualValues(t, 50, r.Counts().Live)
	require.EqualValues(t, 50, r.Counts().Queued)
	describe(filter.Filter{MIMEPrefix: "text/"}, record.ClockAt(start)+200)
	require.EqualValues(t, 25, r.Counts().Live)
	require.EqualValues(t, 250, r.Counts().LiveBytes)
	describe(filter.Filter{}, record.ClockAt(start)+150) // older: changes nothing
	require.EqualValues(t, 25, r.Counts().Live)
	before := r.Counts()
	check(t, r.Close())
	r = w.open(t, s)
	require.Equal(t, before, r.Counts())
	check(t, r.Close())
}

func TestSettleKeepsWhatChangedMeanwhile(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t)
	r := w.open(t, memory.New())
	_, err := r.Apply(ctx, w.control, transport.PeerID{})
	check(t, err)
	first := w.sign(t, 0, record.Announce, digest(1), record.ClockAt(start), "image/png", 1)
	_, err = r.Apply(ctx, []record.Record{first}, transport.PeerID{9})
	check(t, err)
	second := w.sign(t, 0, record.Edit, digest(1), record.ClockAt(start)+1, "image/png", 1)
	_, err = r.Apply(ctx, []record.Record{second}, transport.PeerID{9})
	check(t, err)
	n, err := r.Settle(ctx, []replica.Settled{{Asset: digest(1), Local: replica.Local{Applied: first.ID(), State: replica.Have}}})
	check(t, err)
	require.Zero(t, n)
	require.EqualValues(t, 1, r.Counts().Queued)
	n, err = r.Settle(ctx, []replica.Settled{{Asset: digest(1), Local: replica.Local{Applied: second.ID(), State: replica.Have}}})
	check(t, err)
	require.Equal(t, 1, n)
	require.Zero(t, r.Counts().Queued)
	l, err := r.Local(ctx, digest(1))
	check(t, err)
	require.Equal(t, replica.Local{Applied: second.ID(), State: replica.Have}, l)
	check(t, r.Close())
}

func BenchmarkApply(b *testing.B) {
	ctx := context.Background()
	w := newWorld(b)
	var recs []record.Record
	for i := 0; i < 1<<14; i += record.MaxBatch {
		var drafts []record.Draft
		for j := range record.MaxBatch {
			d, err := record.Asset(record.Announce, record.ClockAt(start), w.keys.ID, sha256.Sum256(fmt.Append(nil, i+j)), w.keys.Cert,
				record.AssetBody{Size: 1, Root: [32]byte{1}, MIMEType: "image/png", Filename: "a file name.png"})
			check(b, err)
			drafts = append(drafts, d)
		}
		rs, err := record.SignWith(w.authors[0].key, drafts)
		check(b, err)
		recs = append(recs, rs...)
	}
	b.ResetTimer()
	for b.Loop() {
		r := w.open(b, memory.New())
		_, err := r.Apply(ctx, w.control, transport.PeerID{})
		check(b, err)
		_, err = r.Apply(ctx, recs, transport.PeerID{9})
		check(b, err)
		check(b, r.Close())
	}
	b.ReportMetric(float64(len(recs)*b.N)/b.Elapsed().Seconds(), "records/s")
}
