package session

import (
	"crypto/rand"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
)

// answers counts the frames of a kind that wait to be written and returns their bodies.
func (l *link) answers(t *testing.T, typ uint8) (out [][]byte) {
	frames, _ := l.out.urgent()
	for _, f := range frames {
		if f[4] == typ {
			out = append(out, body(t, f))
		}
	}
	return out
}

// A peer that offers without end is answered so often and no more, and never holds
// more than its last offer in memory; one that offers a library's worth of ids is
// answered to its end.
func TestOffersAreAnsweredAtAPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeper(t)
		l := k.link(&written{})
		l.pace = newPace()
		mine := k.say(record.Announce, can.Digest{3}, "image/png").ID()
		ids := make([]record.ID, maxOffer)
		_, _ = rand.Read(ids[0][:])
		ids[maxOffer-1] = mine
		offer := func(seq uint32) { require.NoError(t, l.asked(t.Context(), body(t, encodeOffer(seq, ids)))) }
		const atOnce = offerBurst / maxOffer
		for seq := range uint32(10 * atOnce) {
			offer(seq)
		}
		got := l.answers(t, frameKept)
		require.Len(t, got, atOnce)
		for i, b := range got {
			seq, bits, err := decodeHave(b)
			require.NoError(t, err)
			require.EqualValues(t, i, seq)
			require.Len(t, bits, maxOffer/8)
			require.Equal(t, byte(0x80), bits[maxOffer/8-1], "the last is kept")
			require.Zero(t, bits[0])
		}
		require.EqualValues(t, 10*atOnce-1, l.asking.seq, "the last one waits")

		// Whoever waits for its answer gets through a million.
		start, n := time.Now(), 0
		for seq := uint32(10*atOnce - 1); n < 1_000_000; seq++ {
			for l.asking != nil {
				<-l.askingC
				require.NoError(t, l.keepWaiting(t.Context()))
			}
			require.Len(t, l.answers(t, frameKept), 1)
			n += len(ids)
			offer(seq + 1)
		}
		require.Greater(t, time.Since(start), 110*time.Second)
		require.Less(t, time.Since(start), 3*time.Minute)
		require.NoError(t, k.Close())
	})
}

// What its author may not say is not offered over and over; what is too early comes again.
func TestWhatIsRefusedForGoodIsNotOwed(t *testing.T) {
	k := newKeeper(t)
	l := k.link(&written{})
	l.pace = newPace()
	other := newKeeper(t)
	recs := []record.Record{
		other.say(record.Announce, can.Digest{1}, "image/png"), other.say(record.Announce, can.Digest{2}, "image/png"),
		other.say(record.Announce, can.Digest{3}, "image/png"), other.say(record.Announce, can.Digest{4}, "image/png"),
	}
	var ids []record.ID
	for _, r := range recs {
		ids = append(ids, r.ID())
	}
	kept := func() byte {
		require.NoError(t, l.asked(t.Context(), body(t, encodeOffer(1, ids))))
		got := l.answers(t, frameKept)
		require.Len(t, got, 1)
		_, bits, err := decodeHave(got[0])
		require.NoError(t, err)
		require.Len(t, bits, 1)
		return bits[0]
	}
	require.Zero(t, kept())
	l.took(recs[:3], []replica.Refused{
		{ID: ids[0], Err: control.ErrForbidden}, {ID: ids[1], Err: replica.ErrDeferred}, {ID: ids[2], Err: control.ErrUnknownCert},
	})
	require.Equal(t, byte(1), kept())
	l.took(recs[3:], nil) // replaced by something newer
	require.Equal(t, byte(8), kept())
	require.NoError(t, k.Close())
	require.NoError(t, other.Close())
}
