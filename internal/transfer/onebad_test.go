package transfer

import (
	"encoding/binary"
	"fmt"
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
	kept, rest        int // content before the bad group, and from it to the end of its frame
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
		l.lied, l.kept, l.rest = true, l.kept+l.group*blob.GroupSize, length-l.group*blob.GroupSize
	}
	l.pos += len(b)
	if l.left -= len(b); l.left == 0 && l.data && !l.lied {
		l.kept += length
	}
	return l.Stream.Write(b)
}

// TestALieSpoilsOneGroup is R-17: the groups that a liar sent before its first bad one
// are kept, in the same frame too, and it is dropped there.
func TestALieSpoilsOneGroup(t *testing.T) {
	const size = 4 << 20
	for _, onDisk := range []bool{true, false} {
		for _, group := range []int{0, 1, 7, 15} {
			t.Run(fmt.Sprint(onDisk, group), func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					y := new(tally)
					g := newGroup(t, 1, nodeOptions{client: func(c *ClientConfig) {
						if onDisk {
							_, stage := stages(t)
							stage(c)
						}
						y.count(c)
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
					lost := y.total() - int64(l.kept)

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
					require.EqualValues(t, l.kept, there, "all that came before the lie, and nothing from it on")
					t.Logf("kept %d KiB, lost %d KiB, of which %d KiB the rest of the bad frame", l.kept>>10, lost>>10, l.rest>>10)
					require.LessOrEqual(t, lost, int64(maxPiece+blob.GroupSize), "no frame behind the bad one is taken")
				})
			})
		}
	}
}
