package transporttest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/transport"
)

var errAltered = errors.New("transporttest: not what was sent")

func testIdentity(e *env) {
	ids := map[transport.PeerID]bool{e.a.ID(): true, e.b.ID(): true, e.c.ID(): true}
	require.Len(e, ids, 3)
	for id := range ids {
		require.False(e, id.IsZero())
	}
	require.NotEmpty(e, e.a.Addrs())
	near, far := e.pair(e.a, e.b)
	require.Equal(e, e.b.ID(), near.Peer())
	require.Equal(e, e.a.ID(), far.Peer())
	require.False(e, near.Relayed())
	require.False(e, far.Relayed())
	require.NoError(e, near.Close())
	require.NoError(e, far.Close())
	bulk, err := e.a.Open(e.ctx, info(e.b), proto, transport.OpenOptions{Bulk: true})
	require.NoError(e, err)
	require.NoError(e, bulk.Reset())
}

func testEcho(e *env) {
	echo(e.b)
	for _, n := range []int{0, 1, 1000, 300_000} {
		require.NoError(e, e.ask(e.a, e.b, random(n)), "%d bytes", n)
	}
}

// random returns n bytes that are the same each time.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

func testUnknownProtocol(e *env) {
	echo(e.b)
	_, err := e.a.Open(e.ctx, info(e.b), "/cansync/none/1", transport.OpenOptions{})
	require.ErrorIs(e, err, transport.ErrNoProtocol)
	require.NoError(e, e.ask(e.a, e.b, []byte("still there")))
}

func testHandleNil(e *env) {
	echo(e.b)
	require.NoError(e, e.ask(e.a, e.b, []byte("x")))
	e.b.Handle(proto, nil)
	e.eventually(func() bool {
		s, err := e.a.Open(e.ctx, info(e.b), proto, transport.OpenOptions{})
		if err == nil {
			// A transport may learn of it by the first answer only.
			e.bound(s)
			_ = s.CloseWrite()
			_, err = s.Read(make([]byte, 1))
			_ = s.Reset()
		}
		return errors.Is(err, transport.ErrNoProtocol)
	}, "a handler that was taken away is gone")
	echo(e.b)
	e.eventually(func() bool { return e.ask(e.a, e.b, []byte("x")) == nil }, "a handler comes back")
}

func testHalfClose(e *env) {
	near, far := e.pair(e.a, e.b)
	_, err := near.Write([]byte("question"))
	require.NoError(e, err)
	require.NoError(e, near.CloseWrite())
	got, err := io.ReadAll(far)
	require.NoError(e, err)
	require.Equal(e, "question", string(got))
	_, err = far.Read(make([]byte, 1))
	require.ErrorIs(e, err, io.EOF, "the end stays the end")
	_, err = near.Write([]byte("more"))
	require.Error(e, err)
	_, err = far.Write([]byte("answer"))
	require.NoError(e, err)
	require.NoError(e, far.Close())
	got, err = io.ReadAll(near)
	require.NoError(e, err)
	require.Equal(e, "answer", string(got))
	require.NoError(e, near.Close())
}

func testCloseDelivers(e *env) {
	near, far := e.pair(e.a, e.b)
	want := random(50_000) // within every transport's window
	_, err := near.Write(want)
	require.NoError(e, err)
	require.NoError(e, near.Close())
	got, err := io.ReadAll(far)
	require.NoError(e, err)
	require.True(e, bytes.Equal(want, got))
	if err := far.Close(); err != nil {
		require.ErrorIs(e, err, transport.ErrReset, "the peer was first")
	}
}

func testReset(e *env) {
	near, far := e.pair(e.a, e.b)
	failed := make(chan error, 1)
	go func() {
		_, err := far.Read(make([]byte, 1))
		failed <- err
	}()
	require.NoError(e, near.Reset())
	require.ErrorIs(e, wait(e, failed), transport.ErrReset)
	_, err := near.Read(make([]byte, 1))
	require.ErrorIs(e, err, transport.ErrReset)
	_, err = near.Write([]byte("x"))
	require.ErrorIs(e, err, transport.ErrReset)
	e.eventually(func() bool {
		_, err = far.Write([]byte("x"))
		return err != nil
	}, "writing to a stream that was reset fails")
	require.ErrorIs(e, err, transport.ErrReset)
	_ = near.Reset()
	_ = far.Close()
}

func testResetByHandler(e *env) {
	near, far := e.pair(e.a, e.b)
	failed := make(chan error, 1)
	go func() {
		for {
			if _, err := near.Write(make([]byte, 64<<10)); err != nil { // until it blocks
				failed <- err
				return
			}
		}
	}()
	require.NoError(e, far.Reset())
	require.ErrorIs(e, wait(e, failed), transport.ErrReset)
	_, err := near.Read(make([]byte, 1))
	require.ErrorIs(e, err, transport.ErrReset)
	require.NoError(e, near.Reset())
}

const soon = 50 * time.Millisecond

