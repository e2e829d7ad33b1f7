package transfer

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/session"
	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/transport"
)

// stream opens a bare stream from b to a.
func bare(t testing.TB, a, b *node, lib *library.Library) transport.Stream {
	st, err := b.m.Open(t.Context(), lib.ID(), a.tr.ID(), session.ProtoBlob, transport.OpenOptions{Bulk: true})
	require.NoError(t, err)
	t.Cleanup(func() { _ = st.Reset() })
	return st
}

func TestMalformedRequestsEndTheStream(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b, lib := pair(t, nodeOptions{}, nodeOptions{})
		good := runReq{seq: 1, size: 1 << 20, run: blob.Run{First: 0, Count: 1}}.frame()
		long := runReq{seq: 1, size: 1 << 40, run: blob.Run{First: 0, Count: maxRunGroups + 1}}.frame()
		outside := runReq{seq: 1, size: 1 << 20, run: blob.Run{First: 64, Count: 1}}.frame()
		for name, frame := range map[string][]byte{
			"length 0":         {0, 0, 0, 0},
			"length max+1":     binary.BigEndian.AppendUint32(nil, maxRequest+2),
			"length 2^31":      {0x80, 0, 0, 0, 1},
			"length 2^32-1":    {0xff, 0xff, 0xff, 0xff, 1},
			"unknown type":     appendHead(nil, 9, 0),
			"answer":           endFrame(1, statusNotFound),
			"no wants":         appendHead(nil, frameWants, 0),
			"half a want":      append(appendHead(nil, frameWants, 40), make([]byte, 40)...),
			"short run":        append(appendHead(nil, frameRun, runSize-1), good[frameHead:frameHead+runSize-1]...),
			"long run":         long,
			"run outside":      outside,
			"trailing byte":    append(appendHead(nil, frameRun, runSize+1), append(good[frameHead:], 0)...),
			"cancel of 5 byte": append(appendHead(nil, frameCancel, 5), 0, 0, 0, 0, 1),
		} {
			st := bare(t, a, b, lib)
			if len(frame) == 4 {
				frame = append(frame, 1)
			}
			_, err := st.Write(frame)
			require.NoError(t, err)
			_, err = st.Read(make([]byte, 1))
			require.ErrorIs(t, err, transport.ErrReset, name)
		}
	})
}

// TestTrickleIsCutOff is D-02.
func TestTrickleIsCutOff(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b, lib := pair(t, nodeOptions{}, nodeOptions{})
		st := bare(t, a, b, lib)
		begun := time.Now()
		frame := runReq{seq: 1, size: 1 << 20, run: blob.Run{Count: 1}}.frame()
		for i := 0; ; i++ {
			if _, err := st.Write(frame[i : i+1]); err != nil {
				break
			}
			<-time.After(5 * time.Second)
		}
		require.LessOrEqual(t, time.Since(begun), 36*time.Second)
	})
}

// TestPeerThatDoesNotReadIsCutOff: what was read for it is let go in time.
func TestPeerThatDoesNotReadIsCutOff(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b, lib := pair(t, nodeOptions{}, nodeOptions{})
		w := a.announce(lib, a.hold(random(t, 1, 8<<20)))
		st := bare(t, a, b, lib)
		for i := range 8 {
			_, err := st.Write(runReq{uint32(i), w.Record, w.Root, w.Size, blob.Run{First: uint64(i) * 64, Count: 64}}.frame())
			require.NoError(t, err)
		}
		synctest.Wait()
		a.server.buffers.mu.Lock()
		held := a.server.buffers.held[b.tr.ID()]
		a.server.buffers.mu.Unlock()
		require.Positive(t, held)
		require.LessOrEqual(t, held, 16)
		<-time.After(messageTime + time.Second)
		synctest.Wait()
		a.server.mu.Lock()
		defer a.server.mu.Unlock()
		require.Empty(t, a.server.peers)
		require.Empty(t, a.server.buffers.held)
	})
}

// TestFloodIsBounded is D-06: far more requests than may wait are neither kept nor
// answered with more than was asked for, and another peer is served meanwhile.
func TestFloodIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const queue = 64
		g := newGroup(t, 1, nodeOptions{})
		a := g.holders[0]
		a.server.cfg.PeerQueue = queue
		other := memoryNode(t, g.net, nodeOptions{})
		other.join(a, g.libs[0])
		w := g.hold(t, random(t, 1, 4000))
		st := bare(t, a, g.b, g.lib)
		stop := context.AfterFunc(t.Context(), func() { _ = st.Reset() })
		defer stop()
		sent := make(chan int)
		go func() {
			n := 0
			for {
				frame := appendHead(nil, frameWants, 32*wantSize)
				for i := range 32 {
					frame = appendWant(frame, wantReq{uint32(i), w.Record})
				}
				_ = st.SetWriteDeadline(time.Now().Add(5 * time.Second))
				if _, err := st.Write(frame); err != nil {
					sent <- n
					return
				}
				n += 32
			}
		}()
		synctest.Wait() // the answers are not read, so the flood has come to a halt
		a.server.mu.Lock()
		queued := a.server.peers[g.b.tr.ID()].queued
		a.server.mu.Unlock()
		require.LessOrEqual(t, queued, queue)
		require.Positive(t, queued)
		data, err := other.client.Small(t.Context(), w)
		require.NoError(t, err)
		require.Len(t, data, 4000)
		require.Greater(t, <-sent, queue)
		require.NoError(t, st.Reset())
		synctest.Wait()
		a.server.mu.Lock()
		defer a.server.mu.Unlock()
		require.NotContains(t, a.server.peers, g.b.tr.ID())
	})
}

