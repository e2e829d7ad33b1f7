package transfer

import (
	"bytes"
	"errors"
	"math"
	mrand "math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/tier"
	"github.com/cansync/cansync/transport"
)

// TestForeignAndAbsentAreTheSame is S-08: everything that library M holds, asked for
// through library L.
func TestForeignAndAbsentAreTheSame(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b, l := pair(t, nodeOptions{}, nodeOptions{})
		for _, w := range secrets(t, a, 50) {
			w.Library = l.ID()
			var err error
			if w.Size <= SmallLimit {
				_, err = b.client.Small(t.Context(), w)
			} else {
				_, err = b.client.Large(t.Context(), w, nil)
			}
			requireOnly(t, err, ErrNotServed)
			// By the digest in place of the record's id.
			w.Record = [32]byte(w.Asset)
			_, err = b.client.Large(t.Context(), w, nil)
			requireOnly(t, err, ErrNotServed)
		}
		// Here and removed, here and not in the service, never heard of.
		sum := a.hold(random(t, 1000, 100))
		w := a.announce(l, sum)
		_, err := b.client.Small(t.Context(), w)
		require.NoError(t, err)
		items, err := a.inv.ByDigest(t.Context(), w.Asset)
		require.NoError(t, err)
		items[0].Flags |= inventory.Trashed
		require.NoError(t, a.inv.Put(t.Context(), items[0]))
		_, err = b.client.Small(t.Context(), w)
		requireOnly(t, err, ErrNotServed)
		items[0].Flags = 0
		require.NoError(t, a.inv.Put(t.Context(), items[0]))
		require.NoError(t, l.Say(t.Context(), l.Removal(w.Asset)))
		_, err = b.client.Small(t.Context(), w)
		requireOnly(t, err, ErrNotServed)
	})
}

func requireOnly(t *testing.T, err, kind error) {
	t.Helper()
	var fe *FetchError
	require.ErrorAs(t, err, &fe)
	require.ErrorIs(t, fe.Kind, kind)
	require.False(t, errors.Is(err, ErrNoPeer))
}

// secrets gives a node a library of its own with n contents, every fourth a large one.
func secrets(t testing.TB, a *node, n int) (ws []Want) {
	m := a.create("secret")
	for i := range n {
		size := 2000 + i
		if i%4 == 0 {
			size = 70_000 + i
		}
		ws = append(ws, a.announce(m, a.hold(random(t, uint64(i), size))))
	}
	return ws
}

// asker asks on a bare stream, one request at a time.
type asker struct {
	t     testing.TB
	st    transport.Stream
	f     *framer
	store []byte
}

func newAsker(t testing.TB, a, b *node, lib *library.Library) *asker {
	st := bare(t, a, b, lib)
	return &asker{t: t, st: st, f: newFramer(st, maxAnswer), store: make([]byte, maxAnswer)}
}

// ask returns the answer as it was on the wire.
func (k *asker) ask(request []byte) []byte {
	_, err := k.st.Write(request)
	require.NoError(k.t, err)
	typ, body, err := k.f.next(func(uint8, int) []byte { return k.store })
	require.NoError(k.t, err)
	return append(appendHead(nil, typ, len(body)), body...)
}

// smallRequest and largeRequest ask for a whole content, or for its first group.
func smallRequest(id record.ID) []byte {
	return appendWant(appendHead(nil, frameWants, wantSize), wantReq{7, id})
}

func largeRequest(id record.ID, w Want) []byte {
	return runReq{7, id, w.Root, w.Size, blob.Run{Count: 1}}.frame()
}

// TestForeignAndAbsentCostTheSame is S-08: what a node does for a record of another
// library, or for a content's digest, is what it does for an id that nobody has.
func TestForeignAndAbsentCostTheSame(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ops := new(operations)
		a, b, l := pair(t, nodeOptions{store: ops.around}, nodeOptions{})
		held := a.announce(l, a.hold(random(t, 5000, 3000)))
		ws := secrets(t, a, 200)
		k := newAsker(t, a, b, l)
		cost := func(request []byte) ([]byte, map[string]int) {
			synctest.Wait()
			ops.reset()
			calls, begun := a.can.Calls(), time.Now()
			answer := k.ask(request)
			synctest.Wait()
			done := ops.reset()
			for route, n := range a.can.Calls() {
				if n -= calls[route]; n > 0 {
					done["service "+string(route)] = n
				}
			}
			require.Zero(t, time.Since(begun), "nothing else went on")
			return answer, done
		}
		notFound := map[bool][]byte{
			false: smallAnswer(statusNotFound),
			true:  endFrame(7, statusNotFound),
		}
		asked := 0
		for i, w := range ws {
			absent := [32]byte(random(t, uint64(10_000+i), 32))
			for _, id := range [][32]byte{w.Record, w.Asset, w.Root} {
				for _, large := range []bool{false, true} {
					request := func(id [32]byte) []byte {
						if large {
							return largeRequest(id, w)
						}
						return smallRequest(id)
					}
					none, without := cost(request(absent))
					answer, with := cost(request(id))
					require.Equal(t, notFound[large], none)
					require.Equal(t, none, answer)
					require.Equal(t, without, with)
					require.Positive(t, with["get"])
					asked++
				}
			}
		}
		require.Equal(t, 6*len(ws), asked)
		// What is L's own costs more, so the counting sees the difference.
		_, without := cost(smallRequest(record.ID{1}))
		answer, with := cost(smallRequest(held.Record))
		require.Greater(t, len(answer), 3000)
		require.NotEqual(t, without, with)
		t.Logf("%d pairs of requests; each cost %v, one for a content of the library %v", asked, without, with)
	})
}

