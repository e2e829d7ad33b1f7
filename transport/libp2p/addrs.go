package libp2p

import (
	"crypto/ed25519"
	"errors"
	"net"
	"strings"

	"github.com/cansync/cansync/transport"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// maxPeerAddrs bounds the addresses of one peer that are taken from one source.
const maxPeerAddrs = 32

var errNotEd25519 = errors.New("libp2p: peer id is not of an Ed25519 key")

func publicID(key ed25519.PrivateKey) transport.PeerID {
	return transport.PeerID(key.Public().(ed25519.PublicKey))
}

func toHostID(p transport.PeerID) (peer.ID, error) {
	return peer.Decode(p.String())
}

// fromHostID fails for peers whose key is not Ed25519.
func fromHostID(p peer.ID) (transport.PeerID, error) {
	// The public key of an Ed25519 peer is part of its id; see
	// https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md.
	const prefix = "\x00\x24\x08\x01\x12\x20"
	var id transport.PeerID
	if len(p) != len(prefix)+len(id) || !strings.HasPrefix(string(p), prefix) {
		return id, errNotEd25519
	}
	copy(id[:], p[len(prefix):])
	return id, nil
}

func codes(a ma.Multiaddr) []int {
	out := make([]int, 0, len(a))
	for _, c := range a {
		out = append(out, c.Protocol().Code)
	}
	return out
}

func isIP(code int) bool { return code == ma.P_IP4 || code == ma.P_IP6 }

// isTCP reports whether a is exactly an IP address and a TCP port.
func isTCP(a ma.Multiaddr) bool {
	c := codes(a)
	return len(c) == 2 && isIP(c[0]) && c[1] == ma.P_TCP
}

// isQUIC reports whether a is exactly an IP address, a UDP port and QUIC v1.
func isQUIC(a ma.Multiaddr) bool {
	c := codes(a)
	return len(c) == 3 && isIP(c[0]) && c[1] == ma.P_UDP && c[2] == ma.P_QUIC_V1
}

func isRelayed(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}

// dnsName is the name that must be looked up before a can be dialled, in lower
// case, or empty.
func dnsName(a ma.Multiaddr) string {
	for _, c := range a {
		switch c.Protocol().Code {
		case ma.P_DNS, ma.P_DNS4, ma.P_DNS6, ma.P_DNSADDR:
			return strings.ToLower(strings.TrimSuffix(c.Value(), "."))
		}
	}
	return ""
}

// addrIP is the IP address that a begins with, or nil.
func addrIP(a ma.Multiaddr) net.IP {
	if len(a) == 0 || !isIP(a[0].Protocol().Code) {
		// An IPv6 zone stands before its address.
		if len(a) < 2 || a[0].Protocol().Code != ma.P_IP6ZONE || a[1].Protocol().Code != ma.P_IP6 {
			return nil
		}
		return net.IP(a[1].RawValue())
	}
	return net.IP(a[0].RawValue())
}

// isLocalAddr reports whether a packet to a stays on the machine or in the local
// network: loopback, link-local, RFC 1918 and RFC 4193 addresses, reached
// directly. Everything else, names and relays included, counts as public.
func isLocalAddr(a ma.Multiaddr) bool {
	ip := addrIP(a)
	if ip == nil || isRelayed(a) {
		return false
	}
	return ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast()
}

// parseAddrs reads addresses of the peer as the interface spells them. Those that
// are malformed, of another peer, or refused by keep are left out.
func parseAddrs(id peer.ID, addrs []string, keep func(ma.Multiaddr) bool) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, s := range addrs {
		if len(out) == maxPeerAddrs {
			break
		}
		if len(s) > 512 {
			continue
		}
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			continue
		}
		transport, other := peer.SplitAddr(a)
		if transport == nil || (other != "" && other != id) || !keep(transport) {
			continue
		}
		out = append(out, transport)
	}
	return out
}

func formatAddrs(addrs []ma.Multiaddr) []string {
	out := make([]string, 0, min(len(addrs), maxPeerAddrs))
	for _, a := range addrs {
		if len(out) == maxPeerAddrs {
			break
		}
		out = append(out, a.String())
	}
	return out
}

// reachesOut reports whether an address to listen on can be reached from another
// machine.
func reachesOut(listen []ma.Multiaddr) bool {
	for _, a := range listen {
		if !manet.IsIPLoopback(a) {
			return true
		}
	}
	return false
}
