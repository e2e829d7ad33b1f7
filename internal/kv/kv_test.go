package kv_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cansync/cansync/internal/kv"
)

func TestBinSortsAsTheBytesDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.SliceOf(rapid.Byte()).Draw(t, "a"), rapid.SliceOf(rapid.Byte()).Draw(t, "b")
		if rapid.Bool().Draw(t, "longer") {
			b = append(bytes.Clone(a), b...)
		}
		x, y := kv.Bin(a), kv.Bin(b)
		require.Equal(t, bytes.Compare(a, b), strings.Compare(x, y))
		require.Equal(t, x, string(kv.AppendBin(nil, a)))
		require.NotContains(t, x, "/")
		back, err := kv.ParseBin(x)
		require.NoError(t, err)
		require.Equal(t, a, append([]byte{}, back...))
	})
}

func TestLast32(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "id"))
		key := kv.Key("l", "x", kv.Bin(want[:])).String()
		got, err := kv.Last32(key)
		require.NoError(t, err)
		require.Equal(t, want, got)
		for _, bad := range []string{"", "/", key + "/", key + "0", key[:len(key)-1], key[:len(key)-1] + "=", key[:len(key)-1] + "~"} {
			_, err := kv.Last32(bad)
			require.Error(t, err, bad) // the last one: bits that stand for nothing
		}
	})
}
