package transporttest

import (
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/transport"
)

// Bench measures a transport: the throughput of one stream, small round trips on
// one stream, and opening a stream with one round trip.
func Bench(b *testing.B, mk Maker) {
	ctx := context.Background()
	setup := func(b *testing.B) (transport.Transport, transport.Transport) {
		x, y, z := mk(b)
		b.Cleanup(func() {
			for _, t := range []transport.Transport{x, y, z} {
				_ = t.Close()
			}
		})
		return x, y
	}
	b.Run("Throughput", func(b *testing.B) {
		from, to := setup(b)
		done := make(chan int64, 1)
		to.Handle(proto, func(s transport.Stream) {
			n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, s, make([]byte, 128<<10))
			_ = s.Close()
			done <- n
		})
		s, err := from.Open(ctx, info(to), proto, transport.OpenOptions{Bulk: true})
		require.NoError(b, err)
		buf := make([]byte, 128<<10)
		b.SetBytes(int64(len(buf)))
		sent := int64(0)
		for b.Loop() {
			n, err := s.Write(buf)
			require.NoError(b, err)
			sent += int64(n)
		}
		require.NoError(b, s.CloseWrite())
		require.Equal(b, sent, <-done)
		_ = s.Close()
	})
	b.Run("RoundTrip", func(b *testing.B) {
		from, to := setup(b)
		echo(to)
		s, err := from.Open(ctx, info(to), proto, transport.OpenOptions{})
		require.NoError(b, err)
		buf := make([]byte, 100)
		for b.Loop() {
			_, err := s.Write(buf)
			require.NoError(b, err)
			_, err = io.ReadFull(s, buf)
			require.NoError(b, err)
		}
		_ = s.Close()
	})
	b.Run("Open", func(b *testing.B) {
		from, to := setup(b)
		echo(to)
		buf := make([]byte, 1)
		for b.Loop() {
			s, err := from.Open(ctx, info(to), proto, transport.OpenOptions{})
			require.NoError(b, err)
			_, err = s.Write(buf)
			require.NoError(b, err)
			_, err = io.ReadFull(s, buf)
			require.NoError(b, err)
			require.NoError(b, s.Close())
		}
	})
}
