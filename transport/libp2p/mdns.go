package libp2p

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cansync/cansync/transport"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/zeroconf/v2"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	mdnsName   = "_cansync._udp"
	mdnsDomain = "local"
	mdnsPrefix = "dnsaddr=" // before each address, as libp2p's mDNS has it
	// mdnsPort must be there for the form's sake; the addresses have their own.
	mdnsPort = 4001
	// mdnsAddrs bounds the announced addresses, so that an answer fits a packet.
	mdnsAddrs   = 12
	mdnsTTL     = 10 * time.Minute // how long found addresses are remembered
	mdnsAgain   = 30 * time.Second // pause after a failure
	mdnsSettle  = time.Second      // addresses change in bursts
	mdnsEntries = 64
	// mdnsSeen is after how many announcements listening starts afresh: zeroconf
	// remembers each until it expires, and anyone may make up names.
	mdnsSeen = 4096
)

// mdnsService announces the node on the local network and listens for others, by
// https://github.com/libp2p/specs/blob/master/discovery/mdns.md under a name of
// its own. It speaks only on interfaces that the node listens on; the wrapper in
// go-libp2p speaks on all of them.
type mdnsService struct {
	t       *Transport
	name    string
	changed chan struct{}
	full    atomic.Bool // the current listener has seen mdnsSeen
}

// newMDNS returns nil if the node listens on loopback only, where there is
// nobody to speak to.
func newMDNS(t *Transport) *mdnsService {
	if !reachesOut(t.cfg.listen) {
		return nil
	}
	// The name of the instance says nothing and changes with every start.
	var b [20]byte
	_, _ = rand.Read(b[:]) // never fails
	name := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
	return &mdnsService{t: t, name: name, changed: make(chan struct{}, 1)}
}

// refresh makes run announce again what changed. It never waits.
func (m *mdnsService) refresh() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// round is what one announcement consists of.
type round struct {
	ifaces []net.Interface
	ips    []string
	txt    []string
}

func (r round) equal(o round) bool {
	same := func(a, b net.Interface) bool { return a.Index == b.Index && a.Name == b.Name }
	return slices.EqualFunc(r.ifaces, o.ifaces, same) && slices.Equal(r.ips, o.ips) && slices.Equal(r.txt, o.txt)
}

func (m *mdnsService) run() {
	ctx := m.t.ctx
	var now round
	stop := func() {}
	for {
		wait := (<-chan time.Time)(nil)
		if m.full.Swap(false) {
			now = round{ips: []string{"stale"}} // equal to no plan
		}
		if next := m.plan(); !next.equal(now) {
			stop()
			var err error
			if stop, err = m.start(ctx, next); err != nil {
				m.t.cfg.Logger.Warn("mDNS does not work", "error", err)
				next = round{}
				wait = time.After(mdnsAgain)
			}
			now = next
		}
		select {
		case <-ctx.Done():
			stop()
			return
		case <-wait:
		case <-m.changed:
			select {
			case <-ctx.Done():
			case <-time.After(mdnsSettle):
			}
		}
	}
}

// plan says what to announce and where.
func (m *mdnsService) plan() round {
	all, err := net.Interfaces()
	if err != nil {
		return round{}
	}
	own, err := m.t.host.Network().InterfaceListenAddresses()
	if err != nil {
		return round{}
	}
	var listen []net.IP
	for _, a := range m.t.cfg.listen {
		listen = append(listen, addrIP(a))
	}
	r := round{ifaces: pickInterfaces(all, listen, interfaceIPs)}
	for _, a := range own {
		ip := addrIP(a)
		if !isLocalAddr(a) || ip.IsLoopback() || len(r.txt) == mdnsAddrs {
			continue
		}
		r.txt = append(r.txt, mdnsPrefix+a.String()+"/p2p/"+m.t.self.String())
		if s := ip.String(); !slices.Contains(r.ips, s) {
			r.ips = append(r.ips, s)
		}
	}
	slices.Sort(r.txt)
	slices.Sort(r.ips)
	if len(r.ifaces) == 0 || len(r.txt) == 0 {
		return round{}
	}
	return r
}

