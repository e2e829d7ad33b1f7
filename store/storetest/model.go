package storetest

import (
	"errors"
	"maps"
	"slices"
	"testing"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cansync/cansync/store"
)

// model is what a store is compared with: a map, and up to three transactions
// that each have their view.
type model struct {
	data    map[string]string
	txns    []*modelTxn
	clock   int
	written map[string]int // when a key was written last
}

type modelTxn struct {
	x       ds.Txn
	start   int
	view    map[string]string
	reads   map[string]bool
	writes  map[string]*string // nil: deleted
	queried bool               // may conflict over keys that it did not yield
}

var modelKeys = []string{"/a", "/a/b", "/a/c", "/a0", "/ab", "/b", "/b/\xff", "/b/c/d"}

func testModel(t *testing.T, c Config) {
	dir := t.TempDir()
	s := c.Open(t, dir)
	defer func() { require.NoError(t, s.Close()) }()
	outer, cases, conflicts, commits := t, 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		cases++
		m := &model{data: make(map[string]string), written: make(map[string]int)}
		for _, k := range modelKeys {
			require.NoError(t, s.Delete(ctx, ds.RawKey(k)))
		}
		defer func() {
			for _, x := range m.txns {
				x.x.Discard(ctx)
			}
		}()
		drawKey := rapid.SampledFrom(modelKeys)
		drawValue := rapid.StringN(0, 4, 8)
		put := func(t *rapid.T, k, v string) {
			require.NoError(t, s.Put(ctx, ds.RawKey(k), []byte(v)))
			m.data[k] = v
			m.wrote(k)
		}
		commit := func(t *rapid.T, x *modelTxn) {
			switch m.commit(t, x) {
			case committed:
				commits++
			case conflicted:
				conflicts++
			}
		}
		// Each case has a conflict, whatever is drawn after it.
		x, k := m.begin(t, s), drawKey.Draw(t, "contested")
		x.get(t, k)
		x.put(t, k, "late")
		put(t, k, "first")
		commit(t, x)
		pick := func(t *rapid.T) *modelTxn {
			if len(m.txns) == 0 {
				t.Skip("no transaction")
			}
			return rapid.SampledFrom(m.txns).Draw(t, "txn")
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				put(t, drawKey.Draw(t, "key"), drawValue.Draw(t, "value"))
			},
			"delete": func(t *rapid.T) {
				k := drawKey.Draw(t, "key")
				require.NoError(t, s.Delete(ctx, ds.RawKey(k)))
				delete(m.data, k)
				m.wrote(k)
			},
			"get": func(t *rapid.T) { compareKey(t, s, m.data, drawKey.Draw(t, "key")) },
			"begin": func(t *rapid.T) {
				if len(m.txns) == 3 {
					t.Skip("enough")
				}
				m.begin(t, s)
			},
			"txnGet": func(t *rapid.T) {
				x := pick(t)
				x.get(t, drawKey.Draw(t, "key"))
			},
			"txnPut": func(t *rapid.T) {
				x := pick(t)
				x.put(t, drawKey.Draw(t, "key"), drawValue.Draw(t, "value"))
			},
			"txnDelete": func(t *rapid.T) {
				x, k := pick(t), drawKey.Draw(t, "key")
				require.NoError(t, x.x.Delete(ctx, ds.RawKey(k)))
				delete(x.view, k)
				x.writes[k] = nil
			},
			"txnQuery": func(t *rapid.T) {
				x := pick(t)
				x.queried = true
				for _, k := range compareQuery(t, x.x, x.view) {
					x.read(k)
				}
			},
			"discard": func(t *rapid.T) {
				x := pick(t)
				x.x.Discard(ctx)
				m.drop(x)
			},
			"commit": func(t *rapid.T) { commit(t, pick(t)) },
			"reopen": func(t *rapid.T) {
				if !c.Persistent || len(m.txns) > 0 || rapid.IntRange(0, 9).Draw(t, "dice") > 0 {
					t.Skip("not now")
				}
				require.NoError(t, s.Close())
				s = c.Open(outer, dir)
			},
			"": func(t *rapid.T) { compareQuery(t, s, m.data) },
		})
	})
	require.NotZero(t, commits)
	require.GreaterOrEqual(t, conflicts, cases)
}

