package libp2p

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/cansync/cansync/transport"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	reserveEvery   = 10 * time.Second // looks after the reservations
	reserveTimeout = 15 * time.Second
	reserveBackoff = 5 * time.Minute // longest pause after failures
	renewLast      = time.Hour       // for a reservation to be renewed
	circuitAddrs   = 8               // announced for one relay
)

// reservations are the places that the node holds at the relays it was given.
// The autorelay of go-libp2p would wait for AutoNAT to find the node unreachable
// and would announce only relays with public addresses: a private network may
// have neither.
type reservations struct {
	mu   sync.Mutex
	held map[peer.ID][]ma.Multiaddr // circuit addresses by relay
}

// announce adds the addresses behind relays to the node's own.
func (r *reservations) announce(addrs []ma.Multiaddr) []ma.Multiaddr {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := slices.Clone(addrs)
	for _, via := range r.held {
		out = append(out, via...)
	}
	return out
}

// set reports whether something changed.
func (r *reservations) set(relay peer.ID, via []ma.Multiaddr) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.EqualFunc(r.held[relay], via, ma.Multiaddr.Equal) {
		return false
	}
	if len(via) == 0 {
		delete(r.held, relay)
	} else {
		r.held[relay] = via
	}
	return true
}

// place is what is known of one relay.
type place struct {
	renew  time.Time // of the reservation, or of the next attempt
	failed time.Duration
	held   bool
}

// keepReservations holds a place at each given relay until the transport closes.
func (t *Transport) keepReservations() {
	places := make([]place, len(t.cfg.relay))
	tick := time.NewTicker(reserveEvery)
	defer tick.Stop()
	for {
		changed := false
		for i, relay := range t.cfg.relay {
			p := &places[i]
			// With the connection to the relay, the place is lost.
			lost := p.held && t.host.Network().Connectedness(relay.ID) != network.Connected
			if now := time.Now(); lost || !now.Before(p.renew) {
				changed = t.reserve(relay, p) || changed
			}
			if t.closed() {
				return
			}
		}
		if changed {
			t.watch.emit(transport.Event{Kind: transport.Addresses})
		}
		select {
		case <-t.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (t *Transport) reserve(relay peer.AddrInfo, p *place) (changed bool) {
	ctx, cancel := context.WithTimeout(t.ctx, reserveTimeout)
	defer cancel()
	r, err := client.Reserve(ctx, t.host, relay)
	now := time.Now()
	if err != nil {
		if !t.closed() {
			t.cfg.Logger.Warn("no place at the relay", "relay", relay.ID.String(), "error", err)
		}
		p.held = false
		p.failed = min(max(2*p.failed, reserveEvery), reserveBackoff)
		p.renew = now.Add(p.failed)
		return t.reserved.set(relay.ID, nil)
	}
	p.held, p.failed = true, 0
	p.renew = now.Add(renewAfter(r.Expiration.Sub(now)))
	return t.reserved.set(relay.ID, circuits(relay, r.Addrs))
}

// renewAfter is when to renew a reservation that lasts so long. A relay with a wrong
// clock must make the node neither ask all the time nor never again.
func renewAfter(lasts time.Duration) time.Duration {
	return min(max(lasts/4*3, time.Minute), renewLast)
}

// circuits are the addresses of the node behind a relay: what the relay says of
// itself and how it was given. Names come last, for others may not look them up.
func circuits(relay peer.AddrInfo, told []ma.Multiaddr) []ma.Multiaddr {
	behind := ma.StringCast("/p2p/" + relay.ID.String() + "/p2p-circuit")
	var out, named []ma.Multiaddr
	for _, a := range append(slices.Clone(told), relay.Addrs...) {
		addr, id := peer.SplitAddr(a)
		if addr == nil || (id != "" && id != relay.ID) || isRelayed(a) {
			continue
		}
		if dnsName(addr) != "" {
			named = append(named, addr.Encapsulate(behind))
		} else {
			out = append(out, addr.Encapsulate(behind))
		}
	}
	out = ma.Unique(append(out, named...))
	return out[:min(len(out), circuitAddrs)]
}
