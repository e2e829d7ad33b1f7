package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// tree lists the files below dir with their sizes.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		fmt.Fprintln(&out, path, info.Mode(), info.Size())
		return err
	}))
	return out.String()
}

// refuse starts a sidecar that can't start: it says why in one line, with exit
// code 1.
func refuse(t *testing.T, s *sidecar, says string) {
	t.Helper()
	s.launch()
	require.Equal(t, 1, s.end(t))
	out := s.output(t)
	require.Contains(t, out, says)
	require.True(t, strings.HasPrefix(out, "sidecar: "), out)
	require.Equal(t, 1, strings.Count(out, "\n"), out)
}

func TestStartsThatFail(t *testing.T) {
	ca := newService(t, usual)
	ca.start()
	running := newSidecar(t, ca.proxy)
	running.start()
	require.NoError(t, running.call("POST", "/libraries", `{"name":"x","filter":{}}`, nil))
	data := filepath.Join(running.dir, "data")

	// The port is taken: nothing is made.
	other := newSidecar(t, ca.proxy)
	other.configure(fmt.Sprintf("listen_addr: \"127.0.0.1:%s\"\ndata_dir: data\nnetwork: lan\n", running.port))
	refuse(t, other, "address already in use")
	require.NoDirExists(t, filepath.Join(other.dir, "data"))

	// So is a port of the peer-to-peer side.
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer udp.Close()
	for _, addr := range []string{
		fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", tcp.Addr().(*net.TCPAddr).Port),
		fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", udp.LocalAddr().(*net.UDPAddr).Port),
	} {
		other.configure(fmt.Sprintf("listen_addr: \"127.0.0.1:%s\"\nlisten: [%q]\ndata_dir: data\nnetwork: lan\n", other.port, addr))
		refuse(t, other, "listen: can't listen on "+addr+": ")
		require.NoDirExists(t, filepath.Join(other.dir, "data"))
	}

	// The data directory is taken: nothing is changed.
	other.configure(fmt.Sprintf("listen_addr: \"127.0.0.1:%s\"\ndata_dir: %q\nnetwork: lan\n", other.port, data))
	before := tree(t, filepath.Join(data, "libraries"))
	refuse(t, other, "another process is using "+data)
	require.Equal(t, before, tree(t, filepath.Join(data, "libraries")))
	var libs []libraryState
	require.NoError(t, running.call("GET", "/libraries", "", &libs))
	require.Len(t, libs, 1)

	// A data directory that can't be one.
	file := filepath.Join(other.dir, "file")
	require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))
	for _, dir := range []string{file, filepath.Join(file, "below")} {
		other.configure(fmt.Sprintf("listen_addr: \"127.0.0.1:%s\"\ndata_dir: %q\nnetwork: lan\n", other.port, dir))
		refuse(t, other, "data_dir")
	}

	for text, says := range map[string]string{
		"foo: 1\n":                            "line 2: unknown key \"foo\"",
		"listen_addr: \"0.0.0.0:0\"\n":        "api_token",
		"relay_url: \"nonsense\"\n":           "relay",
		"network: lan\nbootstrap: [\"/x\"]\n": "configuration",
		"listen: [\"/ip4/1.2.3.4\"]\n":        "configuration",
		"can_service_url: \"ftp://x\"\n":      "can_service_url",
	} {
		if !strings.Contains(text, "listen_addr") {
			text += fmt.Sprintf("listen_addr: \"127.0.0.1:%s\"\n", other.port)
		}
		other.configure("data_dir: none\n" + text)
		refuse(t, other, says)
		require.NoDirExists(t, filepath.Join(other.dir, "none"), text)
	}
}
