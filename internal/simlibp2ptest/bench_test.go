package simlibp2ptest

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkSeeds reports how many worlds of [TestLibp2pConverges] a minute has room
// for, one at a time. A bubble needs a testing.T, so that the program runs itself.
func BenchmarkSeeds(b *testing.B) {
	self, err := os.Executable()
	require.NoError(b, err)
	n := 0
	for b.Loop() {
		n++
		out, err := exec.CommandContext(b.Context(), self, "-test.run=^TestLibp2pConverges$", fmt.Sprintf("-simulate.seed=%d", n)).CombinedOutput()
		require.NoError(b, err, "%s", out)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Minutes(), "seeds/min")
}
