package session

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	dsquery "github.com/ipfs/go-datastore/query"
	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/transport"
)

// scans is a store that counts the scans that are open.
type scans struct {
	store.Store
	open, begun atomic.Int64
}

type scan struct {
	dsquery.Results
	s *scans
}

func (s *scans) Query(ctx context.Context, q dsquery.Query) (dsquery.Results, error) {
	res, err := s.Store.Query(ctx, q)
	if err == nil {
		s.open.Add(1)
		s.begun.Add(1)
		res = &scan{res, s}
	}
	return res, err
}

func (r *scan) Close() error {
	r.s.open.Add(-1)
	return r.Results.Close()
}

// A peer that never answers an offer keeps no scan of the store open, and its link ends;
// one that answers is offered everything, page by page.
func TestAnOfferHoldsNothingWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var st *scans
		k := newKeeperOn(t, func(o *replica.Options) {
			st = &scans{Store: o.Store}
			o.Store, o.View = st, filter.Filter{MIMEPrefix: "image/"}
		})
		<-k.Ready()
		const owed = 2*maxOffer + 10
		drafts := make([]record.Draft, owed)
		for i := range drafts {
			d, err := record.Asset(record.Announce, 0, k.Library(), can.Digest{byte(i), byte(i >> 8), 1}, k.cert,
				record.AssetBody{Size: 1, Root: [32]byte{1}, MIMEType: "text/plain"})
			require.NoError(t, err)
			drafts[i] = d
		}
		_, err := k.Publish(t.Context(), func(ds []record.Draft) ([]record.Record, error) { return record.SignWith(k.key, ds) }, drafts)
		require.NoError(t, err)

		l := k.link(&written{})
		require.NoError(t, l.learnView([]byte{0, 0}))
		begun := st.begun.Load()
		require.NoError(t, l.offer(t.Context()))
		require.Equal(t, begun+1, st.begun.Load(), "the scan is counted")
		require.Zero(t, st.open.Load(), "nothing is open while the peer is silent")
		require.False(t, l.unanswered())
		time.Sleep(roundStall + time.Second)
		require.True(t, l.unanswered())

		// What goes out meanwhile counts, and an answer ends the wait.
		l.handed.Store(time.Now().UnixNano())
		require.False(t, l.unanswered())
		offered := map[record.ID]bool{}
		for {
			require.Zero(t, st.open.Load())
			got := l.answers(t, frameOffer)
			if len(got) == 0 {
				break
			}
			require.Len(t, got, 1)
			seq, ids, err := decodeOffer(got[0])
			require.NoError(t, err)
			bits := make([]bool, len(ids))
			for i, id := range ids {
				require.False(t, offered[id], "once")
				offered[id], bits[i] = true, true
			}
			require.NoError(t, l.learnKept(t.Context(), body(t, encodeBits(frameKept, seq, bits))))
		}
		require.Len(t, offered, owed)
		time.Sleep(2 * roundStall)
		require.False(t, l.unanswered(), "nothing is asked")
		require.NoError(t, l.offer(t.Context()))
		require.Empty(t, l.answers(t, frameOffer), "all was taken")
		require.NoError(t, k.Close())
	})
}

// pipe is a stream over which the test speaks for the peer.
type pipe struct {
	transport.Stream
	net.Conn
}

func (p pipe) Read(b []byte) (int, error)         { return p.Conn.Read(b) }
func (p pipe) Write(b []byte) (int, error)        { return p.Conn.Write(b) }
func (p pipe) Close() error                       { return p.Conn.Close() }
func (p pipe) Reset() error                       { return p.Conn.Close() }
func (p pipe) SetReadDeadline(t time.Time) error  { return p.Conn.SetReadDeadline(t) }
func (p pipe) SetWriteDeadline(t time.Time) error { return p.Conn.SetWriteDeadline(t) }

// The link of a peer that is there and leaves an offer unanswered ends.
func TestASilentPeersLinkEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeper(t)
		<-k.Ready()
		ours, theirs := net.Pipe()
		l := k.link(nil)
		l.stream, l.log, l.now = pipe{Conn: ours}, slog.New(slog.DiscardHandler), time.Now
		var asked time.Time
		l.jitter = func(d time.Duration) time.Duration { // in the goroutine of run
			if l.viewID != (viewDigest{}) && asked.IsZero() {
				asked = time.Now()
				l.handing = handing{busy: true, ids: []record.ID{{1}}, seq: 1, asked: asked}
			}
			return d
		}
		l.grant = capability.Grant{Kind: capability.KindMember, Subject: l.peer}
		l.heard, l.in, l.parting = make(chan struct{}), make(chan inbound, 4), make(chan struct{}, 1)
		l.pace, l.outset = newPace(), newOutset()
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.Copy(io.Discard, theirs) })
		wg.Go(func() {
			for {
				if _, err := theirs.Write(wire.AppendFrame(nil, framePong, nil)); err != nil {
					return
				}
				time.Sleep(pingEvery)
			}
		})
		require.ErrorIs(t, l.run(t.Context()), errUnanswered)
		took := time.Since(asked)
		require.Greater(t, took, roundStall)
		require.LessOrEqual(t, took, roundStall+2*pingEvery)
		require.NoError(t, theirs.Close())
		wg.Wait()
		require.NoError(t, k.Close())
	})
}

// A rest is asked for by who answers rounds, after one of the assets, and once.
func TestARestFollowsARound(t *testing.T) {
	k := newKeeper(t)
	<-k.Ready()
	l := k.link(&written{})
	later := inbound{typ: frameLater, payload: wire.AppendU32(nil, 60)}
	require.NoError(t, l.learnView([]byte{0, 0}))
	ask := func() error { return l.handle(t.Context(), later) }
	require.ErrorIs(t, ask(), errPeer, "it is the opener's to rest")
	l.opener = true
	require.ErrorIs(t, ask(), errPeer, "no round yet")
	require.NoError(t, l.start(t.Context(), true))
	require.ErrorIs(t, ask(), errPeer, "none of the assets")
	require.NoError(t, l.start(t.Context(), false))
	require.NoError(t, ask())
	require.True(t, l.respite.holds())
	require.ErrorIs(t, ask(), errPeer, "once")
	for range 5 {
		require.NoError(t, l.start(t.Context(), false))
	}
	require.NoError(t, ask())
	require.NoError(t, ask(), "that of the round before came late")
	require.ErrorIs(t, ask(), errPeer, "rounds are not saved up")
	require.NoError(t, k.Close())
}
