package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	tmem "github.com/cansync/cansync/transport/memory"
	"github.com/stretchr/testify/require"
)

// server serves a rig's handler over real connections.
func server(t *testing.T, edit func(*Options)) (*rig, string, *http.Client) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := newRig(t, tmem.NewNetwork(tmem.Options{}), func(o *Options) {
		o.Addr = ln.Addr().String()
		if edit != nil {
			edit(o)
		}
	})
	s := &httptest.Server{Listener: ln, Config: &http.Server{Handler: r.Handler, ReadHeaderTimeout: 5 * time.Second}}
	s.Start()
	t.Cleanup(func() {
		require.NoError(t, r.Drain(context.Background()))
		s.Close()
	})
	return r, s.URL, s.Client()
}

func TestEventStream(t *testing.T) {
	r, url, client := server(t, func(o *Options) { o.Heartbeat = 5 * time.Millisecond })
	id := func() string {
		resp, err := client.Post(url+"/libraries", "application/json", strings.NewReader(`{"name":"x","filter":{}}`))
		require.NoError(t, err)
		defer resp.Body.Close()
		var v struct{ Data createdView }
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&v))
		return v.Data.ID
	}()
	resp, err := client.Get(url + "/events?library=" + id)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
	require.Empty(t, resp.Header.Get("Access-Control-Allow-Origin"))
	lines := bufio.NewScanner(resp.Body)
	next := func(prefix string) string {
		for lines.Scan() {
			if rest, ok := strings.CutPrefix(lines.Text(), prefix); ok {
				return rest
			}
		}
		require.FailNow(t, "the stream ended", prefix)
		return ""
	}
	next(": events follow")
	next(": alive")
	require.NoError(t, r.node.Close()) // says nothing of the libraries, and ends the stream
	rest, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NotContains(t, string(rest), "data:")
	a, err := client.Get(url + "/libraries/" + id)
	require.NoError(t, err)
	defer a.Body.Close()
	require.Equal(t, http.StatusServiceUnavailable, a.StatusCode)
}

func TestEventsTell(t *testing.T) {
	network := tmem.NewNetwork(tmem.Options{Directory: true})
	a, b := newRig(t, network, nil), newRig(t, network, nil)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		q.Host = testAddr
		a.ServeHTTP(w, q)
	}))
	defer s.Close()
	defer func() { require.NoError(t, a.Drain(context.Background())) }()
	lib := a.create(t, "x", `{}`)
	resp, err := s.Client().Get(s.URL + "/events")
	require.NoError(t, err)
	defer resp.Body.Close()
	in := bufio.NewReader(resp.Body)
	_, err = in.ReadString('\n')
	require.NoError(t, err)
	ticket := get[inviteView](t, a, "POST", "/libraries/"+lib.ID+"/invite", "").Ticket
	get[libraryView](t, b, "POST", "/join", `{"ticket":"`+ticket+`"}`)
	for {
		line, err := in.ReadString('\n')
		require.NoError(t, err)
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		var e eventView
		require.NoError(t, json.Unmarshal([]byte(data), &e))
		require.NotZero(t, e.Seq)
		if e.Kind == "peer_up" {
			require.Equal(t, lib.ID, *e.Library)
			require.Equal(t, b.node.PeerID().String(), *e.Peer)
			break
		}
	}
	// A reader that comes back gets what it missed.
	again, err := http.NewRequest("GET", s.URL+"/events", nil)
	require.NoError(t, err)
	again.Header.Set("Last-Event-ID", "0")
	back, err := s.Client().Do(again)
	require.NoError(t, err)
	defer back.Body.Close()
	in = bufio.NewReader(back.Body)
	for {
		line, err := in.ReadString('\n')
		require.NoError(t, err)
		if line == "event: peer_up\n" {
			break
		}
	}
	// One whose number is from another data directory is told so.
	again.Header.Set("Last-Event-ID", "1000000")
	far, err := s.Client().Do(again)
	require.NoError(t, err)
	defer far.Body.Close()
	in = bufio.NewReader(far.Body)
	for {
		line, err := in.ReadString('\n')
		require.NoError(t, err)
		if kind, ok := strings.CutPrefix(line, "event: "); ok {
			require.Equal(t, "missed\n", kind)
			break
		}
	}
	for _, id := range []string{"x", "-1", "18446744073709551616"} {
		req := request("GET", "/events", "")
		req.Header.Set("Last-Event-ID", id)
		require.Equal(t, http.StatusBadRequest, a.do(t, req).code)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	_, url, client := server(t, nil)
	for range maxStreams {
		resp, err := client.Get(url + "/events")
		require.NoError(t, err)
		defer resp.Body.Close()
		require.Equal(t, http.StatusOK, resp.StatusCode)
	}
	resp, err := client.Get(url + "/events")
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
}

