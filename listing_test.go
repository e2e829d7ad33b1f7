package cansync_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/transport/memory"
)

// A loop over a library's assets, and over what waits for approval, may close the
// node: it ends with ErrClosed, wherever it is.
func TestCloseWithinAListing(t *testing.T) {
	const n = 300
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, memory.NewNetwork(memory.Options{}), "a", cantest.Options{})
		fill(m, "one", n)
		l, err := m.node.CreateLibrary(t.Context(), "open", cansync.Filter{})
		require.NoError(t, err)
		gated, err := m.node.CreateLibraryWith(t.Context(), "gated", cansync.Filter{}, cansync.Choices{Publish: cansync.PublishApprove})
		require.NoError(t, err)
		ids := []cansync.LibraryID{l.ID(), gated.ID()}
		count := func(i int, each func(int) bool) (seen int, end error) {
			step := func(err error) bool {
				if err != nil {
					end = err
					return true
				}
				seen++
				return each(seen)
			}
			if i == 0 {
				for _, err := range m.lib(ids[0]).Assets(t.Context()) {
					if !step(err) {
						break
					}
				}
				return seen, end
			}
			for _, err := range m.lib(ids[1]).Pending(t.Context()) {
				if !step(err) {
					break
				}
			}
			return seen, end
		}
		all := func(int) bool { return true }
		for i := range ids {
			eventually(t, "all are there", func() bool { seen, err := count(i, all); return err == nil && seen == n })
			for _, at := range []int{1, 2, 3, 64, 200, n} {
				node := m.node
				seen, err := count(i, func(k int) bool {
					if k == at {
						require.NoError(t, node.Close())
					}
					return true
				})
				require.Equal(t, at, seen, "nothing comes after the node was closed")
				if at < n {
					require.ErrorIs(t, err, cansync.ErrClosed)
				}
				m.node = nil
				m.start()
			}
			for _, at := range []int{1, 2, 100} { // leaving it early leaves nothing behind
				seen, err := count(i, func(k int) bool { return k < at })
				require.NoError(t, err)
				require.Equal(t, at, seen)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		seen := 0
		var end error
		for _, err := range m.lib(ids[0]).Assets(ctx) {
			if end = err; err == nil {
				if seen++; seen == 5 {
					cancel()
				}
			}
		}
		require.ErrorIs(t, end, context.Canceled)
		m.close()
	})
}

// Pages by AssetsAfter are what Assets yields.
func TestAssetsAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, memory.NewNetwork(memory.Options{}), "a", cantest.Options{})
		fill(m, "one", 100)
		l, err := m.node.CreateLibrary(t.Context(), "open", cansync.Filter{})
		require.NoError(t, err)
		var all []cansync.Asset
		eventually(t, "all are there", func() bool {
			all = nil
			for a, err := range l.Assets(t.Context()) {
				require.NoError(t, err)
				all = append(all, a)
			}
			return len(all) == 100
		})
		for _, at := range []int{0, 1, 50, 98, 99} {
			var rest []cansync.Asset
			for a, err := range l.AssetsAfter(t.Context(), all[at].Digest) {
				require.NoError(t, err)
				rest = append(rest, a)
			}
			require.True(t, slices.EqualFunc(all[at+1:], rest, func(a, b cansync.Asset) bool { return a.Digest == b.Digest }))
		}
		m.close()
	})
}

// A reader whose last number is from another life of the node is told that it
// missed something and hears what happens from then on.
func TestEventsAfterANumberThatWasNeverGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, memory.NewNetwork(memory.Options{}), "a", cantest.Options{})
		l, err := m.node.CreateLibrary(t.Context(), "open", cansync.Filter{})
		require.NoError(t, err)
		fill(m, "one", 3)
		eventually(t, "announced", func() bool { s, err := l.Status(t.Context()); return err == nil && s.Assets == 3 })
		time.Sleep(time.Minute)
		last := m.node.LastEvent()
		require.Positive(t, last)
		var got []cansync.Event
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for e := range m.node.EventsAfter(ctx, last+1_000_000) {
			if got = append(got, e); len(got) == 1 {
				fill(m, "two", 1)
				m.node.Poll()
			}
			if e.Kind == cansync.EventAnnounced {
				cancel()
			}
		}
		require.Equal(t, cansync.EventMissed, got[0].Kind)
		require.EqualValues(t, last, got[0].Size)
		require.Equal(t, last, got[0].Seq)
		end := got[len(got)-1]
		require.Equal(t, digestOf([]byte("two 0")), end.Asset)
		require.Equal(t, last+uint64(len(got))-1, end.Seq, "and nothing before")
		m.close()
	})
}
