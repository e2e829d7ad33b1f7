package cansync

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/transport/libp2p"
)

var loopback = []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}

// A ticket without an address leads to the library through the DHT: three nodes
// that know nothing but a common bootstrap node find each other under keys that
// say nothing to it.
func TestATicketWithoutAddressesFindsItsWay(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	boot, err := libp2p.New(libp2p.Config{
		PrivateKey: key, Network: libp2p.Private, Listen: loopback, Reachability: libp2p.ReachabilityPublic, DisableMDNS: true,
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, boot.Close()) }()

	var nodes []*Node
	var services []*cantest.Service
	for range 3 {
		svc := cantest.New(cantest.Options{})
		n, err := New(t.Context(), Config{
			CAN: svc, DataDir: t.TempDir(), Network: Private, Listen: loopback, Bootstrap: boot.FullAddrs(),
		})
		require.NoError(t, err)
		defer func() { require.NoError(t, n.Close()); require.NoError(t, svc.Close()) }()
		nodes, services = append(nodes, n), append(services, svc)
	}
	for i := range 5 {
		services[0].Add(fmt.Append(nil, "asset ", i), can.Metadata{MIMEType: "text/plain"})
	}
	lib, err := nodes[0].CreateLibrary(t.Context(), "notes", Filter{})
	require.NoError(t, err)
	for i, n := range nodes[1:] {
		from := nodes[i] // the second ticket comes from the first joiner
		l, err := from.Library(lib.ID())
		require.NoError(t, err)
		soon(t, func() bool { return l.Access().Has(Invite) && l.peek().Described() })
		tk, err := l.Invite(t.Context(), InviteOptions{})
		require.NoError(t, err)
		tk.t.Peers = nil
		_, err = n.Join(t.Context(), tk)
		require.NoError(t, err)
		soon(t, func() bool { return services[i+1].Len() == 5 })
	}
	services[2].Add([]byte("from the last"), can.Metadata{MIMEType: "text/plain"})
	soon(t, func() bool { return services[0].Len() == 6 && services[1].Len() == 6 })
	soon(t, func() bool {
		for _, n := range nodes {
			l, err := n.Library(lib.ID())
			require.NoError(t, err)
			if s, err := l.Status(t.Context()); err != nil || s.Peers != 2 {
				return false
			}
		}
		return true
	})
}

// soon waits for what real networks take real time for.
func soon(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(2 * time.Minute); ; {
		if ok() {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			require.FailNow(t, "it did not happen in two minutes")
		}
	}
}
