package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"
)

// socket is a listener and how requests name it.
type socket struct {
	net.Listener
	addr string // host:port as listened on, or "unix"
	host string // the configured host name, if it is one
}

// URL is where the API can be found, for the log.
func (s socket) URL() string {
	if s.addr == "unix" {
		return unixPrefix + s.Addr().String()
	}
	return "http://" + s.addr
}

// listen opens the API's listener. It never listens where other machines can
// connect unless there is a token, whatever a host name resolves to.
func listen(c config) (socket, error) {
	if path, ok := strings.CutPrefix(c.Listen, unixPrefix); ok {
		return listenUnix(path)
	}
	ln, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return socket{}, fmt.Errorf("listen_addr: %w; another program may be using the port, choose a different one", err)
	}
	ap, err := netip.ParseAddrPort(ln.Addr().String())
	if err == nil && !ap.Addr().Unmap().IsLoopback() {
		err = c.checkRemote()
	}
	if err != nil {
		_ = ln.Close()
		return socket{}, err
	}
	s := socket{Listener: ln, addr: netip.AddrPortFrom(ap.Addr().WithZone(""), ap.Port()).String()}
	if host, _, err := net.SplitHostPort(c.Listen); err == nil {
		if _, err := netip.ParseAddr(host); err != nil {
			s.host = host
		}
	}
	return s, nil
}

// listenUnix listens on a socket that only this user can open. One that a process
// left behind is replaced, one in use is not.
func listenUnix(path string) (socket, error) {
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&fs.ModeSocket == 0 {
			return socket{}, fmt.Errorf("listen_addr: %s is there and is not a socket", path)
		}
		if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
			_ = conn.Close()
			return socket{}, fmt.Errorf("listen_addr: another program is using %s", path)
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return socket{}, fmt.Errorf("listen_addr: %w", err)
		}
	}
	ln, err := net.Listen("unix", path) // made with the process's umask
	if err != nil {
		return socket{}, fmt.Errorf("listen_addr: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = ln.Close()
		return socket{}, fmt.Errorf("listen_addr: %w", err)
	}
	return socket{Listener: ln, addr: "unix"}, nil
}
