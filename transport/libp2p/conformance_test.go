package libp2p

import (
	"testing"

	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/transporttest"
)

// onlyTransport hides the Discovery of a Transport, which does nothing in a LAN.
type onlyTransport struct{ transport.Transport }

// TestConformance runs in a LAN: a DHT is free to dial its peers again whenever
// it likes, while the suite counts connections. TestPrivateDHT has the rest.
func TestConformance(t *testing.T) {
	lan := func(c *Config) { c.Network = LAN }
	transporttest.Run(t, func(t testing.TB) (a, b, c transport.Transport) {
		return onlyTransport{start(t, lan)}, onlyTransport{start(t, lan)}, onlyTransport{start(t, lan)}
	})
}
