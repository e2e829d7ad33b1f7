package simlibp2ptest

import (
	"crypto/ed25519"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	golibp2p "github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"
	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/store/memory"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/libp2p"
)

// Three nodes on real QUIC stacks over a simulated network with latency and little
// bandwidth find one another and replicate, in virtual time.
func TestNodesOnLibp2pInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const mbps = 1_000_000
		sim := &simnet.Simnet{LatencyFunc: simnet.StaticLatency(20 * time.Millisecond)}
		link := simnet.NodeBiDiLinkSettings{Downlink: simnet.LinkSettings{BitsPerSecond: 20 * mbps}, Uplink: simnet.LinkSettings{BitsPerSecond: 20 * mbps}}
		var nodes []*cansync.Node
		var svcs []*cantest.Service
		for i := range 3 {
			svc := cantest.New(cantest.Options{})
			n, err := cansync.New(t.Context(), cansync.Config{
				CAN: svc, DataDir: t.TempDir(), Store: memory.New(),
				Transport: func(seed [32]byte) (transport.Transport, error) {
					return libp2p.New(libp2p.Config{
						PrivateKey: ed25519.NewKeyFromSeed(seed[:]), Network: libp2p.Private,
						Listen:       []string{fmt.Sprintf("/ip4/%s/udp/8000/quic-v1", simnet.IntToPublicIPv4(i))},
						Reachability: libp2p.ReachabilityPublic, DisableMDNS: true,
						HostOptions: []golibp2p.Option{simlibp2p.QUICSimnet(sim, link), golibp2p.DisableIdentifyAddressDiscovery()},
					})
				},
			})
			require.NoError(t, err)
			nodes, svcs = append(nodes, n), append(svcs, svc)
			if i == 0 {
				sim.Start()
			}
		}
		l, err := nodes[0].CreateLibrary(t.Context(), "simulated", cansync.Filter{})
		require.NoError(t, err)
		for _, n := range nodes[1:] {
			tk, err := l.Invite(t.Context(), cansync.InviteOptions{})
			require.NoError(t, err)
			_, err = n.Join(t.Context(), tk)
			require.NoError(t, err)
		}
		svcs[0].Add([]byte("content"), can.Metadata{MIMEType: "image/png"})
		for range 600 {
			if svcs[1].Len() == 1 && svcs[2].Len() == 1 {
				break
			}
			time.Sleep(time.Second)
		}
		require.Equal(t, 1, svcs[1].Len())
		require.Equal(t, 1, svcs[2].Len())
		for i, n := range nodes {
			require.NoError(t, n.Close())
			require.NoError(t, svcs[i].Close())
		}
		sim.Close()
	})
}