func TestTooManyStreamsAreRefused(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b, lib := pair(t, nodeOptions{server: func(c *ServerConfig) { c.PeerStreams = 4 }}, nodeOptions{})
		refused := 0
		for range 10 {
			st := bare(t, a, b, lib)
			synctest.Wait()
			_ = st.SetReadDeadline(time.Now().Add(time.Second))
			if _, err := st.Read(make([]byte, 1)); !isTimeout(err) {
				refused++
			}
		}
		require.Equal(t, 6, refused)
	})
}

// TestCancelledRunsAreAnsweredOnce: each request ends in exactly one way, however
// cancels and answers cross.
func TestCancelledRunsAreAnsweredOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b, lib := pair(t, nodeOptions{}, nodeOptions{})
		w := a.announce(lib, a.hold(random(t, 1, 4<<20)))
		st := bare(t, a, b, lib)
		const runs = 50
		for i := range runs {
			_, err := st.Write(runReq{uint32(i), w.Record, w.Root, w.Size, blob.Run{First: uint64(i), Count: 32}}.frame())
			require.NoError(t, err)
			if i%2 == 1 {
				_, err = st.Write(seqFrame(frameCancel, uint32(i)))
				require.NoError(t, err)
			}
			_, err = st.Write(seqFrame(frameCancel, uint32(i+1000))) // of nothing
			require.NoError(t, err)
		}
		f := newFramer(st, maxAnswer)
		got := make(map[uint32]int)
		ends, cancelled := 0, 0
		for ends < runs {
			typ, body, err := f.next(func(_ uint8, n int) []byte { return make([]byte, n) })
			require.NoError(t, err)
			seq := binary.BigEndian.Uint32(body)
			switch typ {
			case frameData:
				got[seq] += len(body) - 4
				if got[seq] == 32*blob.GroupSize {
					ends++
				}
			case frameEnd:
				require.Equal(t, byte(statusCancelled), body[4])
				ends++
				cancelled++
			default:
				require.EqualValues(t, frameProof, typ)
			}
		}
		require.Positive(t, cancelled)
		require.Less(t, cancelled, runs/2+1)
		synctest.Wait()
		a.server.mu.Lock()
		require.Zero(t, a.server.peers[b.tr.ID()].queued)
		a.server.mu.Unlock()
		_ = st.SetReadDeadline(time.Now().Add(time.Second))
		require.True(t, isTimeout(f.await()))
	})
}

// TestHostileServers: whatever a server answers, the client drops it and goes on.
func TestHostileServers(t *testing.T) {
	data := make([]byte, 1<<20)
	for name, answer := range map[string]func(q runReq) []byte{
		"garbage":           func(runReq) []byte { return []byte("HTTP/1.1 400 Bad Request\r\n\r\n") },
		"length 2^31":       func(runReq) []byte { return []byte{0x80, 0, 0, 0, frameData} },
		"data unproven":     func(q runReq) []byte { return dataFrame(q.seq, data[:blob.GroupSize]) },
		"answer to nothing": func(runReq) []byte { return dataFrame(77, data[:blob.GroupSize]) },
		"empty proof":       func(q runReq) []byte { return wire.AppendU32(appendHead(nil, frameProof, 4), q.seq) },
		"wrong type":        func(q runReq) []byte { return seqFrame(frameCancel, q.seq) },
		"bad status":        func(q runReq) []byte { return endFrame(q.seq, 200) },
		"end without fault": func(q runReq) []byte { return endFrame(q.seq, statusOK) },
		"end":               func(q runReq) []byte { return endFrame(q.seq, statusUnavailable) },
		"endless beats":     func(q runReq) []byte { return seqFrame(frameWorking, q.seq) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				a, b, lib := pair(t, nodeOptions{}, nodeOptions{})
				w := a.announce(lib, a.hold(data))
				asked := 0
				a.m.Serve(session.ProtoBlob, func(sv session.Served) {
					defer func() { _ = sv.Stream.Reset() }()
					f := newFramer(sv.Stream, maxRequest)
					for {
						typ, body, err := f.next(func(_ uint8, n int) []byte { return make([]byte, n) })
						if err != nil {
							return
						}
						if typ != frameRun {
							continue
						}
						q, err := decodeRun(body)
						if err != nil {
							return
						}
						asked++
						for {
							if _, err := sv.Stream.Write(answer(q)); err != nil || name != "endless beats" {
								break
							}
							select {
							case <-time.After(3 * time.Second):
							case <-sv.Context.Done():
								return
							}
						}
					}
				})
				begun := time.Now()
				_, err := b.client.Large(t.Context(), w, nil)
				require.ErrorIs(t, err, ErrNoPeer)
				require.LessOrEqual(t, time.Since(begun), 10*time.Minute)
				require.Positive(t, asked)
			})
		})
	}
}

