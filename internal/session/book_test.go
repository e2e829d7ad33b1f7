package session

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/kv"
	"github.com/cansync/cansync/internal/reconcile"
	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/store/memory"
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

// Who makes up peers on the local network drives out nobody that the node was told of.
func TestStrangersDoNotDriveOutMembers(t *testing.T) {
	b := newBook()
	id := func(kind byte, i int) transport.PeerID {
		return transport.PeerID{kind, byte(i), byte(i >> 8), byte(i >> 16)}
	}
	addrs := []string{"somewhere"}
	const members = 500
	for i := range members {
		b.learn(transport.PeerInfo{ID: id(1, i), Addrs: addrs}, i%2 == 0)
	}
	for i := range 2 * maxBook {
		b.meet(transport.PeerInfo{ID: id(2, i), Addrs: addrs})
		b.meet(transport.PeerInfo{ID: id(1, i%members), Addrs: []string{"elsewhere"}})
	}
	for i := range members {
		require.Equal(t, addrs[0], b.get(id(1, i)).Addrs[0])
	}
	require.LessOrEqual(t, len(b.addrs), members+maxMet)
	require.Len(t, b.met, maxMet)

	// One that is told of stays, whatever is met next; and the book has an end.
	var told transport.PeerID
	for told = range b.met {
		break
	}
	b.learn(transport.PeerInfo{ID: told, Addrs: addrs}, false)
	for i := range 2 * maxMet {
		b.meet(transport.PeerInfo{ID: id(3, i), Addrs: addrs})
	}
	require.NotEmpty(t, b.get(told).Addrs)
	for i := range maxBook + 100 {
		b.learn(transport.PeerInfo{ID: id(4, i), Addrs: addrs}, false)
	}
	require.LessOrEqual(t, len(b.addrs), maxBook)
	require.Empty(t, b.met)
}

// Members that told many long addresses of others must not make the node send what
// breaks the protocol.
func TestAddressesFitAFrame(t *testing.T) {
	var peers []transport.PeerInfo
	for i := range 2 * maxAddrPeers {
		p := transport.PeerInfo{ID: transport.PeerID{byte(i)}}
		for k := range maxAddrs {
			p.Addrs = append(p.Addrs, strings.Repeat(string(rune('a'+k)), maxAddrLen+k%2))
		}
		peers = append(peers, p)
	}
	for n := 0; n < len(peers); n += 9 {
		frame := encodePeers(peers[:n])
		typ, body, err := wire.NewFrameReader(bytes.NewReader(frame), helloFrame).Read()
		require.NoError(t, err)
		require.EqualValues(t, frameAddrs, typ)
		got, err := decodePeers(body)
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(got), min(n, 31))
		for i := range got {
			require.Equal(t, peers[i].ID, got[i].ID)
			require.Len(t, got[i].Addrs, maxAddrs/2, "those that are too long are left out")
		}
	}
}

// Others may tell new addresses of a peer as often as they like; it is tried no more
// often for that than every half minute.
func TestHearsayDoesNotEndAllPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := outgoing(3)
		id := transport.PeerID{1}
		tries := 0
		for began := time.Now(); time.Since(began) < time.Hour; time.Sleep(time.Second) {
			m.hint(id)
			m.mu.Lock()
			due := m.dueLocked(id, nil) == 0
			m.mu.Unlock()
			if due {
				tries++
				m.begin(&want{id: id})
				m.hint(id)
				m.mu.Lock()
				one := m.tries[id]
				one.busy = false
				one.fail()
				if one.hinted {
					one.hasten()
				}
				m.mu.Unlock()
			}
		}
		t.Logf("%d attempts in an hour", tries)
		require.LessOrEqual(t, tries, 3600/30+10)
		require.GreaterOrEqual(t, tries, 3600/40, "it is not left alone either")
	})
}

func TestWhatWaitsForAPeerIsBounded(t *testing.T) {
	o := newOutbox()
	frame := make([]byte, 64<<10)
	n := 0
	for o.frame(frame) {
		n++
	}
	require.Equal(t, maxFrameSum/len(frame), n)
	o.urgent()
	require.True(t, o.frame(frame))

	require.True(t, o.surplus(order{ids: make([]reconcile.ID, maxOrderIDs+1)}), "one alone may have any number")
	require.False(t, o.surplus(order{ids: make([]reconcile.ID, 1)}))
	require.True(t, o.order(order{round: 1}), "what ends the round has room")
	_, ok := o.next()
	require.True(t, ok)
	_, ok = o.next()
	require.True(t, ok)
	for n = 0; o.surplus(order{ids: make([]reconcile.ID, 1<<16)}); n++ {
	}
	require.Equal(t, maxOrderIDs>>16, n)
	for n = len(o.orders); o.order(order{round: 1}); n++ {
	}
	require.Equal(t, 2*maxOrders, n)
}

// Finding what a peer lacks is faster than sending it. What has no room is left to the
// next round; the peer has done nothing wrong.
func TestMoreThanThePeerCanBeSentAtOnceIsFoundAgain(t *testing.T) {
	k := newKeeper(t)
	l := k.link(&written{})
	l.round = round{n: 1, moved: time.Now()}
	ids := make([]reconcile.ID, 2000)
	for range maxOrders + 10 {
		require.NoError(t, l.follow(t.Context(), reconcile.Step{Surplus: ids}))
	}
	require.NoError(t, l.follow(t.Context(), reconcile.Step{Surplus: ids, Done: true}))
	require.Len(t, l.out.orders, maxOrders+1)
	for w, ok := l.out.next(); ok; w, ok = l.out.next() {
		require.Empty(t, l.again, "not before all is sent")
		w.ids = nil // of records that nobody has
		require.NoError(t, l.serve(t.Context(), w))
	}
	require.Len(t, l.again, 1)
}

func TestTheAddressesKeptAreBounded(t *testing.T) {
	st := memory.New()
	for i := range maxBook + 1000 {
		id := sha256.Sum256(binary.BigEndian.AppendUint32(nil, uint32(i)))
		require.NoError(t, st.Put(t.Context(), bookKey(kv.Bin(id[:])), encodeAddrs([]string{"/a"})))
	}
	m := &Manager{cfg: Config{Store: st}, log: slog.New(slog.DiscardHandler), book: newBook()}
	m.loadBook(t.Context())
	require.Len(t, m.book.addrs, maxBook)
	n := 0
	for e, err := range kv.Scan(t.Context(), st, bookKey(), true) {
		require.NoError(t, err)
		id, err := kv.Last32(e.Key)
		require.NoError(t, err)
		require.NotEmpty(t, m.book.get(id).Addrs)
		n++
	}
	require.Equal(t, maxBook, n)
}
