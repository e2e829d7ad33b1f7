package transfer

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"io"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"lukechampine.com/blake3"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/libp2p"
	"github.com/cansync/cansync/transport/memory"
)

const benchSize = 256 << 20

// benchPair makes two nodes over the transport; the receiver stages in dir.
func benchPair(b *testing.B, tr func(capability.Device) transport.Transport, stage bool) (from, to *node, lib *library.Library) {
	o := nodeOptions{}
	if stage {
		root, err := os.OpenRoot(b.TempDir())
		require.NoError(b, err)
		b.Cleanup(func() { _ = root.Close() })
		o.client = func(c *ClientConfig) { c.Stages = root }
	} else {
		o.client = func(c *ClientConfig) { c.Memory = 2 * benchSize }
	}
	from, to = newNode(b, tr, nodeOptions{}), newNode(b, tr, o)
	lib = from.create("bench")
	to.join(from, lib)
	return from, to, lib
}

func overMemory(b *testing.B) func(capability.Device) transport.Transport {
	net := memory.NewNetwork(memory.Options{Buffer: 1 << 20})
	return func(d capability.Device) transport.Transport { return net.Host(d.PeerID()) }
}

func overTCP(b *testing.B) func(capability.Device) transport.Transport {
	return func(d capability.Device) transport.Transport {
		seed := d.Key().Seed()
		tr, err := libp2p.New(libp2p.Config{
			PrivateKey: ed25519.NewKeyFromSeed(seed[:]), Network: libp2p.Private, DisableMDNS: true, Listen: []string{"/ip4/127.0.0.1/tcp/0"},
		})
		require.NoError(b, err)
		return tr
	}
}

// BenchmarkLarge fetches a large content, in turn with a raw stream of the same
// bytes whose ends do the same hashing: BLAKE3 at both, and SHA-256 at the receiver.
// The ratios are speeds, of the fetch to those of the raw stream with hashing and
// without.
func BenchmarkLarge(b *testing.B) {
	for name, net := range map[string]func(*testing.B) func(capability.Device) transport.Transport{
		"memory": overMemory, "tcp": overTCP,
	} {
		for _, stage := range []bool{true, false} {
			where := "/ram"
			if stage {
				where = "/staged"
			}
			b.Run(name+where, func(b *testing.B) { benchLarge(b, net(b), stage) })
		}
	}
}

func benchLarge(b *testing.B, tr func(capability.Device) transport.Transport, stage bool) {
	from, to, lib := benchPair(b, tr, stage)
	data := random(b, 1, benchSize)
	w := from.announce(lib, from.hold(data))
	var hashing atomic.Bool
	from.tr.Handle("/bench/raw", func(st transport.Stream) {
		defer func() { _ = st.Close() }()
		sendRaw(st, data, hashing.Load())
	})
	fetch := func() {
		c, err := to.client.Large(context.Background(), w, nil)
		require.NoError(b, err)
		require.NoError(b, c.Discard())
	}
	raw := func(hash bool) {
		hashing.Store(hash)
		st, err := to.tr.Open(context.Background(), transport.PeerInfo{ID: from.tr.ID()}, "/bench/raw", transport.OpenOptions{Bulk: true})
		require.NoError(b, err)
		_, err = st.Write([]byte{1})
		require.NoError(b, err)
		receiveRaw(b, st, hash)
	}
	fetch() // warm
	b.SetBytes(benchSize)
	var took, hashed, bare time.Duration
	for b.Loop() {
		begun := time.Now()
		fetch()
		took += time.Since(begun)
		b.StopTimer()
		begun = time.Now()
		raw(true)
		hashed += time.Since(begun)
		begun = time.Now()
		raw(false)
		bare += time.Since(begun)
		b.StartTimer()
	}
	b.ReportMetric(hashed.Seconds()/took.Seconds(), "of-hashed-raw")
	b.ReportMetric(bare.Seconds()/took.Seconds(), "of-bare-raw")
}

func sendRaw(st transport.Stream, data []byte, hash bool) {
	_, _ = io.ReadFull(st, make([]byte, 1))
	h := blake3.New(32, nil)
	for len(data) > 0 {
		n := min(len(data), maxPiece)
		if hash {
			_, _ = h.Write(data[:n])
		}
		if _, err := st.Write(data[:n]); err != nil {
			return
		}
		data = data[n:]
	}
}

func receiveRaw(b *testing.B, st transport.Stream, hash bool) {
	defer func() { _ = st.Close() }()
	h := blob.NewHasher(benchSize) // BLAKE3 and SHA-256
	buf := make([]byte, maxPiece)
	for left := benchSize; left > 0; {
		n, err := io.ReadFull(st, buf[:min(left, len(buf))])
		require.NoError(b, err)
		if hash {
			_, err = h.Write(buf[:n])
			require.NoError(b, err)
		}
		left -= n
	}
}

// BenchmarkSmall fetches small contents, many at once; the ratio is the speed
// against reading and hashing them from the service without a network.
func BenchmarkSmall(b *testing.B) {
	for _, c := range []struct {
		name        string
		size, count int
	}{{"1KiB", 1 << 10, 4000}, {"64KiB", 64 << 10, 1000}} {
		b.Run(c.name, func(b *testing.B) {
			from, to, lib := benchPair(b, overTCP(b), false)
			var wants []Want
			var handles []string
			for i := range c.count {
				data := random(b, uint64(i), c.size)
				sum := blob.Sum(data)
				a := from.can.Add(data, can.Metadata{})
				from.know(a, sum)
				handles = append(handles, a.Handle)
				wants = append(wants, from.announce(lib, sum))
			}
			b.SetBytes(int64(c.size * c.count))
			var took, plain time.Duration
			for b.Loop() {
				begun := time.Now()
				parallel(c.count, 256, func(i int) {
					if _, err := to.client.Small(context.Background(), wants[i]); err != nil {
						b.Error(err)
					}
				})
				took += time.Since(begun)
				b.StopTimer()
				begun = time.Now()
				parallel(c.count, 8, func(i int) {
					data, _ := whole(context.Background(), from.can, handles[i], int64(c.size))
					_ = sha256.Sum256(data)
				})
				plain += time.Since(begun)
				b.StartTimer()
			}
			b.ReportMetric(float64(c.count*b.N)/took.Seconds(), "contents/s")
			b.ReportMetric(plain.Seconds()/took.Seconds(), "of-plain-read")
		})
	}
}

func parallel(n, workers int, fn func(int)) {
	var next atomic.Int64
	done := make(chan struct{})
	for range workers {
		go func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					done <- struct{}{}
					return
				}
				fn(i)
			}
		}()
	}
	for range workers {
		<-done
	}
}