// TestDrain finishes what is under way, ends streams, and refuses the rest.
func TestDrain(t *testing.T) {
	r, url, client := server(t, nil)
	entered, release := make(chan struct{}), make(chan struct{})
	r.mux.Handle("GET /slow", r.serve(func(*http.Request, []byte) (any, error) {
		close(entered)
		<-release
		return "done", nil
	}))
	stream, err := client.Get(url + "/events")
	require.NoError(t, err)
	defer stream.Body.Close()
	slow := make(chan string, 1)
	go func() {
		resp, err := client.Get(url + "/slow")
		if err != nil {
			slow <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		slow <- string(b)
	}()
	<-entered
	short, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, r.Drain(short), context.Canceled)
	_, err = io.ReadAll(stream.Body)
	require.NoError(t, err, "the stream ends in good order")
	resp, err := client.Get(url + "/status")
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	require.Contains(t, string(body), "stopping")
	close(release)
	require.NoError(t, r.Drain(context.Background()))
	require.Contains(t, <-slow, "done")
}

// raw sends bytes and returns everything that comes back until the connection
// ends.
func raw(t *testing.T, url, send string) string {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	_, err = io.WriteString(conn, send)
	require.NoError(t, err)
	b, err := io.ReadAll(conn)
	require.NoError(t, err)
	return string(b)
}

