package libp2p

import (
	"bytes"
	"context"
	"io"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	golibp2p "github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/transport"
)

const echoProto = "/cansync/test/echo/1"

func echo(s transport.Stream) {
	if _, err := io.Copy(s, s); err != nil {
		_ = s.Reset()
		return
	}
	_ = s.Close()
}

func testCtx(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// roundTrip sends data there and back.
func roundTrip(t testing.TB, s transport.Stream, data []byte) {
	t.Helper()
	go func() {
		_, _ = s.Write(data)
		_ = s.CloseWrite()
	}()
	got, err := io.ReadAll(s)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	require.NoError(t, s.Close())
}

func TestStreams(t *testing.T) {
	tcp, quic := loopback[:1], loopback[1:]
	tls := []golibp2p.Option{golibp2p.Security(libp2ptls.ID, libp2ptls.New)}
	nse := []golibp2p.Option{golibp2p.Security(noise.ID, noise.New)}
	for _, c := range []struct {
		name   string
		listen []string
		sec    []golibp2p.Option
	}{
		{"tcp tls", tcp, tls}, {"tcp noise", tcp, nse}, {"tcp", tcp, nil}, {"quic", quic, nil}, {"both", loopback, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := start(t, func(cfg *Config) { cfg.Listen = c.listen })
			a := start(t, func(cfg *Config) {
				cfg.Listen = c.listen
				cfg.onlySecurity = c.sec
			})
			b.Handle(echoProto, echo)
			for _, bulk := range []bool{false, true} {
				s, err := a.Open(testCtx(t), info(b), echoProto, transport.OpenOptions{Bulk: bulk})
				require.NoError(t, err)
				require.Equal(t, b.ID(), s.Peer())
				require.False(t, s.Relayed())
				roundTrip(t, s, bytes.Repeat([]byte("abcdefg"), 100_000))
			}
		})
	}
}

func TestSixtyFourStreamsOfOneProtocol(t *testing.T) {
	for name, listen := range map[string][]string{"tcp": loopback[:1], "quic": loopback[1:]} {
		t.Run(name, func(t *testing.T) {
			a := start(t, func(c *Config) { c.Listen = listen })
			b := start(t, func(c *Config) { c.Listen = listen })
			b.Handle(echoProto, echo)
			var open []transport.Stream
			// More than the 75 that go-libp2p allows by default, all open at once.
			for range 128 {
				s, err := a.Open(testCtx(t), info(b), echoProto, transport.OpenOptions{})
				require.NoError(t, err)
				_, err = s.Write([]byte{1})
				require.NoError(t, err)
				_, err = io.ReadFull(s, make([]byte, 1))
				require.NoError(t, err)
				open = append(open, s)
			}
			var wg sync.WaitGroup
			for _, s := range open {
				wg.Go(func() { roundTrip(t, s, make([]byte, 10_000)) })
			}
			wg.Wait()
		})
	}
}

func TestBulkTakesTCP(t *testing.T) {
	a, b := start(t, nil), start(t, nil)
	b.Handle(echoProto, echo)
	id, err := toHostID(b.ID())
	require.NoError(t, err)
	overTCP := func(c network.Conn) bool { return isTCP(c.RemoteMultiaddr()) }
	ctx := testCtx(t)
	for took := 0; took < 4; {
		stands := slices.ContainsFunc(a.host.Network().ConnsToPeer(id), overTCP)
		s, err := a.Open(ctx, info(b), echoProto, transport.OpenOptions{Bulk: true})
		require.NoError(t, err)
		if overTCP(s.(*stream).in.Conn()) {
			roundTrip(t, s, []byte("x"))
			took++
			continue
		}
		// On a busy machine QUIC may be through first, in spite of the head start.
		require.False(t, stands, "there was a connection over TCP")
		require.NoError(t, s.Reset())
		a.Disconnect(b.ID())
	}
}

func TestNoProtocol(t *testing.T) {
	a, b := start(t, nil), start(t, nil)
	_, err := a.Open(testCtx(t), info(b), "/cansync/nobody/1", transport.OpenOptions{})
	require.ErrorIs(t, err, transport.ErrNoProtocol)
	_, err = a.Open(testCtx(t), info(b), "", transport.OpenOptions{})
	require.Error(t, err)
}

