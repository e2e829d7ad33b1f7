package memory_test

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
)

var ctx = context.Background()

// ask sends one byte to an echo and reads it back.
func ask(from *memory.Host, to transport.PeerInfo) error {
	s, err := from.Open(ctx, to, "/echo", transport.OpenOptions{})
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.Write([]byte("x")); err != nil {
		return err
	}
	_, err = io.ReadFull(s, make([]byte, 1))
	return err
}

func only(h *memory.Host) transport.PeerInfo { return transport.PeerInfo{ID: h.ID()} }

func hosts(n *memory.Network) (a, b, c *memory.Host) {
	a, b, c = n.Host(id(1)), n.Host(id(2)), n.Host(id(3))
	for _, h := range []*memory.Host{a, b, c} {
		serve(h)
	}
	return a, b, c
}

func closeAll(hs ...*memory.Host) {
	for _, h := range hs {
		_ = h.Close()
	}
}

func TestPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memory.NewNetwork(memory.Options{Directory: true})
		a, b, c := hosts(n)
		defer closeAll(a, b, c)
		s, err := a.Open(ctx, only(b), "/echo", transport.OpenOptions{})
		require.NoError(t, err)
		require.NoError(t, ask(a, only(c)))
		n.Partition([]transport.PeerID{id(1), id(3)}, []transport.PeerID{id(2)})
		_, err = s.Read(make([]byte, 1))
		require.ErrorIs(t, err, transport.ErrReset)
		require.ErrorIs(t, ask(a, only(b)), transport.ErrUnreachable)
		require.NoError(t, ask(a, only(c)))
		n.Heal()
		require.NoError(t, ask(a, only(b)))
		n.SetLink(id(1), id(2), memory.Link{Down: true})
		require.ErrorIs(t, ask(b, only(a)), transport.ErrUnreachable)
		require.NoError(t, ask(c, only(b)))
		n.SetLink(id(2), id(1), memory.Link{})
		require.NoError(t, ask(b, only(a)))
		n.Disconnect(id(1), id(2))
		require.Len(t, b.Peers(), 1)
	})
}

func TestAddressesMustBeKnown(t *testing.T) {
	n := memory.NewNetwork(memory.Options{})
	a, b, c := hosts(n)
	defer closeAll(a, b, c)
	require.ErrorIs(t, ask(b, only(a)), transport.ErrUnreachable)
	require.NoError(t, ask(b, info(a)))
	require.NoError(t, ask(c, info(b)))
	require.ErrorIs(t, ask(c, only(a)), transport.ErrUnreachable, "only b knows a")
	require.NoError(t, ask(a, only(b)), "who was dialled knows the dialler")

	ev, stop := a.Events()
	defer stop()
	old := info(a)
	n.Move(id(1))
	require.Equal(t, transport.Disconnected, (<-ev).Kind)
	require.Equal(t, transport.Addresses, (<-ev).Kind)
	require.NotEqual(t, old.Addrs, a.Addrs())
	require.ErrorIs(t, ask(c, old), transport.ErrUnreachable)
	require.NoError(t, ask(c, info(a)))
}

// TestTraffic checks the counters by which tests assert silence.
func TestTraffic(t *testing.T) {
	n := memory.NewNetwork(memory.Options{})
	a, b, c := hosts(n)
	defer closeAll(a, b, c)
	require.NoError(t, ask(a, info(b)))
	require.Equal(t, memory.Traffic{Dials: 1, Streams: 1, Writes: 1, Bytes: 1}, n.Traffic(id(1), id(2)))
	require.Equal(t, memory.Traffic{Writes: 1, Bytes: 1}, n.Traffic(id(2), id(1)))
	require.Zero(t, n.Traffic(id(1), id(3)))
	require.Equal(t, memory.Traffic{Dials: 1, Streams: 1, Writes: 2, Bytes: 2}, n.Total())
}

