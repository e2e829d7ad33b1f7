package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// conn connects to a sidecar as something that is no HTTP client.
func (s *sidecar) conn(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", "127.0.0.1:"+s.port)
	require.NoError(t, err)
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// exchange sends what head and fill make, as far as the sidecar takes it, and
// returns the answer.
func (s *sidecar) exchange(t *testing.T, head string, fill io.Reader) *http.Response {
	t.Helper()
	c := s.conn(t)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.Copy(c, io.MultiReader(strings.NewReader(head), fill)) // it is cut off
	}()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	_, _ = io.Copy(io.Discard, resp.Body) // what was not read of the request resets the connection
	require.NoError(t, c.Close())
	<-sent
	return resp
}

// endless is n bytes, all the same.
func endless(n int64) io.Reader { return io.LimitReader(same{}, n) }

type same struct{}

func (same) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'a'
	}
	return len(b), nil
}

// abused returns a sidecar with a library, and a function that checks that it is
// as it was and answers.
func abused(t *testing.T) (s *sidecar, host string, unharmed func()) {
	t.Helper()
	s = newSidecar(t, "http://127.0.0.1:"+freePort(t)+"/api/v1/can/0")
	s.start()
	require.NoError(t, s.call("POST", "/libraries", `{"name":"good","filter":{}}`, nil))
	state := func() (v any) {
		require.NoError(t, s.call("GET", "/libraries", "", &v))
		return v
	}
	before := state()
	return s, "127.0.0.1:" + s.port, func() {
		t.Helper()
		require.Equal(t, before, state())
		var v struct{ Panics int }
		require.NoError(t, s.call("GET", "/status", "", &v))
		require.Zero(t, v.Panics)
	}
}

func TestHeadersWithoutEnd(t *testing.T) {
	s, host, unharmed := abused(t)
	resp := s.exchange(t, "GET /libraries HTTP/1.1\r\nHost: "+host+"\r\nX-Fill: ", endless(1<<20))
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, resp.StatusCode)
	resp = s.exchange(t, "POST /libraries HTTP/1.1\r\nHost: "+host+"\r\n"+strings.Repeat("X-Fill: y\r\n", 100_000)+"\r\n", endless(0))
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, resp.StatusCode)
	resp = s.exchange(t, "GET /", endless(1<<20))
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, resp.StatusCode)
	unharmed()
}

// TestHostTwice sends requests that would have an effect if either Host counted.
func TestHostTwice(t *testing.T) {
	s, host, unharmed := abused(t)
	const body = `{"name":"evil","filter":{}}`
	for _, hosts := range [][2]string{{host, host}, {host, "evil.example"}, {"evil.example", host}} {
		resp := s.exchange(t, "POST /libraries HTTP/1.1\r\nHost: "+hosts[0]+"\r\nHost: "+hosts[1]+
			"\r\nContent-Type: application/json\r\nContent-Length: 27\r\n\r\n"+body, endless(0))
		require.Equal(t, http.StatusBadRequest, resp.StatusCode)
		unharmed()
	}
	// The same with one Host does have an effect.
	resp := s.exchange(t, "POST /libraries HTTP/1.1\r\nHost: "+host+
		"\r\nContent-Type: application/json\r\nContent-Length: 27\r\n\r\n", strings.NewReader(body))
	require.Equal(t, http.StatusOK, resp.StatusCode)
	var libs []libraryState
	require.NoError(t, s.call("GET", "/libraries", "", &libs))
	require.Len(t, libs, 2)
}

// TestSlowHeaders takes all connections that the sidecar has but one, and gives
// that one a byte now and then: they are closed in time, and others are answered.
func TestSlowHeaders(t *testing.T) {
	t.Parallel()
	s, host, unharmed := abused(t)
	var slow []net.Conn
	for range maxConns - 1 {
		c := s.conn(t)
		_, err := io.WriteString(c, "GET /libraries HTTP/1.1\r\nHost: "+host+"\r\nX-Slow: ")
		require.NoError(t, err)
		slow = append(slow, c)
	}
	unharmed() // with the last that is left
	one := s.conn(t)
	end := time.Now().Add(2 * headerTime)
	for {
		require.True(t, time.Now().Before(end), "the connection is still open")
		if _, err := io.WriteString(one, "a"); err != nil {
			break
		}
		require.NoError(t, one.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
		b := make([]byte, 1000)
		if n, err := one.Read(b); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			if n > 0 {
				require.Contains(t, string(b[:n]), "400 Bad Request")
				require.Contains(t, string(b[:n]), "Connection: close")
			}
			break
		}
	}
	for _, c := range slow {
		require.NoError(t, c.SetReadDeadline(end.Add(2*headerTime)))
		_, err := io.Copy(io.Discard, c)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	}
	unharmed()
}

// flood sends 100 MiB as one JSON string, with a length and without.
func flood(t *testing.T, s *sidecar, host string) {
	t.Helper()
	const size = 100 << 20
	post := "POST /libraries HTTP/1.1\r\nHost: " + host + "\r\nContent-Type: application/json\r\n"
	for _, head := range []string{"Content-Length: 104857600\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n6400000\r\n"} {
		resp := s.exchange(t, post+head+`{"name":"`, endless(size-9))
		require.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode)
	}
}

func TestBodiesWithoutEnd(t *testing.T) {
	s, host, unharmed := abused(t)
	flood(t, s, host)
	unharmed()
}
