package libp2p

import (
	"time"

	"github.com/cansync/cansync/transport"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// RelayService says how much a node relays for others, by the circuit relay
// protocol v2 (https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md).
// What it relays stays encrypted between the two ends. The zero value relays
// without a limit on data and time for up to 256 nodes.
type RelayService struct {
	// MaxReservations is how many nodes may be reached through the relay at a
	// time; 0 means 256.
	MaxReservations int
	// MaxReservationsPerIP is how many of them may share an IP address; 0 means
	// 64.
	MaxReservationsPerIP int
	// MaxCircuits is how many relayed connections one node may have; 0 means 64.
	MaxCircuits int
	// BufferSize is the size of the buffers of a relayed connection in bytes, one
	// for each direction; 0 means 64 KiB. At most 1 MiB.
	BufferSize int
	// Data limits the bytes of a relayed connection in each direction; 0 means no
	// limit. Connections with a limit are marked as limited, and bulk data keeps
	// away from them.
	Data int64
	// Duration limits the time of a relayed connection; 0 means no limit. It
	// marks connections as limited, too.
	Duration time.Duration
	// Allow lists the nodes that may be reached through the relay and those that
	// may connect to them; empty means everyone.
	Allow []transport.PeerID
}

func (r RelayService) validate() error {
	if min(r.MaxReservations, r.MaxReservationsPerIP, r.MaxCircuits, r.BufferSize) < 0 || r.Data < 0 || r.Duration < 0 {
		return configErr("limits of the relay must not be negative")
	}
	if r.BufferSize > 1<<20 {
		return configErr("relay buffers of %d bytes are above 1 MiB", r.BufferSize)
	}
	return nil
}

func orDefault[T int | int64](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

func (s *settings) relayOptions() []relay.Option {
	r := s.ServeRelay
	res := relay.DefaultResources()
	res.MaxReservations = orDefault(r.MaxReservations, 256)
	res.MaxReservationsPerIP = orDefault(r.MaxReservationsPerIP, 64)
	// Nodes of one provider's network are not fewer than those of one address.
	res.MaxReservationsPerASN = res.MaxReservations
	res.MaxCircuits = orDefault(r.MaxCircuits, 64)
	res.BufferSize = orDefault(r.BufferSize, 64<<10)
	res.Limit = nil
	if r.Data > 0 || r.Duration > 0 {
		const (
			noData = int64(1) << 50 // the protocol has no other way to say it
			noTime = 30 * 24 * time.Hour
		)
		res.Limit = &relay.RelayLimit{Data: orDefault(r.Data, noData), Duration: r.Duration}
		if r.Duration == 0 {
			res.Limit.Duration = noTime
		}
	}
	opts := []relay.Option{relay.WithResources(res)}
	if s.Network == Private {
		// A private network may live on private addresses as a whole.
		out := reachesOut(s.listen)
		opts = append(opts, relay.WithReservationAddressFilter(func(a ma.Multiaddr) bool {
			return !out || !manet.IsIPLoopback(a)
		}))
	}
	if len(r.Allow) > 0 {
		acl := make(relayACL, len(r.Allow))
		for _, p := range r.Allow {
			acl[p] = struct{}{}
		}
		opts = append(opts, relay.WithACL(acl))
	}
	return opts
}

type relayACL map[transport.PeerID]struct{}

var _ relay.ACLFilter = relayACL{}

func (a relayACL) has(p peer.ID) bool {
	id, err := fromHostID(p)
	if err != nil {
		return false
	}
	_, ok := a[id]
	return ok
}

func (a relayACL) AllowReserve(p peer.ID, _ ma.Multiaddr) bool { return a.has(p) }

func (a relayACL) AllowConnect(src peer.ID, _ ma.Multiaddr, dest peer.ID) bool {
	return a.has(src) && a.has(dest)
}
