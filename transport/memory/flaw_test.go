package memory_test

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
)

// Jitter lets streams overtake one another, and never what is on one stream.
func TestJitterReordersStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memory.NewNetwork(memory.Options{Seed: 1, Directory: true, Link: memory.Link{Jitter: 100 * time.Millisecond}})
		a, b := n.Host(id(1)), n.Host(id(2))
		defer closeAll(a, b)
		type piece struct{ stream, at byte }
		got := make(chan piece, 1000)
		b.Handle("/x", func(s transport.Stream) {
			defer s.Close()
			for two := make([]byte, 2); ; {
				if _, err := io.ReadFull(s, two); err != nil {
					return
				}
				got <- piece{two[0], two[1]}
			}
		})
		var streams []transport.Stream
		for range 10 {
			s, err := a.Open(ctx, only(b), "/x", transport.OpenOptions{})
			require.NoError(t, err)
			streams = append(streams, s)
		}
		for i := range 20 {
			for k, s := range streams {
				_, err := s.Write([]byte{byte(k), byte(i)})
				require.NoError(t, err)
			}
			time.Sleep(time.Millisecond)
		}
		for _, s := range streams {
			require.NoError(t, s.Close())
		}
		time.Sleep(time.Second)
		synctest.Wait()
		next, reordered, latest := map[byte]byte{}, 0, byte(0)
		for range 200 {
			p := <-got
			require.Equal(t, next[p.stream], p.at, "a stream keeps its order")
			next[p.stream]++
			if p.at < latest {
				reordered++
			}
			latest = max(latest, p.at)
		}
		require.Positive(t, reordered)
		require.Positive(t, n.Traffic(id(1), id(2)).Overtaken)
	})
}

// A write that fails may have arrived: the peer reads all of it, and then the reset.
func TestDuplicateDeliversWhatFails(t *testing.T) {
	for name, link := range map[string]memory.Link{"at once": {Duplicate: 1}, "late": {Duplicate: 1, Latency: 10 * time.Millisecond}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := memory.NewNetwork(memory.Options{Directory: true, Link: link})
				a, b := n.Host(id(1)), n.Host(id(2))
				defer closeAll(a, b)
				got, ends := make(chan string, 2), make(chan error, 2)
				b.Handle("/x", func(s transport.Stream) {
					all, err := io.ReadAll(s)
					got <- string(all)
					ends <- err
					_, err = s.Write([]byte("answer"))
					ends <- err
				})
				for range 2 {
					s, err := a.Open(ctx, only(b), "/x", transport.OpenOptions{})
					require.NoError(t, err)
					_, err = s.Write([]byte("again and again"))
					require.ErrorIs(t, err, transport.ErrReset)
					_, err = s.Write([]byte("more"))
					require.ErrorIs(t, err, transport.ErrReset)
					_, err = s.Read(make([]byte, 1))
					require.ErrorIs(t, err, transport.ErrReset)
					require.ErrorIs(t, s.CloseWrite(), transport.ErrReset)
					require.Equal(t, "again and again", <-got)
					require.ErrorIs(t, <-ends, transport.ErrReset)
					require.ErrorIs(t, <-ends, transport.ErrReset)
				}
				require.Equal(t, uint64(2), n.Traffic(id(1), id(2)).Doubled)
			})
		})
	}
}
