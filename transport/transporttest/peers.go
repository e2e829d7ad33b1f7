package transporttest

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/transport"
)

func testUnreachable(e *env) {
	echo(e.b)
	gone := info(e.c)
	require.NoError(e, e.c.Close())
	_, err := e.a.Open(e.ctx, gone, proto, transport.OpenOptions{})
	require.ErrorIs(e, err, transport.ErrUnreachable)
	_, err = e.a.Open(e.ctx, transport.PeerInfo{ID: gone.ID}, proto, transport.OpenOptions{})
	require.ErrorIs(e, err, transport.ErrUnreachable)
	_, err = e.a.Open(e.ctx, info(e.a), proto, transport.OpenOptions{})
	require.Error(e, err, "a node does not dial itself")
}

// testWrongIdentity dials one peer at another's address.
func testWrongIdentity(e *env) {
	echo(e.b)
	echo(e.c)
	wrong := transport.PeerInfo{ID: e.c.ID(), Addrs: e.b.Addrs()}
	_, err := e.a.Open(e.ctx, wrong, proto, transport.OpenOptions{})
	require.ErrorIs(e, err, transport.ErrUnreachable)
	require.False(e, connected(e.a, e.c.ID()))
	require.NoError(e, e.ask(e.a, e.b, []byte("x")), "the other is still reached")
}

// testRemembered checks that addresses given once need not be given again, and
// that a peer who was dialled knows where the dialler is.
func testRemembered(e *env) {
	echo(e.a)
	echo(e.b)
	require.NoError(e, e.ask(e.a, e.b, []byte("x")))
	s, err := e.a.Open(e.ctx, transport.PeerInfo{ID: e.b.ID()}, proto, transport.OpenOptions{})
	require.NoError(e, err)
	require.NoError(e, s.Close())
	s, err = e.b.Open(e.ctx, transport.PeerInfo{ID: e.a.ID()}, proto, transport.OpenOptions{})
	require.NoError(e, err)
	require.NoError(e, s.Close())
	e.part()
	s, err = e.a.Open(e.ctx, transport.PeerInfo{ID: e.b.ID()}, proto, transport.OpenOptions{})
	require.NoError(e, err)
	require.NoError(e, s.Close())
}

func connected(t transport.Transport, id transport.PeerID) bool {
	return slices.ContainsFunc(t.Peers(), func(p transport.Peer) bool { return p.ID == id })
}

// part disconnects a from b until they are apart: a dial that was under way may connect
// them once more.
func (e *env) part() {
	e.Helper()
	e.eventually(func() bool {
		e.a.Disconnect(e.b.ID())
		return !connected(e.a, e.b.ID()) && !connected(e.b, e.a.ID())
	}, "disconnected")
}

func testPeers(e *env) {
	require.Empty(e, e.a.Peers())
	echo(e.b)
	echo(e.c)
	require.NoError(e, e.ask(e.a, e.b, []byte("x")))
	require.NoError(e, e.ask(e.a, e.c, []byte("x")))
	require.Len(e, e.a.Peers(), 2)
	for _, p := range e.a.Peers() {
		require.False(e, p.Relayed)
		require.GreaterOrEqual(e, p.Latency, time.Duration(0))
		require.Contains(e, []transport.PeerID{e.b.ID(), e.c.ID()}, p.ID)
	}
	e.eventually(func() bool { return connected(e.b, e.a.ID()) }, "the other side is connected")
	require.False(e, connected(e.b, e.c.ID()))
}

// next returns the next event of the kind about the peer.
func (e *env) next(ch <-chan transport.Event, kind transport.EventKind, id transport.PeerID) {
	e.Helper()
	for {
		if ev := wait(e, ch); ev.Kind == kind && ev.Peer.ID == id {
			return
		}
	}
}

func testEvents(e *env) {
	echo(e.b)
	ofA, stopA := e.a.Events()
	defer stopA()
	ofB, stopB := e.b.Events()
	defer stopB()
	require.NoError(e, e.ask(e.a, e.b, []byte("x")))
	e.next(ofA, transport.Connected, e.b.ID())
	e.next(ofB, transport.Connected, e.a.ID())
	e.part()
	e.next(ofA, transport.Disconnected, e.b.ID())
	e.next(ofB, transport.Disconnected, e.a.ID())
	require.NoError(e, e.ask(e.a, e.b, []byte("x")))
	e.next(ofA, transport.Connected, e.b.ID())
	// The other side goes away without a word.
	require.NoError(e, e.b.Close())
	e.next(ofA, transport.Disconnected, e.b.ID())
}

func testEventsStop(e *env) {
	echo(e.b)
	late, stopLate := e.a.Events() // is never read while things happen
	defer stopLate()
	ch, stop := e.a.Events()
	stop()
	stop()
	drained(e, ch)
	for range 100 {
		require.NoError(e, e.ask(e.a, e.b, []byte("x")))
		e.part()
	}
	require.NoError(e, e.a.Close())
	drained(e, late)
	after, stopAfter := e.a.Events()
	drained(e, after)
	stopAfter()
}

// drained checks that the channel is closed, after what it still held.
func drained(e *env, ch <-chan transport.Event) {
	e.Helper()
	for n := 0; ; n++ {
		select {
		case _, ok := <-ch:
			if !ok {
				return
			}
			require.Less(e, n, 10_000, "events must be bounded")
		case <-e.ctx.Done():
			require.Fail(e, "the channel is not closed")
		}
	}
}

