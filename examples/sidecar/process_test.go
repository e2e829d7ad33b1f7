package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// These tests run real processes against each other on the loopback interface.

// processEnv chooses what the test binary is when it is started once more.
const processEnv = "SIDECAR_TEST_PROCESS"

func TestMain(m *testing.M) {
	switch os.Getenv(processEnv) {
	case "sidecar":
		main()
	case "minimal":
		minimal()
	default:
		code := m.Run()
		if canservice.dir != "" {
			_ = os.RemoveAll(canservice.dir)
		}
		os.Exit(code)
	}
}

// self returns the test binary and the variable that makes it something else. It
// has all of this command, and linking another one takes long.
func self(t testing.TB, what string) (path string, env []string) {
	t.Helper()
	path, err := os.Executable()
	require.NoError(t, err)
	return path, []string{processEnv + "=" + what}
}

// canservice is the reference CAN Service, built once for all tests.
var canservice struct {
	once    sync.Once
	dir     string
	failure string
}

func reference(t testing.TB) string {
	t.Helper()
	canservice.once.Do(func() {
		var err error
		if canservice.dir, err = os.MkdirTemp("", "sidecar-test"); err != nil {
			canservice.failure = err.Error()
			return
		}
		out, err := exec.Command("go", "build", "-o", canservice.dir+string(filepath.Separator), "../canservice").CombinedOutput()
		if err != nil {
			canservice.failure = string(out)
		}
	})
	require.Empty(t, canservice.failure)
	return filepath.Join(canservice.dir, "canservice")
}

// patience is how long anything may take on a slow machine.
const patience = 3 * time.Minute

// until polls until ok.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			require.FailNow(t, "never: "+what)
		}
	}
}

// freePort returns a port that is free for TCP and UDP.
func freePort(t testing.TB) string {
	t.Helper()
	for range 100 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		addr := ln.Addr().String()
		udp, err := net.ListenPacket("udp", addr)
		require.NoError(t, ln.Close())
		if err != nil {
			continue
		}
		require.NoError(t, udp.Close())
		_, port, err := net.SplitHostPort(addr)
		require.NoError(t, err)
		return port
	}
	require.FailNow(t, "no free port")
	return ""
}

// process is one run of a binary.
type process struct {
	cmd  *exec.Cmd
	out  string // the file that stdout and stderr go to
	done chan struct{}
	err  error // what Wait returned, once done is closed
}

func spawn(t testing.TB, dir string, env []string, name string, args ...string) *process {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "output")
	require.NoError(t, err)
	defer f.Close()
	p := &process{cmd: exec.Command(name, args...), out: f.Name(), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, f, f
	p.cmd.Env = append(os.Environ(), env...)
	require.NoError(t, p.cmd.Start())
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s %v said:\n%s", filepath.Base(name), args, p.output(t))
		}
	})
	return p
}

func (p *process) output(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(p.out)
	require.NoError(t, err)
	return string(b)
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// end waits for the process and returns its exit code, -1 after a signal.
func (p *process) end(t testing.TB) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		require.FailNow(t, "the process does not end")
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) terminate(t testing.TB) int {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	return p.end(t)
}

var client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}

// ask sends a request and reads the data of its envelope.
func ask(method, url, kind string, body io.Reader, into any) error {
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return err
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, b)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(b, &struct{ Data any }{into})
}

// sidecar is a sidecar's configuration and its present run.
type sidecar struct {
	t    testing.TB
	dir  string
	port string
	*process
}

func newSidecar(t testing.TB, serviceURL string) *sidecar {
	t.Helper()
	s := &sidecar{t: t, dir: t.TempDir(), port: freePort(t)}
	// Fixed ports, as a machine has fixed addresses: both may be killed at a time.
	p2p := freePort(t)
	s.configure(fmt.Sprintf(`
can_service_url: %q
listen_addr: "127.0.0.1:%s"
data_dir: "./data"
poll_interval_secs: 1
full_scan_interval_secs: 2
network: lan
listen: ["/ip4/127.0.0.1/tcp/%s", "/ip4/127.0.0.1/udp/%s/quic-v1"]
`, serviceURL, s.port, p2p, p2p))
	return s
}

func (s *sidecar) configure(text string) {
	s.t.Helper()
	require.NoError(s.t, os.WriteFile(filepath.Join(s.dir, "config.yaml"), []byte(text), 0o600))
}

func (s *sidecar) start() {
	s.t.Helper()
	s.launch()
	until(s.t, "the sidecar answers", func() bool {
		select {
		case <-s.done:
			require.FailNow(s.t, "the sidecar ended", s.output(s.t))
		default:
		}
		return s.call("GET", "/status", "", nil) == nil
	})
}

// launch starts the process and waits for nothing.
func (s *sidecar) launch() {
	s.t.Helper()
	path, env := self(s.t, "sidecar")
	s.process = spawn(s.t, s.dir, env, path)
}

func (s *sidecar) call(method, path, body string, into any) error {
	var rd io.Reader
	kind := ""
	if body != "" {
		rd, kind = strings.NewReader(body), "application/json"
	}
	return ask(method, "http://127.0.0.1:"+s.port+path, kind, rd, into)
}

type libraryState struct {
	ID      string
	State   string
	Access  string
	Assets  int64
	Synced  int64
	Pending int64
	Peers   int
}

func (s *sidecar) library(id string) libraryState {
	var l libraryState
	if s.call("GET", "/libraries/"+id, "", &l) != nil {
		return libraryState{}
	}
	return l
}

// share creates a library at a and lets b join it.
func share(t testing.TB, a, b *sidecar, filter string) string {
	t.Helper()
	var lib struct{ ID string }
	require.NoError(t, a.call("POST", "/libraries", `{"name":"shared-images","filter":`+filter+`}`, &lib))
	var inv struct{ Ticket string }
	require.NoError(t, a.call("POST", "/libraries/"+lib.ID+"/invite", "", &inv))
	var joined libraryState
	require.NoError(t, b.call("POST", "/join", `{"ticket":"`+inv.Ticket+`"}`, &joined))
	require.Equal(t, lib.ID, joined.ID)
	return lib.ID
}
