package reconcile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// sampleMessages are one or more of each kind.
func sampleMessages() []message {
	ids := []ID{{1}, {2}, {3, 4}}
	counts := make([]int64, helloCounts)
	for i := range counts {
		counts[i] = expected(1000, i) + int64(i%3)
	}
	counts[0] = 1000
	id := ids[2]
	return []message{
		hello{digest: ID{7}, counts: counts},
		symbolsMsg{from: 5, left: 9, size: 1000, symbols: []symbol{{sum: [4]uint64{1, 2, 3, 4}, check: 5, count: 300}, {count: 250}}},
		requestMsg{ids: ids, last: true, pushed: 77},
		requestMsg{ids: ids},
		hello{digest: ID{7}, counts: counts, resume: &id},
		equalMsg{},
		bulk{size: 5, push: true},
		bulk{size: 5, push: true, want: &id},
		symbolsMsg{attempt: 1, symbols: []symbol{}},
		moreMsg{attempt: 1, from: 300, n: 8192, estimate: 65536},
		rekeyMsg{nonce: [16]byte{9}, estimate: 500},
		rekeyedMsg{nonce: [16]byte{9}},
		abortMsg{attempt: 1},
		listMsg{},
		pageMsg{ids: ids, last: true},
		pageMsg{last: true},
		wantMsg{n: 3, bits: []byte{5}},
		wantMsg{n: 0, bits: []byte{}},
	}
}

func TestMessagesRoundTrip(t *testing.T) {
	seen := map[byte]bool{}
	for _, m := range sampleMessages() {
		b := m.encode()
		seen[b[1]] = true
		got, err := decode(b)
		require.NoError(t, err, "%T", m)
		require.EqualExportedValues(t, m, got)
		require.Equal(t, b, got.encode())
		for i := range b {
			_, err := decode(b[:i])
			require.ErrorIs(t, err, ErrProtocol, "%T cut at %d", m, i)
		}
		_, err = decode(append(slices.Clone(b), 0))
		require.ErrorIs(t, err, ErrProtocol, "%T with a byte after it", m)
		b[0]++
		_, err = decode(b)
		require.ErrorIs(t, err, ErrVersion)
	}
	require.Len(t, seen, kindWant)
}

// Lengths out of bounds are refused before anything is allocated for them.
func TestLengthsAreBounded(t *testing.T) {
	numbers := [][]byte{
		binary.AppendUvarint(nil, pageIDs+1), binary.AppendUvarint(nil, 1<<31), binary.AppendUvarint(nil, 1<<63),
		{0x80, 0x00}, {0x81, 0x80, 0x00}, bytes.Repeat([]byte{0xff}, 9), bytes.Repeat([]byte{0xff}, 10),
		append(bytes.Repeat([]byte{0x80}, 10), 1),
	}
	for _, number := range numbers {
		for name, start := range map[string][]byte{
			"page":    {version, kindPage, 0},
			"request": {version, kindRequest, 0},
			"want":    {version, kindWant},
			"symbols": {version, kindSymbols, 0, 0, 0, 0},
			"from":    {version, kindSymbols, 0},
		} {
			if name == "from" && number[0] == 0xd1 { // a valid index
				continue
			}
			_, err := decode(append(slices.Clone(start), number...))
			require.ErrorIs(t, err, ErrProtocol, "%s %x", name, number)
		}
	}
	_, err := decode(make([]byte, MaxMessage+1))
	require.ErrorIs(t, err, ErrProtocol)
	_, err = decode([]byte{version, 0})
	require.ErrorIs(t, err, ErrProtocol)

	// The largest messages fit.
	full := symbolsMsg{from: MaxPrefix, left: maxRun, size: maxSet}
	for i := range chunkSymbols {
		full.symbols = append(full.symbols, symbol{sum: [4]uint64{1 << 63}, count: int64(i%2) * maxSet})
	}
	b := full.encode()
	require.LessOrEqual(t, len(b), MaxMessage)
	_, err = decode(b)
	require.NoError(t, err)
	page := pageMsg{}
	for i := range pageIDs {
		page.ids = append(page.ids, ID{byte(i >> 8), byte(i)})
	}
	require.LessOrEqual(t, len(page.encode()), MaxMessage)
}

func FuzzDecode(f *testing.F) {
	for _, m := range sampleMessages() {
		f.Add(m.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			require.True(t, errors.Is(err, ErrProtocol) || errors.Is(err, ErrVersion))
			return
		}
		require.Equal(t, b, m.encode())
	})
}

func FuzzImage(f *testing.F) {
	image, err := NewSet(testKey, 64).MarshalBinary()
	require.NoError(f, err)
	f.Add(image)
	f.Add([]byte{imageVersion, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		s := NewSet(testKey, 0)
		if err := s.UnmarshalBinary(b); err != nil {
			require.ErrorIs(t, err, ErrImage)
			return
		}
		again, err := s.MarshalBinary()
		require.NoError(t, err)
		require.Equal(t, b, again)
	})
}

// FuzzSession gives a session, of either side, whatever messages the input makes, and
// answers its scans. Neither panics, hangs, nor takes memory out of proportion.
func FuzzSession(f *testing.F) {
	r := newReplica(testKey, 0, randomIDs(source(30), 300))
	frame := func(ms ...message) (b []byte) {
		for _, m := range ms {
			e := m.encode()
			b = append(binary.LittleEndian.AppendUint16(b, uint16(len(e))), e...)
		}
		return b
	}
	for _, m := range sampleMessages() {
		f.Add(true, frame(m))
		f.Add(false, frame(sampleMessages()[0], m, m))
	}
	some := make([]symbol, 8)
	some[0].count = 290
	f.Add(true, frame(symbolsMsg{symbols: some, size: 290}, symbolsMsg{from: 8, symbols: some, size: 290}, rekeyedMsg{}))
	f.Add(false, frame(sampleMessages()[0], rekeyMsg{estimate: 9}, moreMsg{attempt: 1, n: 20}, listMsg{}))
	f.Add(false, frame(sampleMessages()[0], pageMsg{last: true}))
	f.Fuzz(func(t *testing.T, initiator bool, b []byte) {
		s, err := NewResponder(r.set.Snapshot(), Config{Limits: Limits{Symbols: 2048}})
		if initiator {
			s, _, err = NewInitiator(r.set.Snapshot(), Config{Limits: Limits{Symbols: 2048}})
		}
		require.NoError(t, err)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		in := len(b)
		for len(b) >= 2 && err == nil {
			n := min(int(binary.LittleEndian.Uint16(b)), len(b)-2)
			var step Step
			step, err = s.Handle(b[2 : 2+n])
			b = b[2+n:]
			for err == nil {
				for _, m := range step.Send {
					_, bad := decode(m)
					require.NoError(t, bad)
				}
				if step.Scan == nil {
					break
				}
				ids, end := r.scan(step.Scan)
				step, err = s.Supply(ids, end)
			}
		}
		runtime.ReadMemStats(&after)
		require.LessOrEqual(t, after.TotalAlloc-before.TotalAlloc, uint64(4<<20+64*in), "bytes allocated")
	})
}
