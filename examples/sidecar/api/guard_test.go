package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	tmem "github.com/cansync/cansync/transport/memory"
	"github.com/stretchr/testify/require"
)

// everyRoute is one well-formed request for each route, for a library that is
// there.
func everyRoute(id string) [][3]string {
	lib := "/libraries/" + id
	return [][3]string{
		{"GET", "/status", ""},
		{"GET", "/peers", ""},
		{"GET", "/events", ""},
		{"POST", "/join", `{"ticket":"x"}`},
		{"GET", "/libraries", ""},
		{"POST", "/libraries", `{"name":"evil","filter":{}}`},
		{"GET", lib, ""},
		{"PATCH", lib, `{"delete_policy":"trash"}`},
		{"DELETE", lib, ""},
		{"DELETE", lib + "?purge=true&confirm=good", ""},
		{"POST", lib + "/invite", ""},
		{"GET", lib + "/members", ""},
		{"POST", lib + "/pause", ""},
		{"POST", lib + "/resume", ""},
		{"POST", lib + "/removals/confirm", ""},
		{"POST", lib + "/removals/dismiss", ""},
		{"PATCH", lib, `{"mode":"receive-only","view":{"user":"x"},"publish":"approve"}`},
		{"GET", lib + "/progress", ""},
		{"POST", lib + "/fetch", `{"digests":["` + absentID + `"]}`},
		{"POST", lib + "/prioritize", `{"digests":["` + absentID + `"]}`},
		{"GET", "/limits", ""},
		{"PATCH", "/limits", `{"upload":1}`},
		{"GET", "/peers/" + somePeer + "/limits", ""},
		{"PATCH", "/peers/" + somePeer + "/limits", `{"upload":1}`},
		{"GET", lib + "/approvals", ""},
		{"POST", lib + "/approve", `{"digests":["` + absentID + `"]}`},
		{"POST", lib + "/decline", `{"digests":["` + absentID + `"]}`},
		{"GET", lib + "/assets/" + absentID + "/holders", ""},
		{"GET", lib + "/assets", ""},
		{"GET", lib + "/assets/" + absentID, ""},
		{"DELETE", lib + "/assets/" + absentID, ""},
	}
}

// refused sends a changed form of a request for every route and wants it refused
// without an effect.
func refused(t *testing.T, r *rig, how string, change func(*http.Request), codes ...int) {
	t.Helper()
	before := get[[]libraryView](t, r, "GET", "/libraries", "")
	require.Len(t, before, 1)
	for _, c := range everyRoute(before[0].ID) {
		req := request(c[0], c[1], c[2])
		change(req)
		require.Contains(t, codes, r.do(t, req).code, "%s: %s %s", how, c[0], c[1])
	}
	require.Equal(t, before, get[[]libraryView](t, r, "GET", "/libraries", ""), how)
}

func TestForeignOrigins(t *testing.T) {
	r := single(t)
	r.create(t, "good", `{}`)
	for _, origin := range []string{
		"https://evil.example", "http://evil.example:3213", "null", "", "http://127.0.0.1:8080", "http://localhost:3213",
		"http://127.0.0.1", "https://127.0.0.1:3213", "http://127.0.0.1:3213/", "http://127.0.0.1:3213@evil.example", "file://",
	} {
		refused(t, r, "Origin "+origin, func(q *http.Request) { q.Header.Set("Origin", origin) }, http.StatusForbidden)
	}
	refused(t, r, "two origins", func(q *http.Request) {
		q.Header["Origin"] = []string{"http://" + testAddr, "http://evil.example"}
	}, http.StatusForbidden)
	for _, site := range []string{"cross-site", "same-site", "", "other"} {
		refused(t, r, "Sec-Fetch-Site "+site, func(q *http.Request) { q.Header.Set("Sec-Fetch-Site", site) }, http.StatusForbidden)
	}
	// Forms and scripts without an Origin are no JSON and change nothing.
	for _, kind := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""} {
		req := request("POST", "/libraries", `{"name":"evil","filter":{}}`)
		req.Header.Set("Content-Type", kind)
		require.Equal(t, http.StatusUnsupportedMediaType, r.do(t, req).code, kind)
	}
	// A preflight gets no permission.
	req := request("OPTIONS", "/libraries", "")
	req.Header.Set("Origin", "https://evil.example")
	req.Header.Set("Access-Control-Request-Method", "POST")
	require.Equal(t, http.StatusForbidden, r.do(t, req).code)
	require.Len(t, get[[]libraryView](t, r, "GET", "/libraries", ""), 1)
	// Its own origin, and what is typed into the address bar, are fine.
	for name, value := range map[string]string{"Origin": "http://" + testAddr, "Sec-Fetch-Site": "none"} {
		req := request("GET", "/libraries", "")
		req.Header.Set(name, value)
		require.Equal(t, http.StatusOK, r.do(t, req).code)
	}
}