func interfaceIPs(i net.Interface) []net.IP {
	addrs, err := i.Addrs()
	if err != nil {
		return nil
	}
	var out []net.IP
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			out = append(out, n.IP)
		}
	}
	return out
}

// pickInterfaces returns the interfaces on which multicast may be spoken: up, not
// loopback, and listened on, by an unspecified address or one of their own.
func pickInterfaces(all []net.Interface, listen []net.IP, ips func(net.Interface) []net.IP) []net.Interface {
	var out []net.Interface
	for _, i := range all {
		const want = net.FlagUp | net.FlagMulticast
		if i.Flags&want != want || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		has := ips(i)
		if slices.ContainsFunc(listen, func(l net.IP) bool {
			if l.IsUnspecified() {
				// An interface without an address of the family says nothing.
				return slices.ContainsFunc(has, func(ip net.IP) bool { return (ip.To4() == nil) == (l.To4() == nil) })
			}
			return slices.ContainsFunc(has, l.Equal)
		}) {
			out = append(out, i)
		}
	}
	return out
}

func (m *mdnsService) start(ctx context.Context, r round) (stop func(), err error) {
	if len(r.ifaces) == 0 {
		return func() {}, nil
	}
	server, err := zeroconf.RegisterProxy(m.name, mdnsName, mdnsDomain, mdnsPort, m.name, r.ips, r.txt, r.ifaces)
	if err != nil {
		return func() {}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	entries := make(chan *zeroconf.ServiceEntry, mdnsEntries)
	browsed, read := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(browsed)
		if err := zeroconf.Browse(ctx, mdnsName, mdnsDomain, entries, zeroconf.SelectIfaces(r.ifaces)); err != nil && ctx.Err() == nil {
			m.t.cfg.Logger.Warn("mDNS cannot listen", "error", err)
		}
	}()
	go func() {
		defer close(read)
		for seen := 1; ; seen++ {
			select {
			case e, ok := <-entries:
				if !ok {
					return
				}
				m.found(e.Text)
				if seen == mdnsSeen {
					m.full.Store(true)
					m.refresh()
				}
			case <-browsed:
				return
			}
		}
	}()
	return func() {
		cancel()
		server.Shutdown()
		<-browsed
		<-read
	}, nil
}

// found takes in what another node announced.
func (m *mdnsService) found(text []string) {
	for _, info := range parseAnnouncement(text) {
		id, err := fromHostID(info.ID)
		if err != nil || info.ID == m.t.host.ID() {
			continue
		}
		m.t.host.Peerstore().AddAddrs(info.ID, info.Addrs, mdnsTTL)
		m.t.watch.emit(transport.Event{
			Kind: transport.Found,
			Peer: transport.PeerInfo{ID: id, Addrs: formatAddrs(info.Addrs)},
		})
	}
}

// parseAnnouncement reads the text of an announcement. Addresses outside of the
// local network do not belong there and are left out.
func parseAnnouncement(text []string) []peer.AddrInfo {
	var out []peer.AddrInfo
	for _, line := range text[:min(len(text), maxPeerAddrs)] {
		s, ok := strings.CutPrefix(line, mdnsPrefix)
		if !ok {
			continue
		}
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			continue
		}
		addr, id := peer.SplitAddr(a)
		if id == "" || addr == nil || !isLocalAddr(addr) || (!isTCP(addr) && !isQUIC(addr)) {
			continue
		}
		if i := slices.IndexFunc(out, func(p peer.AddrInfo) bool { return p.ID == id }); i >= 0 {
			out[i].Addrs = append(out[i].Addrs, addr)
		} else {
			out = append(out, peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{addr}})
		}
	}
	return out
}
