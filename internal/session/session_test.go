package session_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/kv"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAnEndedMembershipEndsItsLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a, b := newNode(t, net, 0), newNode(t, net, 0)
		a.create("photos")
		ends := time.Now().Add(time.Hour)
		b.join(a.invite(capability.InviteOptions{RedeemBy: ends, GrantExp: ends}))
		await(t, time.Minute, "b joined", func() bool { return b.links() == 1 && a.links() == 1 })
		time.Sleep(time.Until(ends.Add(capability.SessionTolerance - time.Second)))
		synctest.Wait()
		require.Equal(t, 1, a.links())
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Zero(t, a.links())
		for range 30 {
			time.Sleep(time.Minute)
			synctest.Wait()
			require.Zero(t, a.links(), "for good")
		}
		closeAll(a, b)
	})
}

func TestLibrariesOfASessionEndOnTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a, b := newNode(t, net, 0), newNode(t, net, 0)
		for range 2 {
			a.create("photos")
			b.join(a.invite(capability.InviteOptions{RedeemBy: time.Now().Add(time.Hour)}))
			await(t, time.Minute, "b joined", func() bool { return b.links() == 1 && a.links() == 1 })
		}
		// Meet anew, so that one session has both.
		net.Disconnect(a.tr.ID(), b.tr.ID())
		await(t, time.Minute, "both again", func() bool { return len(a.m.Shared(b.tr.ID())) == 2 && len(b.m.Shared(a.tr.ID())) == 2 })
		first := a.libs[0].ID()
		before := a.came()[b.tr.ID()]
		b.m.Remove(first)
		synctest.Wait()
		require.Equal(t, [][32]byte{a.libs[1].ID()}, a.m.Shared(b.tr.ID()))
		a.say("still")
		await(t, time.Second, "the other library goes on", func() bool { return b.live() == 1 })
		time.Sleep(time.Minute)
		require.Equal(t, before, a.came()[b.tr.ID()], "without a new session")
		b.m.Remove(b.libs[1].ID())
		synctest.Wait()
		require.Empty(t, a.m.Shared(b.tr.ID()))
		closeAll(a, b)
	})
}

func TestANewerSessionTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{Link: memory.Link{Latency: 50 * time.Millisecond}})
		a, b := newNode(t, net, 0), newNode(t, net, 0)
		a.create("photos")
		b.join(a.invite(capability.InviteOptions{RedeemBy: time.Now().Add(time.Hour)}))
		await(t, time.Minute, "b joined", func() bool { return b.links() == 1 && a.links() == 1 })
		// b forgets its side and comes back at once; a has yet to notice.
		b.m.Remove(b.lib.ID())
		b.m.Add(b.lib.Session(nil))
		await(t, 10*time.Minute, "one link on each side", func() bool { return b.links() == 1 && a.links() == 1 })
		a.say("hello")
		await(t, time.Minute, "which works", func() bool { return b.live() == 1 })
		closeAll(a, b)
	})
}

// Whoever removes a library closes it next: nothing may use it any more, not even what
// its session has left to do.
func TestRemoveWaitsForLinksThatHaveEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		opener, other, _, _ := couple(t, net)
		opener.say("here")
		time.Sleep(time.Second)
		var looking, removed atomic.Bool
		goOn := make(chan struct{})
		other.mu.Lock()
		other.onPresent = func() { looking.Store(true); <-goOn }
		other.mu.Unlock()
		asked := make(chan struct{})
		go func() {
			defer close(asked)
			_, _ = opener.m.Have(t.Context(), opener.lib.ID(), []can.Digest{digest("here")})
		}()
		synctest.Wait()
		require.True(t, looking.Load())
		other.m.Blame(opener.tr.ID()) // ends the session
		time.Sleep(time.Second)
		require.Zero(t, other.links())
		done := make(chan struct{})
		go func() {
			defer close(done)
			other.m.Remove(other.lib.ID())
			removed.Store(true)
		}()
		synctest.Wait()
		require.False(t, removed.Load(), "the link still looks up a content")
		close(goOn)
		<-done
		<-asked
		closeAll(opener, other)
	})
}

func TestAddressesGoWithTheLastLibraryTheyAreFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		a, b := newNode(t, net, 0), newNode(t, net, 0)
		kept := func() (n int) {
			for _, err := range kv.Scan(t.Context(), b.store, kv.Key("n", "b"), true) {
				require.NoError(t, err)
				n++
			}
			return n
		}
		for i, name := range []string{"one", "two"} {
			a.create(name)
			b.join(a.invite(capability.InviteOptions{RedeemBy: time.Now().Add(time.Hour)}))
			await(t, time.Minute, "b joined", func() bool { return len(b.m.Shared(a.tr.ID())) == i+1 })
		}
		libs := b.m.Shared(a.tr.ID())
		peers := []transport.PeerID{a.tr.ID(), b.tr.ID()}
		for i, left := range []int{1, 0} {
			require.NotEmpty(t, b.m.Known(a.tr.ID()).Addrs)
			require.Equal(t, 1, kept())
			b.m.Remove(libs[i])
			require.NoError(t, b.m.Forget(t.Context(), peers))
			require.Equal(t, left, kept())
			require.Len(t, b.m.Known(a.tr.ID()).Addrs, left*len(a.tr.Addrs()))
		}
		closeAll(a, b)
	})
}
