package replica_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-datastore/query"
	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/store/memory"
	"github.com/cansync/cansync/transport"
)

// tripwire calls trip when the records of the assets are scanned.
type tripwire struct {
	store.Store
	armed atomic.Bool
	trip  func()
	fail  error
	hits  int
}

func (s *tripwire) Query(ctx context.Context, q query.Query) (query.Results, error) {
	if s.armed.Load() && strings.HasSuffix(q.Prefix, "/a") {
		s.hits++
		if s.fail != nil {
			return nil, s.fail
		}
		s.trip()
	}
	return s.Store.Query(ctx, q)
}

// A description that came from a peer is in force even if the peer goes while the
// assets are sorted by the new filter.
func TestAFilterTakesHoldThoughItsSenderGoes(t *testing.T) {
	w := newWorld(t)
	s := &tripwire{Store: memory.New()}
	r := w.open(t, s)
	_, err := r.Apply(t.Context(), w.control, transport.PeerID{})
	check(t, err)
	var recs []record.Record
	for i := range 50 {
		recs = append(recs, w.sign(t, 0, record.Announce, digest(i), record.ClockAt(start), "image/png", 10))
	}
	_, err = r.Apply(t.Context(), recs, transport.PeerID{9})
	check(t, err)
	<-r.Ready()
	told := 0
	r.Observe(func(ap replica.Applied) { told += len(ap.Records) })
	d, err := control.NewDescription(record.ClockAt(start)+100, w.keys.ID, w.keys.Cert, control.Description{
		Name: "l", Filter: filter.Filter{MIMEPrefix: "text/"},
	})
	check(t, err)
	rs, err := record.SignWith(w.authors[0].key, []record.Draft{d})
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	s.trip = cancel
	s.armed.Store(true)
	_, err = r.Apply(ctx, rs, transport.PeerID{9})
	check(t, err)
	require.Positive(t, s.hits)
	require.Equal(t, filter.View{{MIMEPrefix: "text/"}}, r.Filter())
	require.Zero(t, r.Counts().Live)
	require.Equal(t, 1, told, "others hear of it")
	check(t, r.Close())
}

// A filter that could not be put in force, as without space, is when there is some.
func TestAFilterThatFailedIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		s := &tripwire{Store: memory.New(), fail: errors.New("no space")}
		r := w.open(t, s)
		_, err := r.Apply(t.Context(), w.control, transport.PeerID{})
		check(t, err)
		rec := w.sign(t, 0, record.Announce, digest(1), record.ClockAt(start), "image/png", 10)
		_, err = r.Apply(t.Context(), []record.Record{rec}, transport.PeerID{9})
		check(t, err)
		<-r.Ready()
		told := 0
		r.Observe(func(replica.Applied) { told++ })
		d, err := control.NewDescription(record.ClockAt(start)+100, w.keys.ID, w.keys.Cert, control.Description{
			Name: "l", Filter: filter.Filter{MIMEPrefix: "text/"},
		})
		check(t, err)
		rs, err := record.SignWith(w.authors[0].key, []record.Draft{d})
		check(t, err)
		s.armed.Store(true)
		_, err = r.Apply(t.Context(), rs, transport.PeerID{9})
		require.ErrorIs(t, err, s.fail)
		require.Equal(t, 1, told, "others hear of it all the same")
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		require.True(t, r.Refiltering())
		require.Greater(t, s.hits, 5)
		require.EqualValues(t, 1, r.Counts().Live)
		s.armed.Store(false)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.False(t, r.Refiltering())
		require.Zero(t, r.Counts().Live)
		require.Equal(t, 2, told, "who decides by the filter looks again")
		check(t, r.Close())
	})
}
