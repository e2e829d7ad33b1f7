package libp2p

import (
	"errors"
	"fmt"
	"io"

	"github.com/libp2p/go-libp2p/core/host"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// ErrListen is matched by the errors of addresses that can't be listened on. They say
// which.
var ErrListen = errors.New("libp2p: can't listen")

// CheckListen reports whether the addresses in Listen can be had now, before anything
// else is made. A port that another program shares with whoever asks counts as taken:
// each would get some of the connections. The default addresses are not looked at.
// Errors match [ErrConfig] or [ErrListen].
func (c Config) CheckListen() error {
	if len(c.Listen) == 0 {
		return nil
	}
	addrs, err := parseListen(c.Listen)
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range addrs {
		if err := tryListen(a); err != nil {
			errs = append(errs, listenErr(a, err))
		}
	}
	return errors.Join(errs...)
}

func tryListen(a ma.Multiaddr) error {
	var s io.Closer
	var err error
	if isTCP(a) {
		s, err = manet.Listen(a)
	} else {
		s, err = manet.ListenPacket(a)
	}
	if err != nil {
		return err
	}
	return s.Close()
}

func listenErr(a ma.Multiaddr, err error) error { return fmt.Errorf("%w on %s: %w", ErrListen, a, err) }

// openListeners opens the listeners. Explicit addresses must all work, since someone
// counts on each; a machine without IPv6 still has the other default ones.
func (s *settings) openListeners(h host.Host) error {
	var errs []error
	for _, a := range s.listen {
		if err := h.Network().Listen(a); err != nil {
			errs = append(errs, listenErr(a, err))
		}
	}
	if s.listenDefault && len(errs) < len(s.listen) {
		return nil
	}
	return errors.Join(errs...)
}
