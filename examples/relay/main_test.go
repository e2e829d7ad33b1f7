package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"flag"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/libp2p"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func node(t *testing.T, edit func(*libp2p.Config)) *libp2p.Transport {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	cfg := libp2p.Config{PrivateKey: key, Network: libp2p.Private, Listen: []string{"/ip4/127.0.0.1/tcp/0"}}
	edit(&cfg)
	n, err := libp2p.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	return n
}

// TestNodesMeetThroughRelay lets two nodes that know nothing but the relay find
// and reach each other.
func TestNodesMeetThroughRelay(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	relayCtx, stopRelay := context.WithCancel(ctx)
	out, in := io.Pipe()
	var log bytes.Buffer
	stopped := make(chan error, 1)
	go func() {
		stopped <- run(relayCtx, []string{
			"-key", filepath.Join(t.TempDir(), "relay.key"), "-listen", "/ip4/127.0.0.1/tcp/0", "-log", "warn",
		}, in, &log)
	}()
	addr, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	addr = addr[:len(addr)-1]

	const proto = "/cansync/test/1"
	hidden := node(t, func(c *libp2p.Config) {
		c.Bootstrap, c.Relay, c.Reachability = []string{addr}, []string{addr}, libp2p.ReachabilityPrivate
	})
	hidden.Handle(proto, func(s transport.Stream) { _ = s.Close() })
	other := node(t, func(c *libp2p.Config) { c.Bootstrap = []string{addr} })
	key := [32]byte{7}
	require.NoError(t, hidden.Advertise(ctx, key, time.Hour))
	var found transport.PeerInfo
	// A search that begins before the node is connected to the relay finds nobody.
	require.Eventually(t, func() bool {
		for p, err := range other.Find(ctx, key) {
			if err == nil {
				found = p
			}
		}
		return found.ID == hidden.ID()
	}, time.Minute, 50*time.Millisecond)
	s, err := other.Open(ctx, found, proto, transport.OpenOptions{})
	require.NoError(t, err)
	require.NoError(t, s.Close())

	stopRelay()
	require.NoError(t, <-stopped)
	require.NoError(t, out.Close())
}

func TestUsage(t *testing.T) {
	var log bytes.Buffer
	ctx := context.Background()
	require.ErrorIs(t, run(ctx, []string{"-h"}, io.Discard, &log), flag.ErrHelp)
	for _, args := range [][]string{{"-no"}, {"extra"}, {"-allow", "x"}, {"-log", "loud"}} {
		require.ErrorIs(t, run(ctx, args, io.Discard, &log), errUsage)
	}
	key := filepath.Join(t.TempDir(), "k")
	require.ErrorIs(t, run(ctx, []string{"-key", key, "-listen", "x"}, io.Discard, &log), libp2p.ErrConfig)
	require.ErrorIs(t, run(ctx, []string{"-key", key, "-data", "-1"}, io.Discard, &log), libp2p.ErrConfig)
	o, err := parse(nil, &log)
	require.NoError(t, err)
	require.NoError(t, libp2p.Config{
		PrivateKey: make(ed25519.PrivateKey, ed25519.PrivateKeySize), Network: libp2p.Private,
		Listen: o.listen, ServeRelay: &o.relay,
	}.Validate())
}