func TestRelayed(t *testing.T) {
	n := memory.NewNetwork(memory.Options{Directory: true, Link: memory.Link{Relayed: true}})
	a, b, c := hosts(n)
	defer closeAll(a, b, c)
	_, err := a.Open(ctx, only(b), "/echo", transport.OpenOptions{Bulk: true})
	require.ErrorIs(t, err, transport.ErrLimited)
	s, err := a.Open(ctx, only(b), "/echo", transport.OpenOptions{})
	require.NoError(t, err)
	require.True(t, s.Relayed())
	require.True(t, a.Peers()[0].Relayed)
	n.SetLink(id(1), id(2), memory.Link{})
	bulk, err := a.Open(ctx, only(b), "/echo", transport.OpenOptions{Bulk: true})
	require.NoError(t, err)
	require.False(t, bulk.Relayed())
	require.NoError(t, s.Close())
	require.NoError(t, bulk.Close())
}

func TestLoss(t *testing.T) {
	n := memory.NewNetwork(memory.Options{Seed: 1, Directory: true, Link: memory.Link{Loss: 0.2}})
	a, b, c := hosts(n)
	defer closeAll(a, b, c)
	lost := 0
	for range 200 {
		if err := ask(a, only(b)); err != nil {
			require.ErrorIs(t, err, transport.ErrReset)
			lost++
		}
	}
	require.Greater(t, lost, 20)
	require.Less(t, lost, 180)
}

func TestCrashAndRestart(t *testing.T) {
	n := memory.NewNetwork(memory.Options{})
	a, b, c := hosts(n)
	defer closeAll(a, b, c)
	at := info(b)
	s, err := a.Open(ctx, at, "/echo", transport.OpenOptions{})
	require.NoError(t, err)
	n.Crash(id(2))
	_, err = s.Read(make([]byte, 1))
	require.ErrorIs(t, err, transport.ErrReset)
	require.ErrorIs(t, ask(a, at), transport.ErrUnreachable)
	require.ErrorIs(t, ask(b, info(a)), transport.ErrClosed)
	require.NoError(t, b.Close(), "and waits for its handlers")
	again := n.Host(id(2))
	defer again.Close()
	serve(again)
	require.Equal(t, at, info(again), "the same address")
	require.NoError(t, ask(a, at))
}

func TestLAN(t *testing.T) {
	n := memory.NewNetwork(memory.Options{LAN: true})
	a, b := n.Host(id(1)), n.Host(id(2))
	serve(b)
	ofA, stop := a.Events()
	defer stop()
	require.Equal(t, transport.Event{Kind: transport.Found, Peer: info(b)}, <-ofA, "who is there already")
	c := n.Host(id(3))
	defer closeAll(a, b, c)
	require.Equal(t, transport.Event{Kind: transport.Found, Peer: info(c)}, <-ofA, "who comes later")
	require.NoError(t, ask(a, only(b)), "what was found can be dialled")
	require.Equal(t, transport.Connected, (<-ofA).Kind)
	n.Partition([]transport.PeerID{id(1)})
	require.Equal(t, transport.Disconnected, (<-ofA).Kind)
	n.Heal()
	require.Equal(t, transport.Event{Kind: transport.Found, Peer: info(b)}, <-ofA)
	require.Equal(t, transport.Event{Kind: transport.Found, Peer: info(c)}, <-ofA)
}

func TestAdvertisementEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memory.NewNetwork(memory.Options{})
		a, b, c := hosts(n)
		defer closeAll(a, b, c)
		key := [32]byte{1}
		count := func() (k int) {
			for p, err := range b.Find(ctx, key) {
				require.NoError(t, err)
				require.Equal(t, info(a), p)
				k++
			}
			return k
		}
		require.NoError(t, a.Advertise(ctx, key, time.Hour))
		require.Equal(t, 1, count())
		n.Partition([]transport.PeerID{id(1)})
		require.Zero(t, count())
		n.Heal()
		<-time.After(time.Hour - 1)
		require.Equal(t, 1, count())
		<-time.After(1)
		require.Zero(t, count())
	})
}

// TestCloseDuringDial checks that Close unblocks who is dialling.
func TestCloseDuringDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memory.NewNetwork(memory.Options{Directory: true, Link: memory.Link{Latency: time.Hour}})
		a, b, c := hosts(n)
		defer closeAll(b, c)
		failed := make(chan error, 2)
		go func() { failed <- ask(a, only(b)) }()
		go func() {
			short, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			_, err := a.Open(short, only(c), "/echo", transport.OpenOptions{})
			failed <- err
		}()
		require.ErrorIs(t, <-failed, context.DeadlineExceeded)
		require.NoError(t, a.Close())
		require.ErrorIs(t, <-failed, transport.ErrClosed)
	})
}
