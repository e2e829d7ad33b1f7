package simulate_test

import (
	"testing"

	"github.com/cansync/cansync/internal/tier"
	"github.com/cansync/cansync/simulate"
)

// schedule is a life of a few peers in which everything goes wrong.
func schedule(w *simulate.World) {
	w.Chaos(25)
	took := w.Settle()
	w.Check()
	w.T().Logf("settled in %s, %v", took, w.Counts())
}

// R-03 and more: five peers, 200 entries and every fault there is.
func TestRandomSchedules(t *testing.T) {
	o := simulate.Options{Seeds: 100, Peers: 5, Assets: 200}
	if tier.Nightly() {
		o.Seeds = 500
	} else if testing.Short() {
		o.Assets = 60
	}
	simulate.Run(t, o, schedule)
}