func TestForeignHosts(t *testing.T) {
	const token = "0123456789abcdef"
	for _, with := range []string{"", token} {
		r := newRig(t, tmem.NewNetwork(tmem.Options{}), func(o *Options) { o.Token = with })
		for _, host := range []string{
			"evil.example:3213", "127.0.0.1.evil.example", "127.0.0.1.evil.example:3213", "localhost.evil", "localhost.evil:3213",
			"127.0.0.1:3214", "127.0.0.1", "localhost", "localhost:", "", ":3213", "127.0.0.2:3213", "192.168.1.2:3213",
			"127.0.0.1:3213:3213", "[::1]", "[::1]:1", "[::1%25lo]:3213", "127.0.0.1:03213", "localhost.:3213", "[localhost]:3213",
			"0x7f.1:3213", "2130706433:3213", "127.1:3213",
		} {
			for _, c := range everyRoute(absentID) {
				req := request(c[0], c[1], c[2])
				req.Host = host
				req.Header.Set("Authorization", "Bearer "+token)
				require.Equal(t, http.StatusMisdirectedRequest, r.do(t, req).code, "%q %s", host, c)
			}
		}
		for _, host := range []string{testAddr, "localhost:3213", "LOCALHOST:3213", "[::1]:3213", "[::ffff:127.0.0.1]:3213"} {
			req := request("GET", "/status", "")
			req.Host = host
			req.Header.Set("Authorization", "Bearer "+token)
			require.Equal(t, http.StatusOK, r.do(t, req).code, host)
		}
		require.Zero(t, r.Panics())
	}
}

func TestHostsOfOtherListeners(t *testing.T) {
	for _, c := range []struct {
		addr, host string
		yes, no    []string
	}{
		{"192.168.1.2:80", "", []string{"192.168.1.2", "192.168.1.2:80", "localhost"}, []string{"192.168.1.3", "evil.example"}},
		{"0.0.0.0:3213", "", []string{"192.168.1.2:3213", "10.0.0.1:3213", "localhost:3213"}, []string{"evil.example:3213", "192.168.1.2"}},
		{"[::]:3213", "", []string{"192.168.1.2:3213", "[fe80::1]:3213"}, []string{"evil.example:3213"}},
		{"192.168.1.2:3213", "Nas.lan", []string{"nas.lan:3213", "192.168.1.2:3213"}, []string{"other.lan:3213", "nas.lan"}},
	} {
		g, err := newGuard(c.addr, c.host, "")
		require.NoError(t, err)
		for _, h := range c.yes {
			require.True(t, g.host(h), "%s %s", c.addr, h)
		}
		for _, h := range c.no {
			require.False(t, g.host(h), "%s %s", c.addr, h)
		}
	}
	// What reaches a socket in the file system is no browser, whatever name it gives.
	g, err := newGuard("unix", "", "")
	require.NoError(t, err)
	for _, h := range []string{"", "x", "localhost:1", "evil.example"} {
		require.NoError(t, g.check(&http.Request{Host: h, Header: http.Header{}}))
		require.Error(t, g.check(&http.Request{Host: h, Header: http.Header{"Origin": {"http://" + h}}}))
	}
	_, err = newGuard("localhost:3213", "", "")
	require.Error(t, err)
}

func TestToken(t *testing.T) {
	const token = "Secret-0123456789"
	r := newRig(t, tmem.NewNetwork(tmem.Options{}), func(o *Options) { o.Token = token })
	for _, values := range [][]string{
		nil, {""}, {"Bearer"}, {"Bearer "}, {"Bearer " + token[:8]}, {"Bearer " + token + "x"}, {"Bearer " + strings.ToLower(token)},
		{"Bearer  " + token}, {"Bearer " + token + " "}, {"Basic " + token}, {token}, {"Bearer " + token, "Bearer " + token},
		{"Bearer wrong", "Bearer " + token},
	} {
		for _, c := range everyRoute(absentID) {
			req := request(c[0], c[1], c[2])
			req.Header["Authorization"] = values
			a := r.do(t, req)
			require.Equal(t, http.StatusUnauthorized, a.code, "%q", values)
			require.NotContains(t, a.error, token)
		}
	}
	for _, path := range []string{"/status?token=" + token, "/status?api_token=" + token, "/status?access_token=" + token} {
		require.Equal(t, http.StatusUnauthorized, r.call(t, "GET", path, "").code)
	}
	req := request("GET", "/status", "")
	req.URL.User = nil
	req.SetBasicAuth("", token)
	require.Equal(t, http.StatusUnauthorized, r.do(t, req).code)
	for _, scheme := range []string{"Bearer", "bearer"} {
		req := request("GET", "/status", "")
		req.Header.Set("Authorization", scheme+" "+token)
		require.Equal(t, http.StatusOK, r.do(t, req).code)
	}
	require.NotContains(t, r.log.String(), token)
}

func TestPanicIsAnswered(t *testing.T) {
	r := single(t)
	r.mux.Handle("GET /panic", r.serve(func(*http.Request, []byte) (any, error) { panic("cansync1secret") }))
	r.mux.Handle("GET /nil", r.serve(func(*http.Request, []byte) (any, error) { var p *rig; return p.can.Len(), nil }))
	for i, path := range []string{"/panic", "/nil"} {
		require.Equal(t, http.StatusInternalServerError, r.call(t, "GET", path, "").code)
		require.EqualValues(t, i+1, get[statusView](t, r, "GET", "/status", "").Panics)
	}
	require.Contains(t, r.log.String(), "nil pointer dereference")
	require.NotContains(t, r.log.String(), "cansync1secret")
	r.mux.HandleFunc("GET /abort", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	require.PanicsWithValue(t, http.ErrAbortHandler, func() { r.ServeHTTP(httptest.NewRecorder(), request("GET", "/abort", "")) })
}
