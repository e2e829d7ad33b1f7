package cansync

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/kv"
	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/store/memory"
	"github.com/cansync/cansync/store/storetest"
)

// journal is a hub that keeps events in a store.
type journal struct {
	*hub
	t    *testing.T
	s    *memory.Store
	done chan struct{}
}

func openJournal(t *testing.T, s *memory.Store) journal {
	j := journal{newHub(time.Now), t, s, make(chan struct{})}
	require.NoError(t, j.load(context.Background(), s))
	go func() { defer close(j.done); j.run(j.s, func(err error) { t.Error(err) }) }()
	return j
}

func (j journal) stop() { j.close(); <-j.done }

// crash returns what is left of the hub when its process dies now.
func (j journal) crash() *hub {
	h := newHub(time.Now)
	require.NoError(j.t, h.load(context.Background(), j.s))
	return h
}

// A reader's cursor holds over restarts also when the node was idle before it
// stopped, and over crashes for what was written.
func TestEventCursorOverRestartsAndCrashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New()
		j := openJournal(t, s)
		for range 3 {
			j.emit(Event{Kind: EventJoined})
		}
		time.Sleep(5 * eventFlush) // written, and nothing since
		j.stop()
		j = openJournal(t, s)
		require.Equal(t, []uint64{2, 3}, seqs(j.hub, 1))
		j.emit(Event{Kind: EventJoined})
		j.stop()
		j = openJournal(t, s)
		require.Equal(t, []uint64{4}, seqs(j.hub, 3), "no number is skipped by a clean restart")
		j.stop()

		// Crash after crash, no more chunks are kept than the events need.
		for range 100 {
			h := newHub(time.Now)
			require.NoError(t, h.load(context.Background(), s))
			for range eventChunk {
				h.emit(Event{Kind: EventJoined})
			}
			require.NoError(t, h.flush(context.Background(), s, eventReserve))
		}
		n := 0
		for _, err := range kv.Scan(t.Context(), s, kv.Key("n", "e"), true) {
			require.NoError(t, err)
			n++
		}
		require.LessOrEqual(t, n, 4*keptEvents/eventChunk)
	})
}

// A crash loses what was not written, and only then skips numbers. None is given
// twice to a reader, whenever the process dies.
func TestACrashSkipsNumbersOnlyWhereEventsMayBeLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(time.Now) // nobody writes
		h.emit(Event{Kind: EventJoined})
		require.Empty(t, seqs(h, 0), "what is not written is not seen")
		require.Zero(t, h.shown)

		j := openJournal(t, memory.New())
		j.emit(Event{Kind: EventJoined}) // alone
		synctest.Wait()
		require.Equal(t, []uint64{1}, seqs(j.hub, 0))
		require.Equal(t, []uint64{1}, seqs(j.crash(), 0))
		require.EqualValues(t, 1, j.crash().seq, "nothing was lost")

		for range 3 { // more in a row: seen at once, written later
			j.emit(Event{Kind: EventJoined})
			synctest.Wait()
		}
		require.Equal(t, []uint64{2, 3, 4}, seqs(j.hub, 1))
		lost := j.crash()
		require.Equal(t, []uint64{2}, seqs(lost, 1))
		require.Greater(t, lost.seq, uint64(4), "no number comes again")

		time.Sleep(5 * eventFlush) // at rest again
		require.Equal(t, []uint64{2, 3, 4}, seqs(j.crash(), 1))
		require.EqualValues(t, 4, j.crash().seq, "nothing was lost")

		for i := range 5 * eventReserve { // beyond the reserve they wait to be written
			j.emit(Event{Kind: EventJoined})
			if i%500 == 0 {
				j.mu.Lock()
				shown := j.shown
				j.mu.Unlock()
				require.GreaterOrEqual(t, j.crash().seq, shown)
				synctest.Wait()
			}
		}
		synctest.Wait()
		require.Len(t, seqs(j.hub, 4), min(5*eventReserve, keptEvents))
		j.stop()
	})
}

// A store that refuses to write keeps no reader from hearing.
func TestEventsAreHeardWhileTheStoreRefusesThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.NewFaulty(memory.New())
		h := newHub(time.Now)
		require.NoError(t, h.load(context.Background(), s))
		failed := 0
		done := make(chan struct{})
		s.SetNoSpace(true)
		go func() { defer close(done); h.run(s, func(error) { failed++ }) }()
		for i := range uint64(3) {
			h.emit(Event{Kind: EventJoined})
			time.Sleep(3 * eventFlush)
			require.Len(t, seqs(h, i), 1)
		}
		s.SetNoSpace(false)
		time.Sleep(3 * eventFlush)
		crashed := newHub(time.Now)
		require.NoError(t, crashed.load(context.Background(), s))
		require.Equal(t, []uint64{1, 2, 3}, seqs(crashed, 0))
		h.close()
		<-done
		require.Positive(t, failed)
	})
}

// emitting is a store in which an event comes while another is written.
type emitting struct {
	store.Store
	h *hub
}

func (e emitting) NewTransaction(ctx context.Context, ro bool) (ds.Txn, error) {
	e.h.emit(Event{Kind: EventJoined})
	return e.Store.NewTransaction(ctx, ro)
}

// No number is seen that could be given again after a crash.
func TestAnEventWhileNumbersAreGivenBack(t *testing.T) {
	ctx := t.Context()
	s := memory.New()
	h := newHub(time.Now)
	require.NoError(t, h.load(ctx, s))
	h.emit(Event{Kind: EventJoined})
	require.NoError(t, h.flush(ctx, s, eventReserve))
	require.NoError(t, h.flush(ctx, emitting{s, h}, 0))
	evs, _, _ := h.after(1)
	require.Empty(t, evs)
	require.NoError(t, h.flush(ctx, s, 0))
	evs, _, _ = h.after(1)
	require.Len(t, evs, 1)
	crashed := newHub(time.Now)
	require.NoError(t, crashed.load(ctx, s))
	crashed.emit(Event{Kind: EventPeerLied})
	require.Greater(t, crashed.seq, evs[0].Seq)
}
