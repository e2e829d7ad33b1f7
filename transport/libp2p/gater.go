package libp2p

import (
	"context"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// gater decides which addresses are dialled and which peers may connect.
type gater struct{ network Network }

var _ connmgr.ConnectionGater = gater{}

func (g gater) InterceptPeerDial(peer.ID) bool { return true }

// InterceptAddrDial keeps packets off public addresses in a LAN.
func (g gater) InterceptAddrDial(_ peer.ID, a ma.Multiaddr) bool {
	return g.dialable(a)
}

func (g gater) dialable(a ma.Multiaddr) bool {
	return g.network != LAN || isLocalAddr(a)
}

// InterceptAccept hangs up on public addresses in a LAN.
func (g gater) InterceptAccept(c network.ConnMultiaddrs) bool {
	return g.dialable(c.RemoteMultiaddr())
}

// InterceptSecured lets in only peers with Ed25519 keys: checking huge RSA keys
// was a way to burn a node's time (CVE-2023-39533), and a PeerID cannot name
// others. The public bootstrap peers have RSA keys, so that the node itself may
// dial such peers in the public network; they get no stream of ours.
func (g gater) InterceptSecured(dir network.Direction, p peer.ID, _ network.ConnMultiaddrs) bool {
	if _, err := fromHostID(p); err == nil {
		return true
	}
	return g.network == Public && dir == network.DirOutbound
}

func (g gater) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

// resolver looks up only names that the configuration gave, and names below
// them: addresses that peers announce cause no look-up.
type resolver struct {
	names map[string]struct{}
	next  network.MultiaddrDNSResolver
}

var _ network.MultiaddrDNSResolver = resolver{}

func (r resolver) allowed(a ma.Multiaddr) bool {
	for name := dnsName(a); name != ""; {
		if _, ok := r.names[name]; ok {
			return true
		}
		_, rest, found := strings.Cut(name, ".")
		if !found {
			return false
		}
		name = rest
	}
	return false
}

func (r resolver) ResolveDNSAddr(ctx context.Context, p peer.ID, a ma.Multiaddr, depth, limit int) ([]ma.Multiaddr, error) {
	if !r.allowed(a) {
		return nil, nil
	}
	return r.next.ResolveDNSAddr(ctx, p, a, depth, limit)
}

func (r resolver) ResolveDNSComponent(ctx context.Context, a ma.Multiaddr, limit int) ([]ma.Multiaddr, error) {
	if !r.allowed(a) {
		return nil, nil
	}
	return r.next.ResolveDNSComponent(ctx, a, limit)
}

// Delays between dials of one peer. They follow Happy Eyeballs (RFC 8305), as
// go-libp2p's own ranking does.
const (
	localStep   = 30 * time.Millisecond
	publicStep  = 250 * time.Millisecond
	relayOffset = 500 * time.Millisecond
)

// rankDials orders the addresses of a peer. In the local network TCP goes first:
// it carries two to three times as much as QUIC for a third of the work. Across
// the internet QUIC goes first: it crosses NATs better and its handshake is
// shorter. Relays wait until direct addresses had their chance.
func rankDials(addrs []ma.Multiaddr) []network.AddrDelay {
	var groups [2][2][]ma.Multiaddr // local or public; first or second choice
	var relayed, other []ma.Multiaddr
	for _, a := range addrs {
		switch {
		case isRelayed(a):
			relayed = append(relayed, a)
		case !isTCP(a) && !isQUIC(a):
			other = append(other, a)
		case manet.IsPrivateAddr(a) || isLocalAddr(a):
			groups[0][choice(isTCP(a))] = append(groups[0][choice(isTCP(a))], a)
		default:
			groups[1][choice(isQUIC(a))] = append(groups[1][choice(isQUIC(a))], a)
		}
	}
	out := make([]network.AddrDelay, 0, len(addrs))
	for i, step := range []time.Duration{localStep, publicStep} {
		delay := time.Duration(0)
		for _, rank := range groups[i] {
			if len(rank) == 0 {
				continue
			}
			for j, a := range rank {
				// The first of a rank goes alone, the rest together after it.
				if j == 1 {
					delay += step
				}
				out = append(out, network.AddrDelay{Addr: a, Delay: delay})
			}
			delay += step
		}
	}
	offset := time.Duration(0)
	if len(out) > 0 {
		offset = relayOffset
	}
	for i, a := range append(relayed, other...) {
		out = append(out, network.AddrDelay{Addr: a, Delay: offset + time.Duration(min(i, 4))*publicStep})
	}
	return out
}

func choice(first bool) int {
	if first {
		return 0
	}
	return 1
}
