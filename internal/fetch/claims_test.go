package fetch

import (
	"crypto/sha256"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
)

// claim announces a content that nobody has, of a size that its author makes up.
func (s *shared) claim(n int, size uint64) can.Digest {
	_, body := bodyOf(small(n), n)
	body.Size = size
	d := can.Digest(sha256.Sum256(fmt.Appendf(nil, "claim %d", n)))
	s.edit(d, body)
	return d
}

// hundreds are contents of 100 bytes.
func hundreds(n int) [][]byte {
	b := make([][]byte, n)
	for i := range b {
		b[i] = make([]byte, 100)
		copy(b[i], small(i))
	}
	return b
}

func TestClaimedSizesDoNotLiftAQuota(t *testing.T) {
	for name, sizes := range map[string][]uint64{
		"largest":       {math.MaxInt64},
		"sum is less":   {1 << 62, 1 << 62, 1 << 62},
		"sum is zero":   {1 << 62, 1 << 62, 1 << 62, 1 << 62},
		"sum is beyond": {math.MaxInt64, math.MaxInt64, math.MaxInt64},
	} {
		t.Run(name, func(t *testing.T) {
			world(t, cantest.Options{}, control.DeleteKeep, func(t *testing.T, n *node, s *shared) {
				n.f.SetQuota(n.lib.ID(), 1000)
				b := hundreds(30)
				s.say(n, record.Announce, b[:5]...)
				s.pass(n.lib)
				until(t, "the first fit", time.Minute, func() bool { return n.svc.Len() == 5 })
				for i, size := range sizes {
					s.claim(i, size)
				}
				s.say(n, record.Announce, b[5:]...)
				s.pass(n.lib)
				wait(t.Context(), time.Hour)
				require.Equal(t, 10, n.svc.Len())
				require.EqualValues(t, 1000, n.heldBytes())
				require.Positive(t, n.lib.Counts().LiveBytes)
				p, err := n.f.Progress(t.Context(), n.lib.ID())
				require.NoError(t, err)
				require.Positive(t, p.Missing)
			})
		})
	}
}

func TestAnEditOfTheSizeDoesNotLiftAQuota(t *testing.T) {
	member := func(size uint64) replica.Entry {
		return replica.Entry{Member: true, Body: record.AssetBody{Size: size}}
	}
	for _, c := range []struct{ before, after int64 }{
		{5000, 4500}, {4500, 5000}, {5000, 0}, {5000, -1}, {-1, 5000},
	} {
		b := budget{counted: true, missing: 5000}
		var ch replica.Change
		if c.before >= 0 {
			ch.Before = member(uint64(c.before))
		}
		if c.after >= 0 {
			ch.Entry = member(uint64(c.after))
		}
		b.note(replica.Applied{Changes: []replica.Change{ch}})
		// Live is what the change leaves of it; with 100 bytes held before, no fewer are.
		live := int64(5100) - max(0, c.before) + max(0, c.after)
		require.GreaterOrEqual(t, live-b.missing, int64(100), "%+v", c)
	}
}

func TestAStageOfAnotherSizeIsNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, s := newNode(t, cantest.Options{}), newShared(t, control.DeleteKeep)
		n.with = func(c *Config) {
			c.Space = func() (uint64, error) { return 2 << 20, nil }
			c.Reserve = 1 << 20
		}
		n.start(s)
		hold := make(chan struct{})
		n.src.set(func() { n.src.hold = hold })
		s.say(n, record.Announce, large(1))
		s.pass(n.lib)
		synctest.Wait()
		d, body := bodyOf(large(1), 0)
		require.Equal(t, replica.Partial, n.work(d).State)
		n.lib.SetMode(library.ModePaused)
		n.f.Kick(n.lib.ID())
		synctest.Wait()
		begun := n.src.times(d)
		body.Size = 1 << 60
		s.edit(d, body)
		s.pass(n.lib)
		n.lib.SetMode(library.ModeSync)
		n.f.Kick(n.lib.ID())
		wait(t.Context(), time.Hour)
		require.Equal(t, begun, n.src.times(d))
		require.Equal(t, replica.NoSpace, n.work(d).Cause)
		n.stop()
		require.NoError(t, n.svc.Close())
		s.close()
	})
}

func (s *source) times(d can.Digest) (n int) {
	s.set(func() { n = s.got[d] })
	return n
}
