package blob

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	"lukechampine.com/blake3"
	"lukechampine.com/blake3/bao"
	"pgregory.net/rapid"

	"github.com/cansync/cansync/can"
)

// baoOutboard is the reference: the outboard of the Bao package.
func baoOutboard(data []byte) []byte {
	out, _ := bao.EncodeBuf(data, 4, true)
	return out
}

// toBao turns an outboard of ours into Bao's.
func toBao(t require.TestingT, s Summary) []byte {
	tree, err := NewTreeBytes(s.Root, s.Size, s.Outboard)
	require.NoError(t, err)
	var out []byte
	for i := range 8 {
		out = append(out, byte(s.Size>>(8*i)))
	}
	out, err = tree.AppendProof(out, Run{Count: Groups(s.Size)})
	require.NoError(t, err)
	return out
}

func checkSummary(t require.TestingT, data []byte, s Summary) {
	require.Equal(t, can.Digest(sha256.Sum256(data)), s.Digest)
	require.Equal(t, blake3.Sum256(data), s.Root)
	require.Equal(t, uint64(len(data)), s.Size)
	require.Equal(t, OutboardSize(s.Size), uint64(len(s.Outboard)))
	if len(data) <= GroupSize {
		require.Nil(t, s.Outboard)
	}
}

func TestHasherAtEveryBoundary(t *testing.T) {
	bounds := []int{0, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 3072, 8191, 8192, 8193}
	for groups := 1; groups <= 34; groups++ {
		for _, off := range []int{-1024, -1, 0, 1, 64, 1024, 1025} {
			bounds = append(bounds, groups*GroupSize+off)
		}
	}
	for _, n := range bounds {
		data := pattern(n)
		s := Sum(data)
		checkSummary(t, data, s)
		if n > 0 { // the reference's size of nothing is a header alone, as ours
			require.Equal(t, baoOutboard(data), toBao(t, s), "size %d", n)
		}
	}
}

func TestHasherAnyWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := pattern(sizes(40).Draw(t, "size"))
		claim := int64(len(data))
		if rapid.Bool().Draw(t, "unknown size") {
			claim = -1
		}
		var spilled bytes.Buffer
		kept, streamed := NewHasher(claim), NewHasherTo(claim, &spilled)
		for rest := data; len(rest) > 0; {
			k := min(len(rest), rapid.SampledFrom([]int{1, 1000, GroupSize - 1, GroupSize, GroupSize + 1, 300_000}).Draw(t, "write"))
			for _, h := range []*Hasher{kept, streamed} {
				n, err := h.Write(rest[:k])
				require.NoError(t, err)
				require.Equal(t, k, n)
			}
			rest = rest[k:]
		}
		s, err := kept.Finish()
		require.NoError(t, err)
		checkSummary(t, data, s)
		s2, err := streamed.Finish()
		require.NoError(t, err)
		require.Nil(t, s2.Outboard)
		require.True(t, bytes.Equal(s.Outboard, spilled.Bytes()))
		require.Equal(t, s.Root, s2.Root)

		_, err = kept.Write([]byte{1})
		require.ErrorIs(t, err, ErrClosed)
		_, err = kept.Finish()
		require.ErrorIs(t, err, ErrClosed)
		kept.Reset(int64(len(data)))
		_, err = io.Copy(kept, bytes.NewReader(data))
		require.NoError(t, err)
		again, err := kept.Finish()
		require.NoError(t, err)
		require.Equal(t, s, again)
	})
}

func TestHasherLengthLies(t *testing.T) {
	for _, claim := range []int64{0, 10, GroupSize, 3*GroupSize + 5} {
		h := NewHasher(claim)
		_, err := h.Write(make([]byte, claim+1))
		require.ErrorIs(t, err, ErrSize)
		_, err = h.Finish()
		require.ErrorIs(t, err, ErrSize)
	}
	h := NewHasher(100)
	_, err := h.Write(make([]byte, 99))
	require.NoError(t, err)
	_, err = h.Finish()
	require.ErrorIs(t, err, ErrSize)

	// A claim alone does not cost memory.
	h = NewHasher(MaxSize)
	require.LessOrEqual(t, cap(h.out), maxPrealloc)
}

type failingWriter struct{ after int }

var errFull = errors.New("no room")

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.after -= len(p); w.after < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestHasherOutboardWriterFails(t *testing.T) {
	data := pattern(1100 * GroupSize)
	for _, after := range []int{0, 64 << 10} {
		h := NewHasherTo(-1, &failingWriter{after: after})
		_, err := h.Write(data)
		if err == nil {
			_, err = h.Finish()
		}
		require.ErrorIs(t, err, errFull)
		_, err = h.Finish()
		require.Error(t, err)
	}
}

// TestVectors freezes root and layout: content is byte i = i mod 251, the pattern
// of BLAKE3's own test vectors.
func TestVectors(t *testing.T) {
	for _, v := range []struct {
		size           int
		root, outboard string
	}{
		{0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262", "e3b0c44298fc1c14"},
		{1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213", "e3b0c44298fc1c14"},
		{1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7", "e3b0c44298fc1c14"},
		{1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444", "e3b0c44298fc1c14"},
		{16384, "f875d6646de28985646f34ee13be9a576fd515f76b5b0a26bb324735041ddde4", "e3b0c44298fc1c14"},
		{16385, "1dabe216be2578830263b049de1639f39f05a4da616b9b78c7a5e4e41662fd1f", "03f4179b284bd444"},
		{49152, "88c8baf84eb0b231f985d2be3540430506a9280fd0ec4cec74524bbc33bbc5df", "c8a2b15fac51972d"},
		{102400, "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085", "d5fb42b158ae31ac"},
		{1048576, "74cb441fd087764ca9c3694da742ebe30cbeb3060a17009ca81825c7a8d10343", "22a471bfea60da79"},
		{5242957, "6072828675031a1e61dbea3484bf5e525fa4bf325449cc491517b2ff5b7d9019", "8c47b237882f3ea1"},
	} {
		data := make([]byte, v.size)
		for i := range data {
			data[i] = byte(i % 251)
		}
		s := Sum(data)
		sum := sha256.Sum256(s.Outboard)
		require.Equal(t, v.root, hex.EncodeToString(s.Root[:]), fmt.Sprint(v.size))
		require.Equal(t, v.outboard, hex.EncodeToString(sum[:8]), fmt.Sprint(v.size))
	}
}

func BenchmarkHasher(b *testing.B) {
	data := pattern(16 << 20)
	h := NewHasher(int64(len(data)))
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		h.Reset(int64(len(data)))
		for at := 0; at < len(data); at += 256 << 10 {
			_, _ = h.Write(data[at : at+256<<10])
		}
		if _, err := h.Finish(); err != nil {
			b.Fatal(err)
		}
	}
}
