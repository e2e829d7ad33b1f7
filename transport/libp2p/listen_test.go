package libp2p

import (
	"fmt"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCheckListenNamesWhatIsTaken(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	taken := []string{
		fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", tcp.Addr().(*net.TCPAddr).Port),
		fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", udp.LocalAddr().(*net.UDPAddr).Port),
	}
	free := []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}
	err = Config{Listen: append(free, taken...)}.CheckListen()
	require.ErrorIs(t, err, ErrListen)
	for _, a := range taken {
		require.ErrorContains(t, err, a)
	}
	require.NotContains(t, err.Error(), "tcp/0")
	require.NoError(t, Config{Listen: free}.CheckListen())
	require.NoError(t, Config{}.CheckListen())
	require.ErrorIs(t, Config{Listen: []string{"/ip4/127.0.0.1"}}.CheckListen(), ErrConfig)
	require.NoError(t, tcp.Close())
	require.NoError(t, udp.Close())
}
