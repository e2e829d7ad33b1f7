package wire

import (
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReaderStopsAtTheFirstFailure(t *testing.T) {
	r := NewReader([]byte{0, 0, 0, 9, 1})
	require.Nil(t, r.Bytes(8))
	require.ErrorIs(t, r.Err(), ErrMalformed)
	require.Zero(t, r.U64())
	require.ErrorIs(t, r.End(), ErrMalformed)
}

func TestReaderRefusesTrailingBytes(t *testing.T) {
	r := NewReader([]byte{1, 2})
	require.Equal(t, uint8(1), r.U8())
	require.ErrorIs(t, r.End(), ErrMalformed)
}

func TestReaderRefusesTextThatIsNotUTF8(t *testing.T) {
	r := NewReader(AppendString(nil, "a\xff"))
	require.Empty(t, r.String(10))
	require.ErrorIs(t, r.Err(), ErrMalformed)
}

func TestFrameLengthsOutOfBounds(t *testing.T) {
	for _, head := range [][]byte{{0, 0, 0, 0, 1}, {0, 0, 0, 18, 1}, {0x7f, 0xff, 0xff, 0xff, 1}, {0xff, 0xff, 0xff, 0xff, 1}} {
		_, _, err := NewFrameReader(bytes.NewReader(head), 16).Read()
		require.ErrorIs(t, err, ErrMalformed)
	}
	_, _, err := NewFrameReader(bytes.NewReader([]byte{0, 0}), 16).Read()
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	_, _, err = NewFrameReader(bytes.NewReader(nil), 16).Read()
	require.ErrorIs(t, err, io.EOF)
}

func FuzzFrames(f *testing.F) {
	f.Add(AppendFrame(AppendFrame(nil, 1, []byte("one")), 2, nil))
	f.Add([]byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		fr := NewFrameReader(bytes.NewReader(in), 1<<16)
		var out []byte
		for {
			typ, body, err := fr.Read()
			if err != nil {
				break
			}
			out = AppendFrame(out, typ, body)
		}
		if !bytes.HasPrefix(in, out) {
			t.Fatalf("frames do not encode back")
		}
	})
}