func dataFrame(seq uint32, b []byte) []byte {
	return append(wire.AppendU32(appendHead(nil, frameData, 4+len(b)), seq), b...)
}

// TestServiceThatHangs: a server whose service does not answer says so, or costs the
// client the time of a stall, and the server nothing that outlives the stream.
func TestServiceThatHangs(t *testing.T) {
	for _, lacks := range []cantest.Features{0, cantest.FeatureRange} {
		for _, kind := range []cantest.ActionKind{cantest.ActHangBefore, cantest.ActHangMid} {
			inBubble(t, func(t *testing.T) {
				a, b, lib := pair(t, nodeOptions{can: cantest.Options{Lacks: lacks}}, nodeOptions{})
				f := a.can.Inject(cantest.Fault{Route: cantest.RouteAsset, Action: cantest.Action{Kind: kind}})
				for _, size := range []int{1000, 1 << 20} {
					w := a.announce(lib, a.hold(random(t, 3, size)))
					_, err := b.client.Large(t.Context(), w, nil)
					require.ErrorIs(t, err, ErrNoPeer)
					require.True(t, errors.Is(err, ErrUnavailable) || size > SmallLimit && errors.Is(err, ErrStalled), err)
				}
				require.Positive(t, f.Fired())
				f.Remove()
				w := a.announce(lib, a.hold(random(t, 3, 1<<20)))
				c, err := b.client.Large(t.Context(), w, nil)
				require.NoError(t, err)
				require.NoError(t, c.Discard())
			})
		}
	}
}

func FuzzDecoders(f *testing.F) {
	f.Add(appendWant(nil, wantReq{1, record.ID{2}}))
	f.Add(runReq{1, record.ID{2}, [32]byte{3}, 1 << 20, blob.Run{First: 1, Count: 2}}.frame()[frameHead:])
	f.Add(endFrame(3, statusConflict)[frameHead:])
	f.Add(seqFrame(frameCancel, 4)[frameHead:])
	f.Add(appendAnswer(appendAnswer(nil, answer{seq: 1, data: []byte("abc")}), answer{seq: 2, status: statusNotFound}))
	f.Add([]byte{0, 0, 0, 1, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		if qs, err := decodeWants(b); err == nil {
			var out []byte
			for _, q := range qs {
				out = appendWant(out, q)
			}
			require.Equal(t, b, out)
		}
		if q, err := decodeRun(b); err == nil {
			require.Equal(t, b, q.frame()[frameHead:])
		}
		if seq, st, err := decodeEnd(b); err == nil {
			require.Equal(t, b, endFrame(seq, st)[frameHead:])
		}
		if seq, err := decodeSeq(b); err == nil {
			require.Equal(t, b, seqFrame(frameCancel, seq)[frameHead:])
		}
		if all, err := decodeSmalls(b); err == nil {
			var out []byte
			for _, a := range all {
				out = appendAnswer(out, a)
			}
			require.Equal(t, b, out)
		}
	})
}

// FuzzFramer feeds arbitrary bytes as a stream: what is read back encodes to a
// prefix of them, and a length out of bounds takes no memory.
func FuzzFramer(f *testing.F) {
	f.Add(seqFrame(frameCancel, 4))
	f.Add([]byte{0, 0, 0, 0, 1})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		fr := newFramer(&literal{b: b}, 1000)
		var out []byte
		for {
			typ, body, err := fr.next(func(_ uint8, n int) []byte {
				require.LessOrEqual(t, n, 1000)
				return make([]byte, n)
			})
			if err != nil {
				break
			}
			out = append(appendHead(out, typ, len(body)), body...)
		}
		require.LessOrEqual(t, len(out), len(b))
		require.Equal(t, string(b[:len(out)]), string(out))
	})
}

// literal is a stream that yields given bytes.
type literal struct {
	transport.Stream
	b []byte
}

func (l *literal) SetReadDeadline(time.Time) error { return nil }
func (l *literal) Read(p []byte) (int, error) {
	if len(l.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, l.b)
	l.b = l.b[n:]
	return n, nil
}
