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

func id(b byte) transport.PeerID { return transport.PeerID{b} }

func info(h *memory.Host) transport.PeerInfo {
	return transport.PeerInfo{ID: h.ID(), Addrs: h.Addrs()}
}

// serve answers every stream of /echo with what it carries.
func serve(h *memory.Host) {
	h.Handle("/echo", func(s transport.Stream) {
		_, _ = io.Copy(s, s)
		_ = s.Close()
	})
}

func TestLatencyAndBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memory.NewNetwork(memory.Options{Link: memory.Link{Latency: 50 * time.Millisecond, Bandwidth: 1 << 20}})
		a, b := n.Host(id(1)), n.Host(id(2))
		defer a.Close()
		defer b.Close()
		serve(b)
		start := time.Now()
		s, err := a.Open(context.Background(), info(b), "/echo", transport.OpenOptions{})
		require.NoError(t, err)
		require.Equal(t, 200*time.Millisecond, time.Since(start), "a round trip to dial, one to open")

		start = time.Now()
		_, err = s.Write([]byte("x"))
		require.NoError(t, err)
		_, err = io.ReadFull(s, make([]byte, 1))
		require.NoError(t, err)
		require.InDelta(t, 100, time.Since(start).Milliseconds(), 1)

		start = time.Now()
		go func() {
			_, _ = s.Write(make([]byte, 2<<20))
			_ = s.CloseWrite()
		}()
		got, err := io.ReadAll(s)
		require.NoError(t, err)
		require.Len(t, got, 2<<20)
		require.InDelta(t, 2.1, time.Since(start).Seconds(), 0.1, "both directions carry 1 MiB/s at a time")
		require.NoError(t, s.Close())
	})
}
