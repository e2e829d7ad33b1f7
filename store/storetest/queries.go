package storetest

import (
	"context"
	"fmt"
	"slices"
	"testing"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/store"
)

// tricky are keys around which prefixes go wrong, in byte order.
var tricky = []string{
	"/", "/!", "/a", "/a!", "/a-b", "/a/", "/a/!", "/a/a", "/a/a/b", "/a/a0", "/a/b", "/a/\x00", "/a/\xff", "/a/\xff\xff\xff",
	"/a//b", "/a0", "/a:b", "/a\x00", "/a\xff", "/ab", "/ab/c", "/b", "/b/\u00e4", "/\xff", "/\xff\xff/x",
}

func fill(t testing.TB, s store.Store) []string {
	var all []string
	for _, k := range tricky {
		if k != "/" && k[len(k)-1] == '/' {
			continue // not a key of go-datastore
		}
		put(t, s, k, "value of "+k)
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

// below is what a query with the prefix must yield.
func below(all []string, prefix string) []string {
	p := ds.NewKey(prefix).String()
	out := []string{}
	for _, k := range all {
		if p == "/" || (len(k) > len(p)+1 && k[:len(p)+1] == p+"/") {
			out = append(out, k)
		}
	}
	return out
}

func testPrefix(t *testing.T, c Config) {
	s := open(t, c)
	all := fill(t, s)
	found := 0
	for _, p := range append([]string{"", "a", "/a/", "a/b/..", "/none", "/a/none", "/zzz"}, tricky...) {
		want := below(all, p)
		found += len(want)
		up := keys(t, s, query.Query{Prefix: p, Orders: []query.Order{query.OrderByKey{}}})
		require.Equal(t, want, up, "%q", p)
		down := keys(t, s, query.Query{Prefix: p, KeysOnly: true, Orders: []query.Order{query.OrderByKeyDescending{}}})
		slices.Reverse(down)
		require.Equal(t, want, down, "%q, descending", p)
		require.ElementsMatch(t, want, keys(t, s, query.Query{Prefix: p}), "%q, in any order", p)
	}
	require.Greater(t, found, 50)
}

func testOrder(t *testing.T, c Config) {
	s := open(t, c)
	all := fill(t, s)
	byValue := keys(t, s, query.Query{Orders: []query.Order{query.OrderByValue{}}})
	require.Equal(t, all, byValue, "values are ordered like the keys here")
	down := keys(t, s, query.Query{KeysOnly: true, Limit: 3, Offset: 1, Orders: []query.Order{query.OrderByValueDescending{}}})
	slices.Reverse(all)
	require.Equal(t, all[1:4], down)
	long := keys(t, s, query.Query{Orders: []query.Order{
		query.OrderByFunction(func(a, b query.Entry) int { return len(a.Key) - len(b.Key) }), &query.OrderByKey{},
	}})
	slices.SortFunc(all, func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return slices.Compare([]byte(a), []byte(b))
	})
	require.Equal(t, all, long)
}

func testQueryOptions(t *testing.T, c Config) {
	s := open(t, c)
	var all []string
	for i := range 50 {
		k := fmt.Sprintf("/q/%02d", i)
		put(t, s, k, fmt.Sprint(i%2))
		all = append(all, k)
	}
	odd := query.FilterValueCompare{Op: query.Equal, Value: []byte("1")}
	asc := []query.Order{query.OrderByKey{}}
	require.Equal(t, all[10:15], keys(t, s, query.Query{Prefix: "/q", Offset: 10, Limit: 5, Orders: asc}))
	require.Equal(t, all[48:], keys(t, s, query.Query{Prefix: "/q", Offset: 48, Limit: 5, Orders: asc}))
	require.Empty(t, keys(t, s, query.Query{Prefix: "/q", Offset: 99, Orders: asc}))
	for _, keysOnly := range []bool{false, true} {
		got := keys(t, s, query.Query{Prefix: "/q", Filters: []query.Filter{odd}, Offset: 2, Limit: 2, Orders: asc, KeysOnly: keysOnly})
		require.Equal(t, []string{"/q/05", "/q/07"}, got, "offset and limit count what passed the filter")
	}
	from := query.FilterKeyCompare{Op: query.GreaterThanOrEqual, Key: "/q/40"}
	require.Equal(t, all[40:], keys(t, s, query.Query{Prefix: "/q", Filters: []query.Filter{from}, Orders: asc, KeysOnly: true}))
	res, err := s.Query(ctx, query.Query{Prefix: "/q", Limit: 1, Orders: asc})
	require.NoError(t, err)
	e, ok := res.NextSync()
	require.True(t, ok)
	require.NoError(t, e.Error)
	require.Equal(t, query.Entry{Key: "/q/00", Value: []byte("0"), Size: 1}, e.Entry)
	_, ok = res.NextSync()
	require.False(t, ok)
	require.NoError(t, res.Close())
	require.NoError(t, res.Close())
}

// testQuerySnapshot checks that results show the store as of the Query.
func testQuerySnapshot(t *testing.T, c Config) {
	s := open(t, c)
	const n = 3000
	b, err := s.Batch(ctx)
	require.NoError(t, err)
	for i := range n {
		put(t, b, fmt.Sprintf("/s/%05d", i), "old")
	}
	require.NoError(t, b.Commit(ctx))
	for _, o := range []query.Order{query.OrderByKey{}, query.OrderByKeyDescending{}} {
		res, err := s.Query(ctx, query.Query{Prefix: "/s", Orders: []query.Order{o}})
		require.NoError(t, err)
		put(t, s, "/s/00000", "new")
		put(t, s, "/s/99999", "new")
		require.NoError(t, s.Delete(ctx, key("/s/02999")))
		all, err := res.Rest()
		require.NoError(t, err)
		require.NoError(t, res.Close())
		require.Len(t, all, n)
		for _, e := range all {
			require.Equal(t, "old", string(e.Value), e.Key)
		}
		put(t, s, "/s/00000", "old")
		put(t, s, "/s/02999", "old")
		require.NoError(t, s.Delete(ctx, key("/s/99999")))
	}
}

func testQueryInTxn(t *testing.T, c Config) {
	s := open(t, c)
	for _, k := range []string{"/q/a", "/q/b", "/q/c", "/r"} {
		put(t, s, k, "stored")
	}
	x := begin(t, s, false)
	put(t, x, "/q/aa", "own")
	require.NoError(t, x.Delete(ctx, key("/q/b")))
	put(t, s, "/q/late", "other's")
	up := query.Query{Prefix: "/q", Orders: []query.Order{query.OrderByKey{}}}
	require.Equal(t, []string{"/q/a", "/q/aa", "/q/c"}, keys(t, x, up))
	down := query.Query{Prefix: "/q", Orders: []query.Order{query.OrderByKeyDescending{}}}
	require.Equal(t, []string{"/q/c", "/q/aa", "/q/a"}, keys(t, x, down))

	// Two queries at a time, with writes in between, one read by its channel.
	one, err := x.Query(ctx, up)
	require.NoError(t, err)
	two, err := x.Query(ctx, down)
	require.NoError(t, err)
	n := 0
	for r := range one.Next() {
		require.NoError(t, r.Error)
		put(t, x, "/w"+r.Key, "w")
		e, ok := two.NextSync()
		require.True(t, ok)
		require.NoError(t, e.Error)
		n++
	}
	require.Equal(t, 3, n)
	require.NoError(t, one.Close())
	require.NoError(t, two.Close())

	left, err := x.Query(ctx, up)
	require.NoError(t, err)
	require.NoError(t, x.Commit(ctx), "open results do not keep a transaction from ending")
	_, err = left.Rest()
	require.ErrorIs(t, err, store.ErrDone)
	has(t, s, "/w/q/aa", "w")
	hasNot(t, s, "/q/b")
}

// testLongQuery reads more than a store would fetch at a time, while others
// write.
func testLongQuery(t *testing.T, c Config) {
	s := open(t, c)
	const n = 5000
	b, err := s.Batch(ctx)
	require.NoError(t, err)
	for i := range n {
		put(t, b, fmt.Sprintf("/l/%05d", i), "v")
		put(t, b, fmt.Sprintf("/m/%05d", i), "v")
	}
	require.NoError(t, b.Commit(ctx))
	for _, q := range []query.Query{
		{Prefix: "/l", Orders: []query.Order{query.OrderByKey{}}},
		{Prefix: "/l", Orders: []query.Order{query.OrderByKeyDescending{}}, KeysOnly: true},
	} {
		got := keys(t, s, q)
		require.Len(t, got, n)
		if len(got) > 0 && got[0] != "/l/00000" {
			slices.Reverse(got)
		}
		require.True(t, slices.IsSorted(got))
		require.Len(t, slices.Compact(got), n)
		i := 0
		for e, err := range ds.QueryIter(ctx, s, q) {
			require.NoError(t, err)
			if i++; i == 700 {
				break // results that are left must not harm
			}
			require.NotEmpty(t, e.Key)
		}
	}
}

func testQueryCancelled(t *testing.T, c Config) {
	s := open(t, c)
	fill(t, s)
	some, cancel := context.WithCancel(ctx)
	res, err := s.Query(some, query.Query{})
	require.NoError(t, err)
	_, ok := res.NextSync()
	require.True(t, ok)
	cancel()
	_, err = res.Rest()
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, res.Close())
}