// TestForeignAndAbsentTakeTheSameTime is the rest of S-08: Welch's t-test over
// interleaved timings, to be judged on the nightly load only, where there are enough
// of them. The other load holds the answers against each other.
func TestForeignAndAbsentTakeTheSameTime(t *testing.T) {
	ids := tier.Of(100, 500)
	pairs := tier.Of(200, 10_000)
	a, b, l := pair(t, nodeOptions{}, nodeOptions{})
	ws := secrets(t, a, ids)
	absent := make([]record.ID, ids) // as many as foreign ones, each asked for as often
	theirs := make(map[record.ID]bool)
	for i := range absent {
		absent[i] = [32]byte(random(t, uint64(10_000+i), 32))
		theirs[ws[i].Record] = true
	}
	k := newAsker(t, a, b, l)
	notFound := smallAnswer(statusNotFound)
	wire := func(id record.ID) {
		if !bytes.Equal(notFound, k.ask(smallRequest(id))) {
			t.Error("another answer")
		}
	}
	within := func(id record.ID) {
		if _, st := a.server.resolve(t.Context(), l.ID(), id); st != statusNotFound {
			t.Error("found")
		}
	}
	leak := func(id record.ID) { // what the test must notice: one more look
		within(id)
		if theirs[id] {
			within(id)
		}
	}
	for name, ask := range map[string]func(record.ID){"on the wire": wire, "within the server": within} {
		least := math.Inf(1)
		for attempt := 0; attempt < 3 && least >= maxT; attempt++ {
			least = min(least, math.Abs(compare(ask, ws, absent, pairs)))
			t.Logf("%s: %d timings of each, |t| %.2f", name, pairs, least)
			if !tier.Nightly() {
				break
			}
		}
		if tier.Nightly() {
			require.Less(t, least, maxT, name)
		}
	}
	if tier.Nightly() {
		require.Greater(t, math.Abs(compare(leak, ws, absent, pairs)), maxT, "a leak shows")
	}
}

// maxT is how far from 0 Welch's t may be, as is usual where leaks are looked for.
const maxT = 4.5

func smallAnswer(s status) []byte {
	return appendAnswer(appendHead(nil, frameSmalls, 5), answer{seq: 7, status: s})
}

// compare asks for foreign and absent records in turn, in random order within each
// pair, and returns Welch's t without the slowest twentieth of both.
func compare(ask func(record.ID), ws []Want, absent []record.ID, pairs int) float64 {
	rng := mrand.New(mrand.NewPCG(1, 2))
	times := make([][2]float64, 0, pairs)
	timed := func(id record.ID) float64 {
		begun := time.Now()
		ask(id)
		return float64(time.Since(begun))
	}
	for i := range pairs + pairs/10 {
		n := rng.IntN(len(absent))
		var took [2]float64
		if rng.IntN(2) == 0 {
			took[0], took[1] = timed(ws[n].Record), timed(absent[n])
		} else {
			took[1], took[0] = timed(absent[n]), timed(ws[n].Record)
		}
		if i >= pairs/10 { // warm by now
			times = append(times, took)
		}
	}
	var sides [2][]float64
	for _, took := range times {
		sides[0] = append(sides[0], took[0])
		sides[1] = append(sides[1], took[1])
	}
	return welch(sides[0], sides[1])
}

// welch returns the t of B. L. Welch's test for samples of unequal variances
// (Biometrika 34, 1947), each without its largest twentieth.
func welch(x, y []float64) float64 {
	mx, vx := moments(x)
	my, vy := moments(y)
	if vx+vy == 0 {
		if mx == my {
			return 0
		}
		return math.Inf(1)
	}
	return (mx - my) / math.Sqrt(vx+vy)
}

// moments returns the mean of the sample and its variance, both of the trimmed one.
func moments(x []float64) (mean, variance float64) {
	x = slices.Sorted(slices.Values(x))
	x = x[:len(x)-len(x)/20]
	for _, v := range x {
		mean += v / float64(len(x))
	}
	for _, v := range x {
		variance += (v - mean) * (v - mean)
	}
	return mean, variance / float64(len(x)-1) / float64(len(x))
}

func TestWelch(t *testing.T) {
	rng := mrand.New(mrand.NewPCG(3, 4))
	sample := func(mean, spread float64) []float64 {
		s := make([]float64, 10_000)
		for i := range s {
			s[i] = mean + spread*rng.NormFloat64()
		}
		return s
	}
	require.Less(t, math.Abs(welch(sample(100, 10), sample(100, 10))), maxT)
	require.Less(t, welch(sample(100, 10), sample(102, 10)), -maxT)
	require.Greater(t, welch(sample(102, 10), sample(100, 10)), maxT)
	// 1 to 5 and 2, 4, …, 10: means 3 and 6, variances 2.5 and 10, of five each.
	require.InDelta(t, -3/math.Sqrt(0.5+2), welch([]float64{1, 2, 3, 4, 5}, []float64{2, 4, 6, 8, 10}), 1e-9)
	require.Zero(t, welch([]float64{1, 1}, []float64{1, 1}))
	require.True(t, math.IsInf(welch([]float64{1, 1}, []float64{2, 2}), 1))
}
