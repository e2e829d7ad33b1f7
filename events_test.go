package cansync

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/store/memory"
)

func seqs(h *hub, after uint64) (out []uint64) {
	events, _, _ := h.after(after)
	for _, e := range events {
		out = append(out, e.Seq)
	}
	return out
}

func TestEventsSurviveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New()
		open := func() (*hub, func()) {
			h := newHub(time.Now)
			require.NoError(t, h.load(context.Background(), s))
			done := make(chan struct{})
			go func() { defer close(done); h.run(s, func(err error) { t.Error(err) }) }()
			return h, func() { h.close(); <-done }
		}
		h, stop := open()
		for i := range 3 * keptEvents {
			h.emit(Event{Kind: EventFetched, Size: int64(i), Err: errors.New("cause")})
			if i%1000 == 0 {
				time.Sleep(2 * eventFlush)
			}
		}
		stop()
		h, stop = open()
		got, _, _ := h.after(3*keptEvents - 2)
		require.Len(t, got, 2)
		require.Equal(t, EventFetched, got[1].Kind)
		require.EqualValues(t, 3*keptEvents-1, got[1].Size)
		require.EqualError(t, got[1].Err, "cause")
		require.Len(t, seqs(h, 0), keptEvents)
		h.emit(Event{Kind: EventJoined})
		synctest.Wait()
		require.Equal(t, []uint64{3*keptEvents + 1}, seqs(h, 3*keptEvents))
		stop()
	})
}

// Whatever the queue says of an asset has a name for hosts.
func TestStatesAndCausesHaveNames(t *testing.T) {
	seen := make(map[Cause]bool)
	for c := replica.NoCause + 1; c <= replica.Held; c++ {
		require.NotEmpty(t, causes[c], c)
		require.False(t, seen[causes[c]], "two causes have one name")
		seen[causes[c]] = true
	}
	require.Len(t, causes, len(seen))
	for s := replica.Wanted; s <= replica.Gone; s++ {
		require.NotEmpty(t, assetStates[s], s)
	}
}

func FuzzDecodeEvents(f *testing.F) {
	f.Add(Event{Seq: 1, Kind: EventFetched, Err: errors.New("x")}.append(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, in []byte) {
		events, err := decodeEvents(in)
		if err != nil {
			require.ErrorIs(t, err, wire.ErrMalformed)
			return
		}
		var out []byte
		for _, e := range events {
			out = e.append(out)
		}
		require.Equal(t, len(in), len(out))
	})
}
