package record

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cansync/cansync/internal/wire"
)

// The vectors of testdata are what released versions wrote, and are never
// rewritten: a change here is a change of the format. Each line is a name, a
// space, and hexadecimal digits; lines that start with # are remarks.
func vectors(t *testing.T, name string) map[string][]byte {
	text, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	out := map[string][]byte{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, digits, ok := strings.Cut(line, " ")
		require.True(t, ok, line)
		b, err := hex.DecodeString(digits)
		require.NoError(t, err, key)
		out[key] = b
	}
	return out
}

func TestFrozenVectors(t *testing.T) {
	vs := vectors(t, "records.txt")
	require.Len(t, vs, 7)

	body, err := sampleBody(0).Encode()
	require.NoError(t, err)
	require.Equal(t, vs["asset-body"], body)

	check := func(name string, r Record) {
		require.Equal(t, hex.EncodeToString(vs[name]), hex.EncodeToString(r.Encode()), name)
		got, err := Decode(vs[name])
		require.NoError(t, err)
		require.Equal(t, r, got)
		require.NoError(t, NewVerifier(1).Verify(got), name)
	}
	one := signed(t, 1)[0]
	check("announce", one)
	require.Equal(t, vs["announce-header"], one.Header.Append(nil))
	id := one.ID()
	require.Equal(t, vs["announce-id"], id[:])
	check("announce-4-of-5", signed(t, 5)[3])
	check("announce-without-body", one.WithoutBody())
	tomb, err := Sign(testKey(1), []Draft{Removal(ClockAt(epoch)|7, sum("library"), sum("asset"), sum("cert"))})
	require.NoError(t, err)
	check("tombstone", tomb[0])
}

func genText(limit int) *rapid.Generator[string] { return rapid.StringN(0, -1, limit) }

func genBody() *rapid.Generator[AssetBody] {
	return rapid.Custom(func(t *rapid.T) AssetBody {
		b := AssetBody{
			Size:        rapid.Uint64Range(0, 1<<63-1).Draw(t, "size"),
			Root:        [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "root")),
			Timestamp:   rapid.Int64().Draw(t, "timestamp"),
			MIMEType:    genText(40).Draw(t, "mime"),
			Application: genText(40).Draw(t, "application"),
			User:        genText(40).Draw(t, "user"),
			Description: genText(200).Draw(t, "description"),
			Filename:    genText(40).Draw(t, "filename"),
			Path:        genText(40).Draw(t, "path"),
		}
		if tags := rapid.SliceOfN(genText(20), 0, 5).Draw(t, "tags"); len(tags) > 0 {
			b.Tags = tags
		}
		return b
	})
}

func TestAnyBodyRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := genBody().Draw(t, "body")
		enc, err := b.Encode()
		require.NoError(t, err)
		require.NoError(t, checkAsset(enc))
		got, err := DecodeAsset(enc)
		require.NoError(t, err)
		require.Equal(t, b, got)
		for i := range enc {
			_, err := DecodeAsset(enc[:i])
			require.ErrorIs(t, err, wire.ErrMalformed)
			require.Error(t, checkAsset(enc[:i]))
		}
	})
}

func TestDecodeHeaderIsStrict(t *testing.T) {
	h := signed(t, 1)[0].Header
	b := h.Append(nil)
	require.Len(t, b, HeaderSize)
	got, err := DecodeHeader(b)
	require.NoError(t, err)
	require.Equal(t, h, got)
	_, err = DecodeHeader(append(b, 0))
	require.ErrorIs(t, err, wire.ErrMalformed)
	b[0] = 2
	_, err = DecodeHeader(b)
	require.ErrorContains(t, err, "version 2")
	b[0] = 1
	for k := range 256 {
		b[1] = byte(k)
		_, err = DecodeHeader(b)
		require.Equal(t, Kind(k).Valid(), err == nil, k)
		require.NotEmpty(t, Kind(k).String())
	}
}

func TestReadLeavesWhatFollows(t *testing.T) {
	var b []byte
	for _, r := range signed(t, 3) {
		b = r.Append(b)
	}
	rd := wire.NewReader(b)
	for _, want := range signed(t, 3) {
		require.Equal(t, want, Read(rd))
	}
	require.NoError(t, rd.End())
}

func FuzzDecode(f *testing.F) {
	for _, r := range signed(f, 3) {
		f.Add(r.Encode())
		f.Add(r.WithoutBody().Encode())
	}
	tomb, _ := Sign(testKey(1), []Draft{Removal(1, sum("library"), sum("asset"), sum("cert"))})
	f.Add(tomb[0].Encode())
	v := NewVerifier(16)
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := Decode(in)
		if err != nil {
			return
		}
		if !bytes.Equal(r.Encode(), in) {
			t.Fatal("does not encode back")
		}
		if v.Verify(r) == nil && r.HasBody() && !r.Kind.Control() {
			if _, err := DecodeAsset(r.Body); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzDecodeHeader(f *testing.F) {
	f.Add(signed(f, 1)[0].Header.Append(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		if h, err := DecodeHeader(in); err == nil && !bytes.Equal(h.Append(nil), in) {
			t.Fatal("does not encode back")
		}
	})
}

func FuzzDecodeAsset(f *testing.F) {
	b, _ := sampleBody(1).Encode()
	f.Add(b)
	b, _ = AssetBody{}.Encode()
	f.Add(b)
	f.Fuzz(func(t *testing.T, in []byte) {
		b, err := DecodeAsset(in)
		if (err == nil) != (checkAsset(in) == nil) {
			t.Fatal("the check and the decoder disagree")
		}
		if err != nil {
			return
		}
		out, err := b.Encode()
		if err != nil || !bytes.Equal(out, in) {
			t.Fatalf("does not encode back: %v", err)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	r := signed(b, MaxBatch)[0]
	buf := make([]byte, 0, r.Size())
	b.ReportAllocs()
	for b.Loop() {
		buf = r.Append(buf[:0])
	}
	b.SetBytes(int64(len(buf)))
}

func BenchmarkDecode(b *testing.B) {
	enc := signed(b, MaxBatch)[0].Encode()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(enc); err != nil {
			b.Fatal(err)
		}
	}
}

// One operation is one record of a batch of 64.
func BenchmarkSign(b *testing.B) {
	ds := drafts(b, MaxBatch)
	key := testKey(1)
	b.ReportAllocs()
	for i := 0; i < b.N; i += MaxBatch {
		if _, err := Sign(key, ds); err != nil {
			b.Fatal(err)
		}
	}
}

// One operation is one record of a batch of 64 that was not seen before.
func BenchmarkVerify(b *testing.B) {
	rs := signed(b, MaxBatch)
	b.ReportAllocs()
	var v *Verifier
	for i := 0; i < b.N; i++ {
		if i%MaxBatch == 0 {
			v = NewVerifier(4)
		}
		if err := v.Verify(rs[i%MaxBatch]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifySingly(b *testing.B) {
	r := signed(b, 1)[0]
	b.ReportAllocs()
	for b.Loop() {
		if err := NewVerifier(1).Verify(r); err != nil {
			b.Fatal(err)
		}
	}
}
