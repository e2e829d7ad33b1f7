package cansync

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/kv"
	"github.com/cansync/cansync/store/memory"
)

// A reader's cursor holds over restarts also when the node was idle before it
// stopped, and over crashes for what was written.
func TestEventCursorOverRestartsAndCrashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New()
		open := func() (*hub, func()) {
			h := newHub(time.Now)
			require.NoError(t, h.load(context.Background(), s))
			require.NoError(t, h.reserve(context.Background(), s))
			done := make(chan struct{})
			go func() { defer close(done); h.run(s, func(err error) { t.Error(err) }) }()
			return h, func() { h.close(); <-done }
		}
		h, stop := open()
		for range 3 {
			h.emit(Event{Kind: EventJoined})
		}
		time.Sleep(5 * eventFlush) // written, and nothing since
		stop()
		h, stop = open()
		require.Equal(t, []uint64{2, 3}, seqs(h, 1))
		h.emit(Event{Kind: EventJoined})
		early := newHub(time.Now)
		require.NoError(t, early.load(context.Background(), s))
		require.Greater(t, early.seq, uint64(4), "a crash before the first flush gives no number twice")
		require.Equal(t, []uint64{4}, seqs(h, 3), "no number is skipped by a clean restart")
		time.Sleep(5 * eventFlush)

		crashed := newHub(time.Now)
		require.NoError(t, crashed.load(context.Background(), s))
		require.Equal(t, []uint64{2, 3, 4}, seqs(crashed, 1), "what was written outlives a crash")
		stop()

		// Crash after crash, no more chunks are kept than the events need.
		for range 100 {
			h := newHub(time.Now)
			require.NoError(t, h.load(context.Background(), s))
			for range eventChunk {
				h.emit(Event{Kind: EventJoined})
			}
			require.NoError(t, h.flush(context.Background(), s, false))
		}
		n := 0
		for _, err := range kv.Scan(t.Context(), s, kv.Key("n", "e"), true) {
			require.NoError(t, err)
			n++
		}
		require.LessOrEqual(t, n, 4*keptEvents/eventChunk)
	})
}