// TestRawRequests sends what a client library would not.
func TestRawRequests(t *testing.T) {
	r, url, _ := server(t, nil)
	host := strings.TrimPrefix(url, "http://")
	for name, c := range map[string][2]string{
		"two hosts":         {"GET /status HTTP/1.1\r\nHost: " + host + "\r\nHost: evil.example\r\nConnection: close\r\n\r\n", "HTTP/1.1 400"},
		"no host":           {"GET /status HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 400"},
		"empty host":        {"GET /status HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n", "HTTP/1.1 421"},
		"HTTP/1.0":          {"GET /status HTTP/1.0\r\n\r\n", "HTTP/1.0 421"},
		"absolute":          {"GET http://evil.example/status HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n", "HTTP/1.1 421"},
		"good":              {"GET /status HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n", "HTTP/1.1 200"},
		"upgrade":           {"GET /events HTTP/1.1\r\nHost: " + host + "\r\nOrigin: http://evil.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + "GET /x HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n", "HTTP/1.1 403"},
		"connect":           {"CONNECT " + host + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n", "HTTP/1.1 404"},
		"length and chunks": {"POST /libraries HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n0\r\n\r\n", "HTTP/1.1 400"},
		"claims a lot":      {"POST /libraries HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 104857600\r\nContent-Type: application/json\r\n\r\n{", "HTTP/1.1 413"},
	} {
		require.True(t, strings.HasPrefix(raw(t, url, c[0]), c[1]), name)
	}
	// Ten pipelined requests get ten answers.
	one := "GET /libraries HTTP/1.1\r\nHost: " + host + "\r\n"
	got := raw(t, url, strings.Repeat(one+"\r\n", 9)+one+"Connection: close\r\n\r\n")
	require.Equal(t, 10, strings.Count(got, "HTTP/1.1 200 OK"))
	require.Zero(t, r.Panics())
}

// TestLogsAndAnswersKeepSecrets plants secrets in every place where a request has
// room, at debug level, and looks for them in the log and in all answers but the
// one that hands out the ticket.
func TestLogsAndAnswersKeepSecrets(t *testing.T) {
	const token = "canary-token-0123456789"
	network := tmem.NewNetwork(tmem.Options{Directory: true})
	a := newRig(t, network, func(o *Options) { o.Token = token })
	b := newRig(t, network, func(o *Options) { o.Token = token })
	var answers bytes.Buffer
	do := func(r *rig, method, path, body string) answer {
		req := request(method, path, body)
		req.Header.Set("Authorization", "Bearer "+token)
		return r.do(t, req)
	}
	say := func(r *rig, method, path, body string) answer {
		ans := do(r, method, path, body)
		answers.Write(ans.data)
		answers.WriteString(ans.error)
		return ans
	}
	var lib createdView
	require.NoError(t, json.Unmarshal(do(a, "POST", "/libraries", `{"name":"x","filter":{}}`).data, &lib))
	var inv inviteView
	require.NoError(t, json.Unmarshal(do(a, "POST", "/libraries/"+lib.ID+"/invite", "").data, &inv))
	ticket := inv.Ticket
	cut := ticket[:len(ticket)-1] + "b"
	for _, s := range []string{ticket, cut} {
		for _, c := range [][3]string{
			{"POST", "/join", `{"ticket":"` + cut + `"}`}, {"POST", "/join", `{"` + s + `":1}`}, {"POST", "/join", `{"ticket":{"` + s + `":1}}`},
			{"POST", "/join", s}, {"POST", "/libraries", `{"name":7,"filter":{"` + s + `":1}}`}, {"GET", "/" + s, ""},
			{"GET", "/libraries/" + s, ""}, {"DELETE", "/libraries/" + lib.ID + "/assets/" + s, ""}, {"GET", "/status?" + s + "=1", ""},
			{"GET", "/libraries/" + lib.ID + "/assets?after=" + s, ""}, {"GET", "/libraries/" + lib.ID + "/assets?state=" + s, ""},
			{"GET", "/events?library=" + s, ""}, {"POST", "/libraries/" + lib.ID + "/invite", `{"access":"` + s + `"}`},
			{"PATCH", "/libraries/" + lib.ID, `{"delete_policy":"` + s + `"}`}, {"DELETE", "/libraries/" + lib.ID + "?purge=" + s, ""},
			{"DELETE", "/libraries/" + lib.ID + "?purge=true&confirm=" + s, ""}, {"POST", "/libraries", `{"name":"x","filter":{"hashes":["` + s + `"]}}`},
		} {
			say(b, c[0], c[1], c[2])
			say(a, c[0], c[1], c[2])
		}
	}
	require.Equal(t, http.StatusOK, say(b, "POST", "/join", `{"ticket":"`+ticket+`"}`).code)
	a.eventually(t, "they meet", func() bool {
		var v libraryView
		require.NoError(t, json.Unmarshal(say(b, "GET", "/libraries/"+lib.ID, "").data, &v))
		return v.Access == "write"
	})
	for _, p := range []string{"/status", "/peers", "/libraries", "/libraries/" + lib.ID, "/libraries/" + lib.ID + "/members", "/libraries/" + lib.ID + "/assets"} {
		require.Equal(t, http.StatusOK, say(a, "GET", p, "").code)
		require.Equal(t, http.StatusOK, say(b, "GET", p, "").code)
	}
	require.NotEmpty(t, a.log.String())
	for what, text := range map[string]string{"answers": answers.String(), "log of a": a.log.String(), "log of b": b.log.String()} {
		require.NotContains(t, text, token, what)
		for i := 8; i+24 <= len(ticket); i += 8 {
			require.NotContains(t, text, ticket[i:i+24], what)
		}
	}
	require.Zero(t, a.Panics()+b.Panics())
}
