package transfer

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/session"
	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/transport"
)

// TestAuthorIsBlamedForContradictions is S-10: records whose root and SHA-256 do not
// belong together.
func TestAuthorIsBlamedForContradictions(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		dir, stage := stages(t)
		var received atomic.Int64
		g := newGroup(t, 5, nodeOptions{client: func(c *ClientConfig) {
			stage(c)
			c.OnReceived = func(_ [32]byte, _ transport.PeerID, n int) { received.Add(int64(n)) }
		}})
		for _, size := range []int{10_000, 2 << 20} {
			received.Store(0)
			data := random(t, uint64(size), size)
			sum := blob.Sum(data)
			sum.Digest = can.Digest{1, byte(size)} // not that of the data
			var w Want
			for i, h := range g.holders {
				h.know(h.can.Add(data, can.Metadata{}), sum)
				h.trusting()
				if i == 0 {
					w = h.announce(g.libs[0], sum)
				}
			}
			for _, l := range g.libs {
				knows(t, l, w)
			}
			var err error
			if size <= SmallLimit {
				_, err = g.b.client.Small(t.Context(), w)
			} else {
				_, err = g.b.client.Large(t.Context(), w, nil)
			}
			require.ErrorIs(t, err, ErrBadContent)
			require.LessOrEqual(t, received.Load(), int64(size)*105/100+200) // once
		}
		require.Zero(t, g.b.liars.Load())
		require.Zero(t, leftovers(t, dir))
	})
}

// trusting makes a node serve what it was told to hold, without checking SHA-256,
// as accomplices of a lying author would.
func (n *node) trusting() {
	n.m.Serve(session.ProtoBlob, func(sv session.Served) {
		f := newFramer(sv.Stream, maxRequest)
		defer func() { _ = sv.Stream.Reset() }()
		for {
			typ, body, err := f.next(func(_ uint8, n int) []byte { return make([]byte, n) })
			if err != nil {
				return
			}
			var out []byte
			switch typ {
			case frameWants:
				qs, err := decodeWants(body)
				if err != nil {
					return
				}
				for _, q := range qs {
					it, _ := n.server.resolve(context.Background(), sv.Library, q.record)
					data, _ := n.can.Content(it.Handle)
					a := answer{seq: q.seq, data: data}
					out = append(appendHead(out, frameSmalls, answerSize(a)), appendAnswer(nil, a)...)
				}
			case frameRun:
				q, err := decodeRun(body)
				if err != nil {
					return
				}
				it, _ := n.server.resolve(context.Background(), sv.Library, q.record)
				data, _ := n.can.Content(it.Handle)
				ob := blob.Sum(data).Outboard
				tree, _ := blob.NewTreeBytes(q.root, q.size, ob)
				proof, _ := tree.AppendProof(nil, q.run)
				out = wire.AppendU32(appendHead(out, frameProof, 4+len(proof)), q.seq)
				out = append(out, proof...)
				for at := q.run.First; at < q.run.End(); at++ {
					one := blob.Run{First: at, Count: 1}
					part := data[one.Offset():][:one.Len(q.size)]
					out = wire.AppendU32(appendHead(out, frameData, 4+len(part)), q.seq)
					out = append(out, part...)
				}
			}
			if writeAll(sv.Stream, out) != nil {
				return
			}
		}
	})
}

// TestTrueContentUnderALyingRecordIsNotTheServersFault: the record's root or size is
// a lie, and honest peers hold the content with its SHA-256.
func TestTrueContentUnderALyingRecordIsNotTheServersFault(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b, lib := pair(t, nodeOptions{}, nodeOptions{})
		sum := a.hold(random(t, 1, 1<<20))
		sum.Root[0] ^= 1
		_, err := b.client.Large(t.Context(), a.announce(lib, sum), nil)
		require.ErrorIs(t, err, ErrConflict)
		small := a.hold(random(t, 2, 1000))
		small.Size++
		_, err = b.client.Small(t.Context(), a.announce(lib, small))
		require.ErrorIs(t, err, ErrBadContent)
		large := a.hold(random(t, 3, 1<<20))
		large.Size = 1000
		_, err = b.client.Small(t.Context(), a.announce(lib, large))
		require.ErrorIs(t, err, ErrConflict)
		require.Zero(t, b.liars.Load())
		require.Zero(t, a.rotten.Load())
	})
}
