package simulate_test

import (
	"testing"

	"github.com/cansync/cansync/simulate"
)

// schedule is a life of a few peers in which everything goes wrong.
func schedule(w *simulate.World) {
	w.Chaos(15)
	took := w.Settle()
	w.Check()
	w.T().Logf("settled in %s, %v", took, w.Counts())
}

func TestRandomSchedules(t *testing.T) {
	simulate.Run(t, simulate.Options{Seeds: 100, Peers: 4}, schedule)
}
