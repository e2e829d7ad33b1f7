package session

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/transport"
)

// What one peer tells of another must not drive out what is known to be good.
func TestHearsayDoesNotDriveOutWhatIsKnown(t *testing.T) {
	b := newBook()
	id := transport.PeerID{1}
	many := func(prefix string, n int) (out []string) {
		for i := range n {
			out = append(out, fmt.Sprintf("%s%d", prefix, i))
		}
		return out
	}
	require.True(t, b.learn(transport.PeerInfo{ID: id, Addrs: many("good", 3)}, false))
	for range 3 {
		b.learn(transport.PeerInfo{ID: id, Addrs: many("bad", maxAddrs)}, true)
	}
	got := b.get(id).Addrs
	require.Equal(t, many("good", 3), got[:3])
	require.LessOrEqual(t, len(got), maxAddrs/2)
	require.False(t, b.learn(transport.PeerInfo{ID: id, Addrs: many("worse", maxAddrs)}, true))
	require.True(t, b.learn(transport.PeerInfo{ID: id, Addrs: many("new", maxAddrs)}, false))
	require.Equal(t, many("new", maxAddrs), b.get(id).Addrs)
}