// begin starts a transaction.
func (m *model) begin(t *rapid.T, s store.Store) *modelTxn {
	x, err := s.NewTransaction(ctx, false)
	require.NoError(t, err)
	mx := &modelTxn{x: x, start: m.clock, view: maps.Clone(m.data), reads: make(map[string]bool), writes: make(map[string]*string)}
	m.txns = append(m.txns, mx)
	return mx
}

// wrote notes that k was written.
func (m *model) wrote(k string) {
	m.clock++
	m.written[k] = m.clock
}

// outcome is what became of a transaction.
type outcome int

const (
	committed outcome = iota
	conflicted
	doubtful // a conflict that need not have been one
)

// commit ends a transaction and requires the outcome that the model expects.
func (m *model) commit(t *rapid.T, x *modelTxn) outcome {
	err := x.x.Commit(ctx)
	m.drop(x)
	if x.stale(m) && len(x.writes) > 0 {
		require.ErrorIs(t, err, store.ErrConflict)
		return conflicted
	}
	if x.queried && errors.Is(err, store.ErrConflict) {
		return doubtful
	}
	require.NoError(t, err)
	for k, v := range x.writes {
		if v == nil {
			delete(m.data, k)
		} else {
			m.data[k] = *v
		}
		m.wrote(k)
	}
	return committed
}

func (x *modelTxn) get(t *rapid.T, k string) {
	compareKey(t, x.x, x.view, k)
	x.read(k)
}

func (x *modelTxn) put(t *rapid.T, k, v string) {
	require.NoError(t, x.x.Put(ctx, ds.RawKey(k), []byte(v)))
	x.view[k], x.writes[k] = v, &v
}

// read notes that the transaction depends on k.
func (x *modelTxn) read(k string) {
	if _, own := x.writes[k]; !own {
		x.reads[k] = true
	}
}

// stale says whether another wrote what the transaction read.
func (x *modelTxn) stale(m *model) bool {
	for k := range x.reads {
		if m.written[k] > x.start {
			return true
		}
	}
	return false
}

func (m *model) drop(x *modelTxn) {
	m.txns = slices.DeleteFunc(m.txns, func(y *modelTxn) bool { return x == y })
}

func compareKey(t *rapid.T, r ds.Read, want map[string]string, k string) {
	got, err := r.Get(ctx, ds.RawKey(k))
	v, ok := want[k]
	if !ok {
		require.True(t, errors.Is(err, ds.ErrNotFound), "%q: %v", k, err)
		return
	}
	require.NoError(t, err, "%q", k)
	require.Equal(t, v, string(got), "%q", k)
}

// compareQuery runs a query on the store and the map and returns the keys that
// the store yielded.
func compareQuery(t *rapid.T, r ds.Read, data map[string]string) []string {
	prefix := rapid.SampledFrom([]string{"", "/a", "/b", "/b/c", "/none"}).Draw(t, "prefix")
	all := below(slices.Sorted(maps.Keys(data)), prefix)
	order := []query.Order{query.OrderByKey{}}
	if rapid.Bool().Draw(t, "descending") {
		order = []query.Order{query.OrderByKeyDescending{}}
		slices.Reverse(all)
	}
	var filters []query.Filter
	if rapid.Bool().Draw(t, "filtered") {
		f := query.FilterKeyCompare{
			Op:  rapid.SampledFrom([]query.Op{query.GreaterThan, query.GreaterThanOrEqual, query.LessThan}).Draw(t, "op"),
			Key: rapid.OneOf(rapid.SampledFrom(modelKeys), rapid.SampledFrom([]string{"", "/", "/a/", "/aa", "/b0", "/c"})).Draw(t, "than"),
		}
		filters = append(filters, f)
		all = slices.DeleteFunc(slices.Clone(all), func(k string) bool { return !f.Filter(query.Entry{Key: k}) })
	}
	offset, limit := rapid.IntRange(0, 3).Draw(t, "offset"), rapid.IntRange(0, 3).Draw(t, "limit")
	seen := all
	want := all[min(offset, len(all)):]
	if limit > 0 {
		want = want[:min(limit, len(want))]
		seen = seen[:min(offset+limit, len(seen))]
	}
	res, err := r.Query(ctx, query.Query{Prefix: prefix, Filters: filters, Orders: order, Offset: offset, Limit: limit})
	require.NoError(t, err)
	got, err := res.Rest()
	require.NoError(t, err)
	require.NoError(t, res.Close())
	require.Len(t, got, len(want))
	for i, e := range got {
		require.Equal(t, want[i], e.Key)
		require.Equal(t, data[e.Key], string(e.Value))
	}
	return seen
}
