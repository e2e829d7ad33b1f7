package libp2p

import (
	"crypto/ed25519"
	"crypto/rand"
	"testing"

	"github.com/cansync/cansync/transport"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return key
}

var loopback = []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}

// start runs a node on loopback; edit may change its configuration.
func start(t testing.TB, edit func(*Config)) *Transport {
	t.Helper()
	cfg := Config{PrivateKey: newKey(t), Network: Private, Listen: loopback}
	if edit != nil {
		edit(&cfg)
	}
	n, err := New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	return n
}

func info(t *Transport) transport.PeerInfo {
	return transport.PeerInfo{ID: t.ID(), Addrs: t.Addrs()}
}

func rsaKey() (crypto.PrivKey, error) {
	priv, _, err := crypto.GenerateRSAKeyPair(2048, rand.Reader)
	return priv, err
}