func TestWrongIdentity(t *testing.T) {
	a, b, other := start(t, nil), start(t, nil), publicID(newKey(t))
	_, err := a.Open(testCtx(t), transport.PeerInfo{ID: other, Addrs: b.Addrs()}, echoProto, transport.OpenOptions{})
	require.ErrorIs(t, err, transport.ErrUnreachable)
	_, err = a.Open(testCtx(t), transport.PeerInfo{ID: other}, echoProto, transport.OpenOptions{})
	require.ErrorIs(t, err, transport.ErrUnreachable)
	_, err = a.Open(testCtx(t), info(a), echoProto, transport.OpenOptions{})
	require.ErrorIs(t, err, transport.ErrUnreachable)
	require.Empty(t, a.Peers())
}

func TestOpenContext(t *testing.T) {
	a, b := start(t, nil), start(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := a.Open(ctx, info(b), echoProto, transport.OpenOptions{})
	require.ErrorIs(t, err, context.Canceled)
}

// TestCloseDoesNotWaitForReader closes a stream full of bytes nobody reads.
func TestCloseDoesNotWaitForReader(t *testing.T) {
	for name, listen := range map[string][]string{"tcp": loopback[:1], "quic": loopback[1:]} {
		t.Run(name, func(t *testing.T) {
			a := start(t, func(c *Config) { c.Listen, c.CloseTimeout = listen, 50*time.Millisecond })
			b := start(t, func(c *Config) { c.Listen = listen })
			hold, held := make(chan struct{}), make(chan struct{})
			b.Handle(echoProto, func(s transport.Stream) {
				close(held)
				<-hold
				_ = s.Reset()
			})
			defer close(hold)
			s, err := a.Open(testCtx(t), info(b), echoProto, transport.OpenOptions{})
			require.NoError(t, err)
			_, err = s.Write([]byte{1})
			require.NoError(t, err)
			<-held
			require.NoError(t, s.SetWriteDeadline(time.Now().Add(200*time.Millisecond)))
			for err == nil {
				_, err = s.Write(make([]byte, 1<<20))
			}
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			_ = s.Close() // the test fails by its own deadline if this hangs
			require.NoError(t, s.Close())
		})
	}
}

func TestReset(t *testing.T) {
	for name, listen := range map[string][]string{"tcp": loopback[:1], "quic": loopback[1:]} {
		t.Run(name, func(t *testing.T) {
			a := start(t, func(c *Config) { c.Listen = listen })
			b := start(t, func(c *Config) { c.Listen = listen })
			failed, held := make(chan error, 1), make(chan struct{})
			b.Handle(echoProto, func(s transport.Stream) {
				close(held)
				_, err := io.Copy(io.Discard, s)
				failed <- err
				_ = s.Close()
			})
			s, err := a.Open(testCtx(t), info(b), echoProto, transport.OpenOptions{})
			require.NoError(t, err)
			_, err = s.Write([]byte{1})
			require.NoError(t, err)
			<-held
			require.NoError(t, s.Reset())
			require.NoError(t, s.Reset())
			_, err = s.Write([]byte{1})
			require.ErrorIs(t, err, transport.ErrReset)
			_, err = s.Read(make([]byte, 1))
			require.ErrorIs(t, err, transport.ErrReset)
			require.ErrorIs(t, <-failed, transport.ErrReset)
		})
	}
}

// stuck is a stream whose connection takes nothing more.
type stuck struct {
	network.Stream
	free chan struct{}
}

func (s stuck) Reset() error { <-s.free; return nil }

func TestResetDoesNotWaitForThePeer(t *testing.T) {
	a := start(t, nil)
	in := stuck{free: make(chan struct{})}
	s := &stream{t: a, in: in}
	require.True(t, a.remember(s))
	require.NoError(t, s.Reset()) // the test fails by its own deadline if this hangs
	require.NoError(t, s.Reset())
	close(in.free)
}

func BenchmarkStream(b *testing.B) {
	for _, c := range []struct {
		name   string
		listen []string
	}{{"tcp", loopback[:1]}, {"quic", loopback[1:]}} {
		b.Run(c.name, func(b *testing.B) {
			from := start(b, func(cfg *Config) { cfg.Listen = c.listen })
			to := start(b, func(cfg *Config) { cfg.Listen = c.listen })
			done := make(chan struct{})
			to.Handle(echoProto, func(s transport.Stream) {
				defer close(done)
				_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, s, make([]byte, 256<<10))
				_ = s.Close()
			})
			s, err := from.Open(testCtx(b), info(to), echoProto, transport.OpenOptions{Bulk: true})
			require.NoError(b, err)
			buf := make([]byte, 256<<10)
			b.SetBytes(int64(len(buf)))
			for b.Loop() {
				if _, err := s.Write(buf); err != nil {
					b.Fatal(err)
				}
			}
			require.NoError(b, s.CloseWrite())
			<-done
			require.NoError(b, s.Close())
		})
	}
}
