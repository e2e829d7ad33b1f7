package session

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/transport"
)

// body returns what an encoder put into its frame.
func body(t testing.TB, frame []byte) []byte {
	_, b, err := wire.NewFrameReader(bytes.NewReader(frame), 0).Read()
	require.NoError(t, err)
	return bytes.Clone(b)
}

// fuzz checks that what a decoder takes is encoded to the same bytes.
func fuzz(f *testing.F, again func(t *testing.T, b []byte) (frame []byte, err error), seeds ...[]byte) {
	f.Add([]byte{})
	for _, s := range seeds {
		f.Add(s)
		f.Add(s[:len(s)/2])
		f.Add(append(bytes.Clone(s), 0))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := again(t, bytes.Clone(b))
		if err == nil {
			require.True(t, bytes.Equal(b, body(t, frame)), "encoded to other bytes")
		}
	})
}

func FuzzDecodeReconcile(f *testing.F) {
	fuzz(f, func(_ *testing.T, b []byte) ([]byte, error) {
		c, n, v, p, err := decodeReconcile(b)
		return encodeReconcile(c, n, v, p), err
	}, body(f, encodeReconcile(true, 7, viewDigest{1}, []byte("payload"))), body(f, encodeReconcile(false, 1, viewDigest{}, nil)))
}

func FuzzDecodeRecords(f *testing.F) {
	key, err := capability.NewSigningKey(bytes.NewReader(make([]byte, 64)))
	require.NoError(f, err)
	draft, err := record.Asset(record.Announce, 1, [32]byte{1}, can.Digest{2}, [32]byte{3}, record.AssetBody{Size: 1, Root: [32]byte{1}})
	require.NoError(f, err)
	recs, err := record.SignWith(key, []record.Draft{draft, record.Removal(2, [32]byte{1}, can.Digest{3}, [32]byte{3})})
	require.NoError(f, err)
	frame, rest := encodeRecords(false, recs)
	require.Empty(f, rest)
	fuzz(f, func(t *testing.T, b []byte) ([]byte, error) {
		if len(b) > batchBytes { // would be split
			return nil, wire.ErrMalformed
		}
		c, recs, err := decodeRecords(b)
		frame, _ := encodeRecords(c, recs)
		return frame, err
	}, body(f, frame), []byte{1})
}

func FuzzDecodeNumber(f *testing.F) {
	fuzz(f, func(_ *testing.T, b []byte) ([]byte, error) {
		n, err := decodeNumber(b)
		return encodeNumber(frameCaught, n), err
	}, body(f, encodeNumber(frameCaught, 9)))
}

func FuzzDecodePeers(f *testing.F) {
	fuzz(f, func(t *testing.T, b []byte) ([]byte, error) {
		ps, err := decodePeers(b)
		require.LessOrEqual(t, len(ps), maxAddrPeers)
		return encodePeers(ps), err
	}, body(f, encodePeers([]transport.PeerInfo{{ID: transport.PeerID{1}, Addrs: []string{"/a", "/b"}}, {ID: transport.PeerID{2}}})))
}

func FuzzDecodeAttach(f *testing.F) {
	fuzz(f, func(_ *testing.T, b []byte) ([]byte, error) {
		a, err := decodeAttach(b)
		return a.encode(), err
	}, body(f, attach{[16]byte{1}, 2}.encode()))
}

func FuzzDecodeAsk(f *testing.F) {
	fuzz(f, func(t *testing.T, b []byte) ([]byte, error) {
		seq, ds, err := decodeAsk(b)
		require.LessOrEqual(t, len(ds), maxAsk)
		return encodeAsk(seq, ds), err
	}, body(f, encodeAsk(3, []can.Digest{{1}, {2}})), body(f, encodeAsk(0, nil)))
}

func FuzzDecodeHave(f *testing.F) {
	fuzz(f, func(_ *testing.T, b []byte) ([]byte, error) {
		seq, bits, err := decodeHave(b)
		have := make([]bool, 8*len(bits))
		for i := range have {
			have[i] = bits[i/8]&(1<<(i%8)) != 0
		}
		return encodeHave(seq, have), err
	}, body(f, encodeHave(3, []bool{true, false, false, true, true, false, true, false, true})))
}

func FuzzDecodeAddrs(f *testing.F) {
	fuzz(f, func(t *testing.T, b []byte) ([]byte, error) {
		addrs, err := decodeAddrs(b)
		require.LessOrEqual(t, len(addrs), maxAddrs)
		return wire.AppendFrame(nil, frameAddrs, encodeAddrs(addrs)), err
	}, encodeAddrs([]string{"/a", "/b"}))
}

// FuzzDecodeHandles has no encoder of its own: a set has many encodings.
func FuzzDecodeHandles(f *testing.F) {
	f.Add([]byte{0, 1, 0, 2})
	f.Add([]byte{0, 1, 0})
	f.Add(make([]byte, 4*capability.MaxTags))
	f.Fuzz(func(t *testing.T, b []byte) {
		set, err := decodeHandles(b)
		require.LessOrEqual(t, len(set), capability.MaxTags+1)
		if err == nil {
			require.Zero(t, len(b)%2)
		}
	})
}

// FuzzLearnView gives a link foreign views.
func FuzzLearnView(f *testing.F) {
	enc, err := filter.View{{MIMEPrefix: "image/"}}.Encode()
	require.NoError(f, err)
	f.Add(enc)
	f.Add(enc[:len(enc)-1])
	f.Add(append(enc, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		l := &link{own: filter.View{{}}}
		if err := l.learnView(b); err != nil {
			require.ErrorIs(t, err, errPeer)
			require.False(t, l.told)
			return
		}
		again, err := l.theirs.Encode()
		require.NoError(t, err)
		require.True(t, bytes.Equal(again, b))
	})
}

// FuzzDecodeOffer gives a link foreign offers.
func FuzzDecodeOffer(f *testing.F) {
	fuzz(f, func(_ *testing.T, b []byte) ([]byte, error) {
		seq, ids, err := decodeOffer(b)
		return encodeOffer(seq, ids), err
	}, body(f, encodeOffer(1, nil)), body(f, encodeOffer(7, []record.ID{{1}, {2}})))
}
