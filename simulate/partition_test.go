package simulate_test

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/tier"
	"github.com/cansync/cansync/simulate"
)

// contentSize is the size of what write adds.
const contentSize = 24 << 10

// write lets every peer's user add a few contents and edit one.
func write(w *simulate.World, round string, n int) {
	for _, p := range w.Peers() {
		for i := range n {
			b := make([]byte, contentSize)
			for k := 0; k < len(b); k += 8 {
				binary.LittleEndian.PutUint64(b[k:], w.Rand().Uint64())
			}
			d := p.Add(b, can.Metadata{
				MIMEType: "image/png", Tags: []string{round}, Description: fmt.Sprintf("%d of %s", i, round),
			})
			text := fmt.Sprintf("edited in %s", round)
			if i == 0 {
				require.True(w.T(), p.Edit(d, can.Update{Description: &text}))
			}
		}
	}
}

// connected reports whether every running peer shares the library with every other.
func connected(w *simulate.World) bool {
	for _, p := range w.Peers() {
		s, err := p.Library().Status(w.T().Context())
		if err != nil || s.Peers != len(w.Peers())-1 {
			return false
		}
	}
	return true
}

// five peers are split in every way in which networks split, while all sides
// write; within a minute after each round they agree again, no content was ingested
// twice anywhere, and hardly any was fetched twice.
func TestPartitionsHeal(t *testing.T) {
	rounds := tier.Of(30, 120)
	rounds = max(rounds, 6)
	o := simulate.Options{
		Peers: 5, Faults: []simulate.Fault{simulate.Split, simulate.OneWay, simulate.Flap}, Bound: time.Minute,
		// A service that tells of no changes is listed every five minutes only.
		Service: func(_ int, o *cantest.Options) { o.Lacks &^= cantest.FeatureEvents | cantest.FeatureChangeEvents },
	}
	simulate.Run(t, o, func(w *simulate.World) {
		p := w.Peers()
		kinds := []func(){
			func() { w.Partition(p[:2], p[2:]) },
			func() { w.Partition(p[3:4]) },
			func() { w.Partition(p[:1], p[1:2], p[2:3], p[3:4]) },
			func() { // all that 0 and 1 tell 3 and 4 goes through 2
				for _, a := range p[:2] {
					for _, b := range p[3:] {
						w.OneWay(a, b, true)
						w.OneWay(b, a, true)
					}
				}
			},
			func() {
				for _, o := range p[1:] {
					w.OneWay(o, p[0], true)
				}
			},
			func() { w.Flap(p[0], p[1], time.Second, 10) },
		}
		began, contents := w.Network().Total().Bytes, 0
		var worst time.Duration
		for i := range rounds {
			w.Eventually("all are connected", 10*time.Minute, func() bool { return connected(w) })
			write(w, fmt.Sprintf("round %d before", i), 1)
			kinds[i%len(kinds)]()
			name := fmt.Sprintf("round %d", i)
			write(w, name, 3)
			w.Sleep(time.Duration(10+w.Rand().IntN(50)) * time.Second)
			write(w, name+" later", 2)
			w.Sleep(time.Duration(w.Rand().IntN(10)) * time.Second)
			worst = max(worst, w.Settle())
			w.Check()
			contents += 6 * len(p)
		}
		sent, needed := w.Network().Total().Bytes-began, uint64(contents*contentSize*(len(p)-1))
		w.T().Logf("%d rounds, agreed within %s; %.3f of what the contents take was sent", rounds, worst, float64(sent)/float64(needed))
		// Records, hellos and pings are some three percent of it.
		require.Less(w.T(), float64(sent), 1.08*float64(needed))
	})
}

// What is said on one side of a bridge arrives on the other while the bridge is all
// there is.
func TestABridgeCarriesEverything(t *testing.T) {
	simulate.Run(t, simulate.Options{Peers: 5, Faults: []simulate.Fault{simulate.OneWay}}, func(w *simulate.World) {
		p := w.Peers()
		w.Eventually("all are connected", 10*time.Minute, func() bool { return connected(w) })
		for _, a := range p[:2] {
			for _, b := range p[3:] {
				w.OneWay(a, b, true)
				w.OneWay(b, a, true)
			}
		}
		d := p[0].Add([]byte("from one side"), can.Metadata{MIMEType: "image/png"})
		w.Eventually("the other side has it", 10*time.Minute, func() bool {
			_, ok := p[4].Find(d)
			return ok
		})
		peers, err := p[0].Node().Peers()
		require.NoError(w.T(), err)
		for _, o := range peers {
			require.NotContains(w.T(), []any{p[3].ID(), p[4].ID()}, o.ID)
		}
		w.Settle()
		w.Check()
	})
}

// An edit is lost to no partition: each side edits another asset, and one that both
// edit ends the same on all.
func TestEditsOnBothSides(t *testing.T) {
	simulate.Run(t, simulate.Options{Seeds: 3, Peers: 4, Faults: []simulate.Fault{simulate.Split}}, func(w *simulate.World) {
		p := w.Peers()
		var ds []can.Digest
		for i := range 3 {
			ds = append(ds, p[0].Add(fmt.Appendf(nil, "asset %d", i), can.Metadata{MIMEType: "image/png", Description: "as added"}))
		}
		w.Settle()
		w.Eventually("all are connected", 10*time.Minute, func() bool { return connected(w) })
		w.Partition(p[:2], p[2:])
		left, right, both := "left", "right", "both"
		p[0].Edit(ds[0], can.Update{Description: &left})
		p[3].Edit(ds[1], can.Update{Description: &right})
		p[1].Edit(ds[2], can.Update{Description: &left})
		w.Sleep(6 * time.Minute) // the first edit is found by a full listing, if need be
		p[2].Edit(ds[2], can.Update{Description: &both})
		w.Sleep(6 * time.Minute)
		w.Settle()
		w.Check()
		for _, o := range p {
			for i, want := range []string{left, right, both} {
				a, ok := o.Find(ds[i])
				require.True(w.T(), ok)
				require.Equal(w.T(), want, a.Description, "asset %d on peer %d", i, o.Index())
			}
		}
	})
}
