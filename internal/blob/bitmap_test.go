package blob

import (
	"encoding/hex"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestBitmapModel runs random calls against a slice of booleans.
func TestBitmapModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint64Range(0, 400).Draw(t, "groups")
		b, model := NewBitmap(n), make([]bool, n)
		change := func(run Run, to bool) (changed uint64) {
			for i := range model {
				if run.Contains(uint64(i)) && model[i] != to {
					model[i] = to
					changed++
				}
			}
			return changed
		}
		for range rapid.IntRange(0, 12).Draw(t, "steps") {
			run := Run{First: rapid.Uint64Range(0, n+2).Draw(t, "first"), Count: rapid.Uint64Range(0, n+2).Draw(t, "count")}
			if rapid.IntRange(0, 3).Draw(t, "op") == 0 {
				require.Equal(t, change(run, false), b.Clear(run))
			} else {
				require.Equal(t, change(run, true), b.Set(run))
			}
		}
		count := uint64(0)
		for i, on := range model {
			require.Equal(t, on, b.Test(uint64(i)))
			if on {
				count++
			}
		}
		require.Equal(t, count, b.Count())
		require.Equal(t, count == n, b.Full())
		require.False(t, b.Test(n))
		var missing []uint64
		for run := range b.Missing() {
			require.Positive(t, run.Count)
			require.False(t, b.Has(run))
			for i := range run.Count {
				missing = append(missing, run.First+i)
			}
			require.False(t, run.First > 0 && !model[run.First-1], "runs are maximal")
		}
		var want []uint64
		for i, on := range model {
			if !on {
				want = append(want, uint64(i))
			}
		}
		require.Equal(t, want, missing)
		if first := slices.Index(model, false); first >= 0 {
			require.Equal(t, uint64(first), b.Prefix())
			run, ok := b.NextMissing(0, 3)
			require.True(t, ok)
			require.Equal(t, uint64(first), run.First)
			require.LessOrEqual(t, run.Count, uint64(3))
		} else {
			require.Equal(t, n, b.Prefix())
		}
		// A copy is a value of its own, and survives encoding.
		c := b.Clone()
		c.Set(Run{Count: n})
		require.Equal(t, count, b.Count())
		enc := b.AppendTo([]byte("x"))[1:]
		require.LessOrEqual(t, uint64(len(enc)), (n+7)/8+1+sumSize)
		back, err := DecodeBitmap(enc, n)
		require.NoError(t, err)
		require.Equal(t, b, back)
		_, err = DecodeBitmap(enc, n+1)
		require.ErrorIs(t, err, ErrBitmap)
		i := rapid.IntRange(0, 8*len(enc)-1).Draw(t, "bit")
		enc[i/8] ^= 1 << (i % 8)
		_, err = DecodeBitmap(enc, n)
		require.ErrorIs(t, err, ErrBitmap)
	})
}

func TestBitmapVectors(t *testing.T) {
	b := NewBitmap(1000)
	b.Set(Run{Count: 300})
	b.Set(Run{First: 999, Count: 1})
	require.Equal(t, "0100ac02bb0501e3716bd656521ffeed425b44ce32221c", hex.EncodeToString(b.AppendTo(nil)))
	b = NewBitmap(20)
	for i := uint64(0); i < 20; i += 2 {
		b.Set(Run{First: i, Count: 1})
	}
	require.Equal(t, "025555054eb1b1b87336e1644a534de009965f27", hex.EncodeToString(b.AppendTo(nil)))
}

// seal adds the checksum, so that a test reaches the checks behind it.
func seal(n uint64, body []byte) []byte {
	sum := bitmapSum(n, body)
	return append(slices.Clone(body), sum[:]...)
}

func TestBitmapStrict(t *testing.T) {
	for name, body := range map[string][]byte{
		"unknown form":        {3, 8},
		"beyond the end":      {bitmapRuns, 9},
		"empty inner run":     {bitmapRuns, 2, 0, 6},
		"long varint":         {bitmapRuns, 0x88, 0},
		"trailing":            {bitmapRuns, 8, 0},
		"too short":           {bitmapRuns, 4},
		"bits shorter as run": {bitmapBits, 0},
		"empty present":       {bitmapRuns, 0, 0},
	} {
		_, err := DecodeBitmap(seal(8, body), 8)
		require.ErrorIs(t, err, ErrBitmap, name)
	}
	_, err := DecodeBitmap(seal(7, []byte{bitmapBits, 0xd5}), 7)
	require.ErrorIs(t, err, ErrBitmap)
	_, err = DecodeBitmap(nil, 8)
	require.ErrorIs(t, err, ErrBitmap)
}

func FuzzDecodeBitmap(f *testing.F) {
	b := NewBitmap(20)
	for i := uint64(0); i < 20; i += 3 {
		b.Set(Run{First: i, Count: 1})
	}
	enc := b.AppendTo(nil)
	f.Add(uint16(20), enc[:len(enc)-sumSize])
	f.Add(uint16(8), []byte{bitmapRuns, 8})
	f.Add(uint16(8), []byte{bitmapRuns, 0, 8})
	f.Add(uint16(0), []byte{bitmapRuns})
	f.Fuzz(func(t *testing.T, n uint16, body []byte) {
		p := seal(uint64(n), body)
		b, err := DecodeBitmap(p, uint64(n))
		if err != nil {
			require.ErrorIs(t, err, ErrBitmap)
			return
		}
		require.Equal(t, p, b.AppendTo(nil))
	})
}
