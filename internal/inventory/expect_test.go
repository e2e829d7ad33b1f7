package inventory

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestExpectCountsPerSize(t *testing.T) {
	v := New(nil)
	require.False(t, v.Expected(5))
	require.False(t, v.Expected(-1))
	a, b := v.Expect(5), v.Expect(5)
	require.True(t, v.Expected(5))
	require.True(t, v.Expected(-1), "an unknown size may be any of them")
	require.False(t, v.Expected(6))
	a()
	a()
	require.True(t, v.Expected(5), "the second is still in flight")
	b()
	require.False(t, v.Expected(5))
	require.False(t, v.Expected(-1))
	require.Empty(t, v.expected.sizes)
}

func TestExpectBeyondItsBoundExpectsAnything(t *testing.T) {
	v := New(nil)
	var done []func()
	for i := range maxExpected + 3 {
		done = append(done, v.Expect(int64(i)))
	}
	require.Len(t, v.expected.sizes, maxExpected)
	require.True(t, v.Expected(1<<40))
	for _, d := range done {
		d()
	}
	require.Empty(t, v.expected.sizes)
	require.False(t, v.Expected(1<<40))
	require.False(t, v.Expected(1))
}
