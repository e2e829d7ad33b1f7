package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDemo(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), nil, &out), "%s", &out)
	text := out.String()
	require.Equal(t, 2, strings.Count(text, "milk, eggs"), text)
	require.Equal(t, 2, strings.Count(text, "back at eight"), text)
	require.Equal(t, 1, strings.Count(text, "not for Ben"), text)
	require.Contains(t, text, "redacted")
}

// lines hands on what is written.
type lines struct{ got chan string }

func (l lines) Write(p []byte) (int, error) {
	l.got <- string(p)
	return len(p), nil
}

// TestTwoProcesses runs what two processes would run, each with its flags.
func TestTwoProcesses(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ticket := filepath.Join(t.TempDir(), "ticket.txt")
	ended := make(chan error, 2)
	start := func(flag string) string {
		out := lines{make(chan string, 16)}
		go func() { ended <- run(ctx, []string{"-http", "127.0.0.1:0", flag, ticket}, out) }()
		select {
		case line := <-out.got:
			return strings.TrimSpace(strings.TrimPrefix(line, "notes at "))
		case err := <-ended:
			require.NoError(t, err)
			return ""
		}
	}
	ann := start("-invite")
	info, err := os.Stat(ticket)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	ben := start("-join")

	web := &http.Transport{}
	defer web.CloseIdleConnections()
	call := func(method, url, body string) string {
		req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
		require.NoError(t, err)
		resp, err := (&http.Client{Transport: web}).Do(req)
		require.NoError(t, err)
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusOK, resp.StatusCode, "%s", b)
		return string(b)
	}
	call("POST", ann+"?title=shopping&by=ann&tags=a,b", "milk, eggs")
	require.Eventually(t, func() bool { return strings.Contains(call("GET", ben, ""), "shopping") }, time.Minute, 20*time.Millisecond)
	cancel()
	require.NoError(t, <-ended)
	require.NoError(t, <-ended)
}

func TestFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "none")
	for flags, want := range map[string]string{
		"-http 127.0.0.1:0": "-invite", "-invite x": "-http", "-http 127.0.0.1:0 -invite x -join y": "one of",
		"more": "more", "-nonsense": "nonsense", "-http 127.0.0.1:0 -join " + file: file,
	} {
		require.ErrorContains(t, run(t.Context(), strings.Fields(flags), io.Discard), want, flags)
	}
	require.NoError(t, os.WriteFile(file, []byte("no ticket"), 0o600))
	require.ErrorContains(t, run(t.Context(), []string{"-http", "127.0.0.1:0", "-join", file}, io.Discard), "ticket")
}

func TestNotesOverHTTP(t *testing.T) {
	book := newNotebook()
	do := func(method, url string, body io.Reader) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		book.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, url, body))
		return w
	}
	require.Equal(t, http.StatusOK, do("POST", "/notes?title=t&by=me&tags=a,b", strings.NewReader("text")).Code)
	require.Equal(t, "text", do("GET", "/notes/1", nil).Body.String())
	require.Contains(t, do("GET", "/notes", nil).Body.String(), `"tags":["a","b"]`)
	require.Equal(t, http.StatusNotFound, do("GET", "/notes/2", nil).Code)
	require.Equal(t, http.StatusNotFound, do("DELETE", "/notes/1", nil).Code)
	require.Equal(t, http.StatusRequestEntityTooLarge, do("POST", "/notes", bytes.NewReader(make([]byte, maxNote+1))).Code)
	_, total := book.page(0, 10, true)
	require.Equal(t, 1, total)
}
