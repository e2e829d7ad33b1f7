package transfer

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/transport"
)

// groupLiar flips a byte of one group in one frame of content, the first from the
// nth on that is long enough. The server writes each frame from its own start.
type groupLiar struct {
	transport.Stream
	nth, group int

	frames, pos, left int
	data, lied        bool
	wrote             int64
	before            int64 // what was written before the bad group, heads and proofs included
	kept              int   // content before it
}

func (l *groupLiar) Write(b []byte) (int, error) {
	const head = frameHead + 4
	if l.left == 0 {
		l.left, l.pos, l.data = 4+int(binary.BigEndian.Uint32(b)), 0, b[4] == frameData
		if l.data {
			l.frames++
		}
	}
	length := l.pos + l.left - head
	if at := head + l.group*blob.GroupSize; l.data && !l.lied && l.frames >= l.nth && length > l.group*blob.GroupSize &&
		l.pos <= at && at < l.pos+len(b) {
		b = append([]byte(nil), b...)
		b[at-l.pos] ^= 1
		l.lied, l.kept, l.before = true, l.kept+l.group*blob.GroupSize, l.wrote+int64(at-l.pos)
	}
	l.pos += len(b)
	l.wrote += int64(len(b))
	if l.left -= len(b); l.left == 0 && l.data && !l.lied {
		l.kept += length
	}
	return l.Stream.Write(b)
}

// reads counts every byte that a client takes off its streams.
type reads struct {
	Network
	bytes atomic.Int64
}

func (r *reads) Open(ctx context.Context, lib [32]byte, peer transport.PeerID, proto string, opts transport.OpenOptions) (transport.Stream, error) {
	st, err := r.Network.Open(ctx, lib, peer, proto, opts)
	if err != nil {
		return nil, err
	}
	return &readStream{st, r}, nil
}

type readStream struct {
	transport.Stream
	r *reads
}

func (s *readStream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	s.r.bytes.Add(int64(n))
	return n, err
}

// TestALieSpoilsOneGroup is R-17: the groups that a liar sent before its first bad one
// are kept, in the same frame too, and of what is behind it nothing is even read.
func TestALieSpoilsOneGroup(t *testing.T) {
	const size = 4 << 20
	for _, onDisk := range []bool{true, false} {
		for _, group := range []int{0, 1, 7, 15} {
			t.Run(fmt.Sprint(onDisk, group), func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					y, r := new(tally), new(reads)
					g := newGroup(t, 1, nodeOptions{client: func(c *ClientConfig) {
						if onDisk {
							_, stage := stages(t)
							stage(c)
						}
						y.count(c)
						r.Network, c.Network = c.Network, r
					}})
					y.g = g
					w := g.hold(t, random(t, 3, size))
					g.throttle()
					var l *groupLiar
					g.holders[0].servedBy(func(s transport.Stream) transport.Stream {
						l = &groupLiar{Stream: s, nth: 4, group: group}
						return l
					})
					_, err := g.b.client.Large(t.Context(), w, nil)
					require.ErrorIs(t, err, ErrWrong)
					synctest.Wait() // the server has written its last
					require.True(t, l.lied)
					require.Equal(t, []transport.PeerID{g.holders[0].tr.ID()}, g.b.blamed)
					wasted := r.bytes.Load() - l.before
					require.EqualValues(t, blob.GroupSize, wasted, "the bad group, and nothing behind it")
					require.EqualValues(t, l.kept+blob.GroupSize, y.total(), "what was in vain is counted too")

					g.holders[0].servedBy(func(s transport.Stream) transport.Stream { return s })
					there := int64(-1)
					c, err := g.b.client.Large(t.Context(), w, func(done, _ int64) {
						if there < 0 {
							there = done
						}
					})
					require.NoError(t, err)
					requireRight(t, w, c)
					require.NoError(t, c.Discard())
					require.EqualValues(t, l.kept, there, "all that came before the lie")
					t.Logf("kept %d KiB, wasted %d KiB", l.kept>>10, wasted>>10)
				})
			})
		}
	}
}

// proofLiar flips a byte in the nth proof.
type proofLiar struct {
	transport.Stream
	nth int

	left   int
	wrote  int64
	before int64 // what was written before the bad proof
	proof  int   // the length of its frame
}

func (l *proofLiar) Write(b []byte) (int, error) {
	if l.left == 0 {
		l.left = 4 + int(binary.BigEndian.Uint32(b))
		if b[4] == frameProof {
			if l.nth--; l.nth == 0 {
				l.before, l.proof = l.wrote, l.left
				b = append([]byte(nil), b...)
				b[len(b)-1] ^= 1
			}
		}
	}
	l.left -= len(b)
	l.wrote += int64(len(b))
	return l.Stream.Write(b)
}

// A node of the tree that is false is found before any content under it is read.
func TestAFalseProofCostsNoContent(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := new(reads)
		g := newGroup(t, 1, nodeOptions{client: func(c *ClientConfig) { r.Network, c.Network = c.Network, r }})
		w := g.hold(t, random(t, 3, 16<<20))
		g.throttle()
		var l *proofLiar
		g.holders[0].servedBy(func(s transport.Stream) transport.Stream {
			l = &proofLiar{Stream: s, nth: 3}
			return l
		})
		_, err := g.b.client.Large(t.Context(), w, nil)
		require.ErrorIs(t, err, ErrWrong)
		synctest.Wait()
		require.Positive(t, l.proof)
		require.EqualValues(t, 1, g.b.liars.Load())
		require.Equal(t, l.before+int64(l.proof), r.bytes.Load(), "the proof, and nothing behind it")
		longest := uint64(blob.ProofSize(blob.MaxSize, blob.Run{First: maxRunGroups / 2, Count: maxRunGroups}))
		require.LessOrEqual(t, longest, uint64(24<<10), "of any run of any content")
		t.Logf("wasted %d bytes, of any run of any content at most %d", l.proof, longest)
	})
}

// A stream that breaks in the middle of a frame costs the group that was under way.
func TestABreakCostsOneGroup(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		_, stage := stages(t)
		y := new(tally)
		g := newGroup(t, 1, nodeOptions{client: func(c *ClientConfig) { stage(c); y.count(c) }})
		y.g = g
		w := g.hold(t, random(t, 3, 4<<20))
		g.throttle()
		breaks := 0
		g.holders[0].servedBy(func(s transport.Stream) transport.Stream {
			return &cutter{Stream: s, left: 600 << 10, cut: &breaks}
		})
		for y.total() < 4<<20 {
			c, err := g.b.client.Large(t.Context(), w, nil)
			if err == nil {
				requireRight(t, w, c)
				require.NoError(t, c.Discard())
			}
		}
		require.Positive(t, breaks)
		require.EqualValues(t, 4<<20, y.total(), "no whole group came twice")
	})
}

// cutter ends its stream after a number of bytes, which still arrive.
type cutter struct {
	transport.Stream
	left int
	cut  *int
}

func (c *cutter) Write(b []byte) (int, error) {
	if len(b) < c.left {
		c.left -= len(b)
		return c.Stream.Write(b)
	}
	_, _ = c.Stream.Write(b[:c.left])
	_ = c.Stream.CloseWrite()
	*c.cut++
	return 0, transport.ErrReset
}
