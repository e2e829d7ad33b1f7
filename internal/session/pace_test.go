package session_test

import (
	"crypto/sha256"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/reconcile"
	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
)

// couple returns two linked members, first the opener of the link, and what each of
// them writes on it.
func couple(t testing.TB, net *memory.Network) (opener, other *node, open, answer func([]byte)) {
	a, b := newNode(t, net, 0), newNode(t, net, 0)
	a.create("photos")
	b.join(a.invite(capability.InviteOptions{RedeemBy: time.Now().Add(time.Hour)}))
	await(t, time.Minute, "b joined", func() bool { return b.links() == 1 && a.links() == 1 })
	time.Sleep(10 * time.Second)
	synctest.Wait()
	// Of two that greeted each other at once, one stream is in force; the others are
	// reset.
	on := func(sts []transport.Stream) func([]byte) {
		for _, st := range sts {
			if _, err := st.Write(wire.AppendFrame(nil, 200, nil)); err == nil {
				return func(frame []byte) { _, _ = st.Write(frame) }
			}
		}
		return nil
	}
	if open := on(b.sent); open != nil {
		return b, a, open, on(a.got)
	}
	return a, b, on(a.sent), on(b.got)
}

func TestWhoAsksForRoundsInARowIsHeldBackThenBlamed(t *testing.T) {
	resync := wire.AppendFrame(nil, 4, nil)
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		opener, other, _, answer := couple(t, net)
		defer closeAll(opener, other)
		before := opener.rounds()
		for range 20 { // 20 in 10 seconds
			answer(resync)
			time.Sleep(500 * time.Millisecond)
			synctest.Wait()
		}
		n := opener.rounds() - before
		require.GreaterOrEqual(t, n, 4, "it is heard")
		require.LessOrEqual(t, n, 6, "every 2 seconds")
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 1, opener.links())
		for range 40 {
			answer(resync)
		}
		synctest.Wait()
		require.Zero(t, opener.links(), "blamed")
		time.Sleep(9 * time.Minute)
		synctest.Wait()
		require.Zero(t, opener.links(), "and left alone")
	})
}

func TestWhoFloodsIsBlamed(t *testing.T) {
	enc, err := filter.View{}.Encode()
	require.NoError(t, err)
	whole := sha256.Sum256(enc)
	for name, frame := range map[string]func(*node, int) []byte{
		"views": func(_ *node, i int) []byte {
			v, err := filter.View{{Application: string(rune('a' + i%26))}}.Encode()
			require.NoError(t, err)
			return wire.AppendFrame(nil, 7, v)
		},
		"rounds": func(n *node, i int) []byte {
			snap, err := n.lib.Snapshot(t.Context(), true, nil)
			require.NoError(t, err)
			_, hello, err := reconcile.NewInitiator(snap, reconcile.Config{})
			require.NoError(t, err)
			body := wire.AppendU32([]byte{1}, uint32(1000+i))
			return wire.AppendFrame(nil, 1, slices.Concat(body, whole[:8], hello))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := memory.NewNetwork(memory.Options{})
				opener, other, open, _ := couple(t, net)
				defer closeAll(opener, other)
				for i := range 10 {
					open(frame(opener, i))
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				require.Equal(t, 1, other.links(), "a few are fine")
				for i := range 200 {
					open(frame(opener, 10+i))
				}
				synctest.Wait()
				require.Zero(t, other.links(), "blamed")
				time.Sleep(9 * time.Minute)
				synctest.Wait()
				require.Zero(t, other.links(), "and left alone")
			})
		})
	}
}

// A network that breaks every link soon after it stands must not make honest peers
// look like such who flood.
func TestWhoseLinksBreakIsNotBlamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		opener, other, _, _ := couple(t, net)
		defer closeAll(opener, other)
		for range 40 {
			before := opener.rounds()
			net.Disconnect(opener.tr.ID(), other.tr.ID())
			time.Sleep(time.Second)
			await(t, 10*time.Second, "met again", func() bool {
				return opener.links() == 1 && other.links() == 1 && opener.rounds() > before
			})
		}
	})
}
