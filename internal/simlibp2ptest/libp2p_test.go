// Package simlibp2ptest runs the simulator over the real libp2p stack: QUIC, TLS,
// identify, DHT and all, in virtual time over simulated packets.
package simlibp2ptest

import (
	"testing"
	"time"

	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/tier"
	"github.com/cansync/cansync/simulate"
	"github.com/cansync/cansync/transport/memory"
)

// five nodes on libp2p with 200 entries converge within five minutes after
// the last fault, whatever their packets went through.
func TestLibp2pConverges(t *testing.T) {
	o := simulate.Options{
		Seeds: 48, Peers: 5, Assets: 200, Bound: 5 * time.Minute,
		Network: newPackets, Link: memory.Link{Latency: 20 * time.Millisecond},
		Faults: []simulate.Fault{
			simulate.Split, simulate.Flap, simulate.Slow, simulate.Loss, simulate.Reorder, simulate.Duplicate,
			simulate.Crash, simulate.Restart, simulate.ClockJump,
		},
		// A service that tells of no changes is listed every five minutes only.
		Service: func(i int, o *cantest.Options) { o.Lacks &^= cantest.FeatureEvents | cantest.FeatureChangeEvents },
	}
	if tier.Nightly() {
		o.Seeds = 500
	} else if testing.Short() {
		o.Assets = 60
	}
	simulate.Run(t, o, func(w *simulate.World) {
		// Each pair has a link of its own until the faults end.
		peers := w.Peers()
		for i, a := range peers {
			for _, b := range peers[:i] {
				w.SetLink(a, b, memory.Link{
					Latency: 5*time.Millisecond + time.Duration(w.Rand().Int64N(int64(295*time.Millisecond))),
					Jitter:  time.Duration(1 + w.Rand().Int64N(int64(50*time.Millisecond))),
					Loss:    0.1 * w.Rand().Float64(), Duplicate: 0.05 * w.Rand().Float64(),
				})
			}
		}
		w.Chaos(25)
		took := w.Settle()
		w.Check()
		w.T().Logf("settled in %s, %v", took, w.Counts())
	})
}
