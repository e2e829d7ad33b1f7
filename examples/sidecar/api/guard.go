package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// guard decides who may ask at all.
//
// A web page can make the user's browser send requests to the loopback interface.
// Under its own name it can't read the answers but may cause effects (CSRF): such
// requests carry an Origin or Sec-Fetch-Site that is not ours. Under a name that
// it lets point to 127.0.0.1 (DNS rebinding) it could read too: such requests
// carry that name in Host.
type guard struct {
	unix  bool
	port  string
	names map[string]bool // host names, and IP addresses in canonical form
	anyIP bool            // listening on all addresses: any IP literal names one of them
	token *[sha256.Size]byte
}

// unixAddr is the Addr of a listener on a socket in the file system, which no
// browser can reach.
const unixAddr = "unix"

func newGuard(addr, host, token string) (guard, error) {
	g := guard{names: map[string]bool{"localhost": true, "127.0.0.1": true, "::1": true}}
	if token != "" {
		sum := sha256.Sum256([]byte(token))
		g.token = &sum
	}
	if addr == unixAddr {
		g.unix = true
		return g, nil
	}
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return g, fmt.Errorf("api: Addr %q is not an IP address and a port", addr)
	}
	g.port = strconv.Itoa(int(ap.Port()))
	g.names[ap.Addr().Unmap().WithZone("").String()] = true
	g.anyIP = ap.Addr().IsUnspecified()
	if host != "" {
		g.names[strings.ToLower(host)] = true
	}
	return g, nil
}

// check returns the failure that a request is refused with, or nil.
func (g guard) check(r *http.Request) error {
	// Nothing but a program of this user reaches a socket in the file system, by any name.
	if !g.unix && !g.host(r.Host) {
		return failf(http.StatusMisdirectedRequest, "the Host header does not name this sidecar; use the address in listen_addr")
	}
	if !g.origin(r) {
		return failf(http.StatusForbidden, "requests from web pages of other origins are refused")
	}
	if g.token != nil && !g.authorized(r) {
		return failf(http.StatusUnauthorized, "a token is required: send the api_token of the configuration as \"Authorization: Bearer <token>\"")
	}
	return nil
}

// host reports whether a Host header names this listener.
func (g guard) host(host string) bool {
	name, port := host, ""
	if h, p, err := net.SplitHostPort(host); err == nil {
		name, port = h, p
		if p == "" || host[0] == '[' && !strings.Contains(h, ":") {
			return false
		}
	} else if inner, ok := strings.CutPrefix(name, "["); ok {
		if name, ok = strings.CutSuffix(inner, "]"); !ok || !strings.Contains(name, ":") {
			return false
		}
	}
	switch {
	case port == "" && g.port != "80", port != "" && port != g.port:
		return false
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		return ip.Zone() == "" && (g.anyIP || g.names[ip.Unmap().String()])
	}
	return g.names[strings.ToLower(name)]
}

// origin reports whether a request comes from no web page or from one of this
// very origin, of which there are none yet.
func (g guard) origin(r *http.Request) bool {
	switch site := r.Header.Values("Sec-Fetch-Site"); {
	case len(site) == 0:
	case len(site) > 1, site[0] != "same-origin" && site[0] != "none":
		return false
	}
	switch origins := r.Header.Values("Origin"); len(origins) {
	case 0:
		return true
	case 1:
		u, err := url.Parse(origins[0])
		return err == nil && u.Scheme == "http" && strings.EqualFold(u.Host, r.Host) && !g.unix &&
			origins[0] == u.Scheme+"://"+u.Host
	default:
		return false
	}
}

// authorized compares the bearer token in constant time.
func (g guard) authorized(r *http.Request) bool {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return false
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	sum := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(sum[:], g.token[:]) == 1
}

// secure sets the headers that keep browsers from doing anything with an answer.
func secure(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
}
