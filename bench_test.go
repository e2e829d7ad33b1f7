package cansync_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/libp2p"
)

// The benchmarks of whole nodes in one process, with badger and libp2p on loopback.
// Each round starts with new nodes. See internal/bench for whole processes and for
// the budgets.

const benchAssets = 10_000

func loopback(seed [32]byte) (transport.Transport, error) {
	return libp2p.New(libp2p.Config{
		PrivateKey: ed25519.NewKeyFromSeed(seed[:]), Network: libp2p.LAN, DisableMDNS: true,
		Listen: []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"},
	})
}

func benchNode(b *testing.B, c can.Client) *cansync.Node {
	n, err := cansync.New(b.Context(), cansync.Config{CAN: c, DataDir: b.TempDir(), Transport: loopback})
	require.NoError(b, err)
	return n
}

// benchService returns a service with generated contents, and a function that
// generates them again for another service that does not keep what it gets.
func benchService(count int, size int64) (s *cantest.Service, again func(can.Digest, int64) io.ReadSeeker) {
	s = cantest.New(cantest.Options{})
	seeds := make(map[string]uint64, count)
	for i := range count {
		a := s.AddFunc(func() io.ReadSeeker { return cantest.Generated(uint64(i), size) }, can.Metadata{
			MIMEType: "image/jpeg", Application: "camera-import", User: "anna", Description: fmt.Sprintf("picture %d of the summer", i),
			Tags: []string{"holiday", "sea"}, Filename: fmt.Sprintf("IMG_%06d.jpg", i), Path: "/photos/2025/summer",
		}, 1_750_000_000_000+int64(i))
		seeds[a.Handle] = uint64(i)
	}
	return s, func(d can.Digest, size int64) io.ReadSeeker { return cantest.Generated(seeds[d.String()], size) }
}

// announce makes a library and waits until it holds so many assets.
func announce(b *testing.B, n *cansync.Node, count int64) *cansync.Library {
	l, err := n.CreateLibrary(b.Context(), "bench", cansync.Filter{})
	require.NoError(b, err)
	until(b, l, count)
	return l
}

func until(b *testing.B, l *cansync.Library, count int64) {
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		require.NoError(b, l.Wait(ctx))
		s, err := l.Status(ctx)
		require.NoError(b, err)
		if s.Assets >= count && s.Pending == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			require.NoError(b, ctx.Err())
		}
	}
}

// BenchmarkAnnounce announces 10,000 assets of 1 KiB from the in-memory service.
func BenchmarkAnnounce(b *testing.B) {
	svc, _ := benchService(benchAssets, 1<<10)
	var took time.Duration
	for b.Loop() {
		n := benchNode(b, svc)
		began := time.Now()
		announce(b, n, benchAssets)
		took += time.Since(began)
		require.NoError(b, n.Close())
	}
	b.ReportMetric(float64(b.N*benchAssets)/took.Seconds(), "assets/s")
	require.NoError(b, svc.Close())
}

// benchSync lets a new node join a node that has announced everything, and returns
// how long all rounds took from the ticket to the last asset.
func benchSync(b *testing.B, count int, size int64) (took time.Duration) {
	from, again := benchService(count, size)
	a := benchNode(b, from)
	l := announce(b, a, int64(count))
	for b.Loop() {
		to := cantest.New(cantest.Options{DiscardContent: true, Reopen: again})
		n := benchNode(b, to)
		t, err := l.Invite(b.Context(), cansync.InviteOptions{})
		require.NoError(b, err)
		began := time.Now()
		joined, err := n.Join(b.Context(), t)
		require.NoError(b, err)
		until(b, joined, int64(count))
		took += time.Since(began)
		require.Equal(b, count, to.Len())
		require.NoError(b, n.Close())
		require.NoError(b, to.Close())
	}
	require.NoError(b, a.Close())
	require.NoError(b, from.Close())
	return took
}

// BenchmarkSyncSmall syncs 10,000 assets of 1 KiB between two nodes.
func BenchmarkSyncSmall(b *testing.B) {
	took := benchSync(b, benchAssets, 1<<10)
	b.ReportMetric(float64(b.N*benchAssets)/took.Seconds(), "assets/s")
}

// BenchmarkSyncLarge syncs one asset of 256 MiB between two nodes, and sends as
// many bytes over a bare stream of the same transport. Both ends of the former make
// the content up and hash it besides.
func BenchmarkSyncLarge(b *testing.B) {
	const size = 256 << 20
	b.Run("nodes", func(b *testing.B) {
		took := benchSync(b, 1, size)
		b.ReportMetric(float64(b.N*size>>20)/took.Seconds(), "MiB/s")
	})
	b.Run("raw", func(b *testing.B) {
		var ends [2]transport.Transport
		for i := range ends {
			t, err := loopback([32]byte{byte(i + 1)})
			require.NoError(b, err)
			require.Equal(b, capability.DeviceFromSeed([32]byte{byte(i + 1)}).PeerID(), t.ID())
			ends[i] = t
		}
		const proto = "/cansync-bench/raw/1"
		ends[0].Handle(proto, func(s transport.Stream) {
			piece := make([]byte, 256<<10)
			_, _ = io.ReadFull(s, piece[:1])
			for range size / len(piece) {
				if _, err := s.Write(piece); err != nil {
					break
				}
			}
			_ = s.Close()
		})
		var took time.Duration
		for b.Loop() {
			s, err := ends[1].Open(b.Context(), transport.PeerInfo{ID: ends[0].ID(), Addrs: ends[0].Addrs()}, proto, transport.OpenOptions{Bulk: true})
			require.NoError(b, err)
			began := time.Now()
			_, err = s.Write([]byte{1})
			require.NoError(b, err)
			n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, s, make([]byte, 256<<10))
			require.NoError(b, err)
			require.EqualValues(b, size, n)
			took += time.Since(began)
			require.NoError(b, s.Close())
		}
		b.ReportMetric(float64(b.N*size>>20)/took.Seconds(), "MiB/s")
		for _, t := range ends {
			require.NoError(b, t.Close())
		}
	})
}