func testDisconnect(e *env) {
	near, far := e.pair(e.a, e.b)
	failed := make(chan error, 2)
	for _, s := range []transport.Stream{near, far} {
		go func() {
			_, err := s.Read(make([]byte, 1))
			failed <- err
		}()
	}
	e.a.Disconnect(e.b.ID())
	require.ErrorIs(e, wait(e, failed), transport.ErrReset)
	require.ErrorIs(e, wait(e, failed), transport.ErrReset)
	e.part()
	e.eventually(func() bool { return len(e.a.Peers()) == 0 && len(e.b.Peers()) == 0 }, "no peers")
	e.a.Disconnect(e.b.ID())
	e.a.Disconnect(e.c.ID())
	_ = near.Reset()
	_ = far.Reset()
	echo(e.b)
	require.NoError(e, e.ask(e.a, e.b, []byte("x")), "they may connect again")
}

func testCloseJoins(e *env) {
	var mu sync.Mutex
	running, ran := 0, 0
	e.b.Handle(proto, func(s transport.Stream) {
		mu.Lock()
		running++
		ran++
		mu.Unlock()
		_, _ = s.Write([]byte{1})
		_, _ = s.Read(make([]byte, 1)) // fails when the transport is closed
		_ = s.Reset()
		mu.Lock()
		running--
		mu.Unlock()
	})
	for range 5 {
		s := e.open(e.a, e.b)
		_, err := s.Write(nil)
		require.NoError(e, err)
		_, err = s.Read(make([]byte, 1))
		require.NoError(e, err)
	}
	require.NoError(e, e.b.Close())
	mu.Lock()
	defer mu.Unlock()
	require.Equal(e, 5, ran)
	require.Zero(e, running, "Close waits for handlers")
}

func testCloseTwice(e *env) {
	near, far := e.pair(e.a, e.b)
	errs := make(chan error, 4)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { errs <- e.a.Close() })
	}
	wg.Wait()
	for range 4 {
		require.NoError(e, <-errs)
	}
	require.NoError(e, e.a.Close())
	_, err := far.Read(make([]byte, 1))
	require.Error(e, err)
	_ = near.Reset()
	_ = far.Reset()
}

func testClosed(e *env) {
	ofA, _ := e.a.Events()
	near, far := e.pair(e.b, e.a)
	blocked := make(chan error, 1)
	go func() {
		_, err := far.Read(make([]byte, 1))
		blocked <- err
	}()
	id := e.a.ID()
	require.NoError(e, e.a.Close())
	require.ErrorIs(e, wait(e, blocked), transport.ErrReset)
	_, err := e.a.Open(e.ctx, info(e.b), proto, transport.OpenOptions{})
	require.ErrorIs(e, err, transport.ErrClosed)
	require.Equal(e, id, e.a.ID())
	require.Empty(e, e.a.Peers())
	e.a.Handle(proto, func(s transport.Stream) { _ = s.Reset() })
	e.a.Disconnect(e.b.ID())
	drained(e, ofA)
	if d, ok := e.a.(transport.Discovery); ok {
		require.ErrorIs(e, d.Advertise(e.ctx, [32]byte{1}, time.Minute), transport.ErrClosed)
		n := 0
		for _, err := range d.Find(e.ctx, [32]byte{1}) {
			require.ErrorIs(e, err, transport.ErrClosed)
			n++
		}
		require.Equal(e, 1, n)
	}
	_ = near.Reset()
}

func testPeerCloses(e *env) {
	near, far := e.pair(e.a, e.b)
	require.NoError(e, e.b.Close())
	_, err := near.Read(make([]byte, 1))
	require.Error(e, err)
	require.False(e, errors.Is(err, transport.ErrClosed), "the other is closed, not this one")
	e.eventually(func() bool { return len(e.a.Peers()) == 0 }, "no peers")
	_ = near.Reset()
	_ = far.Reset()
}

// testDiscovery is left out where the transport does not implement it.
func testDiscovery(e *env) {
	a, ok := e.a.(transport.Discovery)
	if !ok {
		e.Log("no discovery")
		return
	}
	b, c := e.b.(transport.Discovery), e.c.(transport.Discovery)
	echo(e.a)
	// Transports that find others through peers need one to begin with.
	echo(e.b)
	require.NoError(e, e.ask(e.a, e.b, []byte("x")))
	require.NoError(e, e.ask(e.c, e.b, []byte("x")))
	k, other := [32]byte{1, 2, 3}, [32]byte{4}
	find := func(d transport.Discovery, k [32]byte) []transport.PeerInfo {
		var all []transport.PeerInfo
		for p, err := range d.Find(e.ctx, k) {
			if err != nil {
				break
			}
			all = append(all, p)
		}
		return all
	}
	require.NoError(e, a.Advertise(e.ctx, k, time.Hour))
	var found transport.PeerInfo
	e.eventually(func() bool {
		all := find(c, k)
		i := slices.IndexFunc(all, func(p transport.PeerInfo) bool { return p.ID == e.a.ID() })
		if i >= 0 {
			found = all[i]
		}
		return i >= 0
	}, "found")
	s, err := e.c.Open(e.ctx, found, proto, transport.OpenOptions{})
	require.NoError(e, err, "what was found can be dialled")
	require.NoError(e, s.Close())
	for _, p := range find(b, other) {
		require.NotEqual(e, e.a.ID(), p.ID, "another key finds nothing")
	}
	for _, p := range find(a, k) {
		require.NotEqual(e, e.a.ID(), p.ID, "nobody finds itself")
	}
}
