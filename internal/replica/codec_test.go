package replica

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/wire"
)

func FuzzDecodeWork(f *testing.F) {
	f.Add([]byte{})
	f.Add(Work{}.encode())
	f.Add(Work{State: Partial, Cause: SourceOffline, Attempts: 3, Next: 4, Since: -5, Detail: "no peer"}.encode())
	f.Add(append(Work{}.encode(), 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := decodeWork(can.Digest{1}, b)
		if err != nil {
			require.ErrorIs(t, err, wire.ErrMalformed)
			return
		}
		require.Equal(t, can.Digest{1}, w.Asset)
		require.Equal(t, b, w.encode())
	})
}

func FuzzDecodeLocal(f *testing.F) {
	f.Add([]byte{})
	f.Add(Local{}.encode())
	for _, s := range []State{Have, TrashedHere} {
		f.Add(Local{Applied: record.ID{1}, State: s, size: 6}.encode())
	}
	f.Add(Local{State: TrashedHere}.encode()[:34])
	f.Add(append(Local{State: Have}.encode(), 0, 0, 0, 0, 0, 0, 0, 6))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := decodeLocal(b)
		if err != nil {
			require.ErrorIs(t, err, wire.ErrMalformed)
			return
		}
		if was := l.encode(); !l.sized() || len(b) == len(was) {
			require.Equal(t, b, was)
		} else {
			require.Equal(t, b, was[:len(b)], "from before the size was kept")
		}
	})
}

func FuzzDecodeRows(f *testing.F) {
	f.Add([]byte{})
	f.Add(encodeRows([]record.Record{{}}))
	f.Add(encodeRows([]record.Record{{Header: record.Header{Kind: record.Edit, Clock: 7}, Body: []byte("body")}, {}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		rows, err := decodeRows(b)
		if err != nil {
			return
		}
		if len(rows) == 0 {
			require.Empty(t, b)
			return
		}
		require.Equal(t, b, encodeRows(rows))
	})
}
