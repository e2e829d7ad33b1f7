package reconcile

import (
	"fmt"
	"testing"
)

const million = 1_000_000

func BenchmarkInsertRemove(b *testing.B) {
	ids := randomIDs(source(40), 4096)
	for _, prefix := range []int{1024, 4096, 16384} {
		b.Run(fmt.Sprintf("prefix=%d", prefix), func(b *testing.B) {
			s := NewSet(testKey, prefix)
			for i := 0; b.Loop(); i++ {
				if id := ids[i%len(ids)]; i/len(ids)%2 == 0 {
					s.Insert(id)
				} else {
					s.Remove(id)
				}
			}
		})
	}
}

func BenchmarkBuild(b *testing.B) {
	ids := randomIDs(source(41), million)
	for b.Loop() {
		if _, err := Build(testKey, 0, seq(ids)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSnapshotAfterChange(b *testing.B) {
	s := NewSet(testKey, 0)
	for b.Loop() {
		s.Insert(ID{})
		s.Snapshot()
	}
}

// BenchmarkDecode subtracts and peels d differences of a million, half on each side.
func BenchmarkDecode(b *testing.B) {
	src := source(42)
	base, err := Build(testKey, 32768, seq(randomIDs(src, million)))
	if err != nil {
		b.Fatal(err)
	}
	for _, d := range []int{0, 1, 10, 100, 1000, 10000} {
		b.Run(fmt.Sprintf("d=%d", d), func(b *testing.B) {
			x, y := differ(base, src, d)
			for b.Loop() {
				dec := newDecoder(base.h, 1<<30)
				n := 0
				for ok := false; !ok; {
					n = min(max(1, n+n/16, n+1), 32768)
					at := len(dec.cells)
					if dec.add(x.symbols[at:n], y.symbols[at:n]) != nil || len(dec.cells) == 32768 {
						b.Fatal("not decoded")
					}
					ok, _ = dec.done()
				}
				b.ReportMetric(float64(n), "symbols")
			}
		})
	}
}

// differ returns two copies of base that differ in d ids.
func differ(base *Set, src interface{ Read([]byte) (int, error) }, d int) (x, y *Set) {
	base.Snapshot()
	cx, cy := *base, *base
	var id ID
	for i := range d {
		_, _ = src.Read(id[:])
		if i%2 == 0 {
			cx.Insert(id)
		} else {
			cy.Insert(id)
		}
	}
	return &cx, &cy
}

// BenchmarkSession runs whole sessions over a million ids: both ends' time, bytes in
// both directions, bytes per difference and round trips.
func BenchmarkSession(b *testing.B) {
	src := source(43)
	base, err := Build(testKey, 0, seq(randomIDs(src, million)))
	if err != nil {
		b.Fatal(err)
	}
	for _, d := range []int{0, 1, 10, 100, 1000, 2000} {
		b.Run(fmt.Sprintf("d=%d", d), func(b *testing.B) {
			x, y := differ(base, src, d)
			sx, sy := x.Snapshot(), y.Snapshot()
			var bytes, rounds, scans int
			for b.Loop() {
				sa, first, err := NewInitiator(sx, Config{})
				if err != nil {
					b.Fatal(err)
				}
				sb, err := NewResponder(sy, Config{})
				if err != nil {
					b.Fatal(err)
				}
				toB := [][]byte{first}
				for len(toB) > 0 {
					var toA [][]byte
					for _, m := range toB {
						step, err := sb.Handle(m)
						if err != nil || step.Scan != nil {
							b.Fatal("responder fails or scans", err)
						}
						toA = append(toA, step.Send...)
					}
					toB = nil
					for _, m := range toA {
						step, err := sa.Handle(m)
						if err != nil || step.Scan != nil {
							b.Fatal("initiator fails or scans", err)
						}
						toB = append(toB, step.Send...)
					}
				}
				st := sa.Stats()
				bytes, rounds, scans = st.BytesSent+st.BytesReceived, st.Rounds, st.Scans
			}
			b.ReportMetric(float64(bytes), "wire-B")
			b.ReportMetric(float64(bytes)/float64(max(d, 1)), "wire-B/diff")
			b.ReportMetric(float64(rounds), "rounds")
			b.ReportMetric(float64(scans), "scans")
		})
	}
}