func testReadDeadline(e *env) {
	near, far := e.pair(e.a, e.b)
	require.NoError(e, near.SetReadDeadline(time.Now().Add(soon)))
	_, err := near.Read(make([]byte, 1))
	require.ErrorIs(e, err, os.ErrDeadlineExceeded)
	require.NoError(e, near.SetReadDeadline(time.Now().Add(-time.Second)))
	_, err = near.Read(make([]byte, 1))
	require.ErrorIs(e, err, os.ErrDeadlineExceeded)
	e.bound(near)
	_, err = far.Write([]byte("x"))
	require.NoError(e, err)
	_, err = io.ReadFull(near, make([]byte, 1))
	require.NoError(e, err, "a deadline that was put off no longer counts")

	// A deadline set while a Read waits ends it.
	failed := make(chan error, 1)
	go func() {
		_, err := near.Read(make([]byte, 1))
		failed <- err
	}()
	require.NoError(e, near.SetReadDeadline(time.Now().Add(soon)))
	require.ErrorIs(e, wait(e, failed), os.ErrDeadlineExceeded)
	require.NoError(e, near.Reset())
	_ = far.Reset()
}

func testWriteDeadline(e *env) {
	near, far := e.pair(e.a, e.b) // nobody reads far
	require.NoError(e, near.SetWriteDeadline(time.Now().Add(4*soon)))
	var err error
	for err == nil {
		_, err = near.Write(make([]byte, 256<<10))
	}
	require.ErrorIs(e, err, os.ErrDeadlineExceeded)
	require.NoError(e, near.Reset())
	_ = far.Reset()
}

// testCloseAgainstSilence checks that Close does not wait for a peer who never
// reads.
func testCloseAgainstSilence(e *env) {
	near, far := e.pair(e.a, e.b)
	require.NoError(e, near.SetWriteDeadline(time.Now().Add(4*soon)))
	for {
		if _, err := near.Write(make([]byte, 256<<10)); err != nil {
			break
		}
	}
	done := make(chan struct{})
	go func() {
		_ = near.Close() // may say that not all was delivered
		close(done)
	}()
	select {
	case <-done:
	case <-e.ctx.Done():
		require.Fail(e, "Close hangs")
	}
	_ = near.Reset()
	_ = far.Reset()
}

func testDialCancelled(e *env) {
	echo(e.b)
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	_, err := e.a.Open(ctx, info(e.b), proto, transport.OpenOptions{})
	require.ErrorIs(e, err, context.Canceled)

	// The context bounds the opening, not the stream.
	ctx, cancel = context.WithCancel(e.ctx)
	s, err := e.a.Open(ctx, info(e.b), proto, transport.OpenOptions{})
	require.NoError(e, err)
	e.bound(s)
	cancel()
	_, err = s.Write([]byte("x"))
	require.NoError(e, err)
	_, err = io.ReadFull(s, make([]byte, 1))
	require.NoError(e, err)
	require.NoError(e, s.Close())
}

func testSimultaneous(e *env) {
	echo(e.a)
	echo(e.b)
	var wg sync.WaitGroup
	errs := make(chan error, 20)
	for range 10 {
		wg.Go(func() { errs <- e.ask(e.a, e.b, []byte("from a")) })
		wg.Go(func() { errs <- e.ask(e.b, e.a, []byte("from b")) })
	}
	wg.Wait()
	close(errs)
	n := 0
	for err := range errs {
		require.NoError(e, err)
		n++
	}
	require.Equal(e, 20, n)
}

func testSequential(e *env) {
	echo(e.b)
	for i := range e.s.sequential {
		require.NoError(e, e.ask(e.a, e.b, []byte("x")), "stream %d", i)
	}
}

func testParallel(e *env) {
	ch := e.accept(e.b)
	near := make([]transport.Stream, e.s.parallel)
	var wg sync.WaitGroup
	for i := range near {
		near[i] = e.open(e.a, e.b)
		_, err := near[i].Write([]byte{byte(i)})
		require.NoError(e, err)
	}
	for range near {
		far := wait(e, ch)
		wg.Go(func() { // all are open at this time
			_, _ = io.Copy(far, far)
			_ = far.Close()
		})
	}
	for i, s := range near {
		want := random(10_000 + i)
		_, err := s.Write(want)
		require.NoError(e, err)
		require.NoError(e, s.CloseWrite())
		got, err := io.ReadAll(s)
		require.NoError(e, err)
		require.Equal(e, byte(i), got[0])
		require.True(e, bytes.Equal(want, got[1:]))
		require.NoError(e, s.Close())
	}
	wg.Wait()
}

func testBigTransfer(e *env) {
	echo(e.b)
	require.NoError(e, e.ask(e.a, e.b, random(16<<20)))
}

// testBothWays sends in both directions at once, without either side reading
// before it has begun to write.
func testBothWays(e *env) {
	near, far := e.pair(e.a, e.b)
	want := random(4 << 20)
	var wg sync.WaitGroup
	errs := make(chan error, 4)
	for _, s := range []transport.Stream{near, far} {
		wg.Go(func() {
			_, err := s.Write(want)
			if err == nil {
				err = s.CloseWrite()
			}
			errs <- err
		})
		wg.Go(func() {
			got, err := io.ReadAll(s)
			if err == nil && !bytes.Equal(want, got) {
				err = errAltered
			}
			errs <- err
		})
	}
	wg.Wait()
	for range 4 {
		require.NoError(e, <-errs)
	}
	require.NoError(e, near.Close())
	require.NoError(e, far.Close())
}
