//go:build !race

// The race detector takes memory of its own for all that is touched.

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// resident returns the largest size that a process has had in memory, in bytes.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(b), "VmHWM:")
	require.True(t, ok)
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	require.NoError(t, err)
	return kib << 10
}

// TestFloodTakesLittleMemory sends bodies that are too large again and again.
func TestFloodTakesLittleMemory(t *testing.T) {
	s, host, unharmed := abused(t)
	several := func(n int) {
		for range n {
			flood(t, s, host)
		}
	}
	several(5) // what it takes at all
	before := resident(t, s.cmd.Process.Pid)
	several(20)
	grown := resident(t, s.cmd.Process.Pid) - before
	t.Logf("grown by %d KiB", grown>>10)
	require.Less(t, grown, int64(16<<20))
	unharmed()
}
