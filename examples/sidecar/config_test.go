package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync"
)

// TestShippedConfigIsTheDefault reads the file that users copy.
func TestShippedConfigIsTheDefault(t *testing.T) {
	data, err := os.ReadFile("config.yaml")
	require.NoError(t, err)
	c, err := parse(data)
	require.NoError(t, err)
	require.Equal(t, defaults(), c)
	require.Equal(t, config{
		ServiceURL: "http://127.0.0.1:3210/api/v1/can/0", Listen: "127.0.0.1:3213", DataDir: "./can_sync_data",
		Poll: 5 * time.Second, FullScan: 5 * time.Minute, Network: cansync.Public,
	}, c)
}

func TestConfigKeys(t *testing.T) {
	c, err := parse([]byte(`
can_service_url: "http://127.0.0.1:3220/api/v1/can/0"
listen_addr: localhost:3223
data_dir: ./can_sync_data_b
relay_url: /ip4/1.2.3.4/tcp/4001/p2p/x
poll_interval_secs: 1
full_scan_interval_secs: 60
network: private
bootstrap: [/ip4/1.2.3.4/tcp/4001/p2p/y]
listen: ["/ip4/127.0.0.1/tcp/0"]
upload_limit: 500000
download_limit: 2MiB
disk_reserve: "1 GiB"
api_token: "abc"
`))
	require.NoError(t, err)
	require.Equal(t, config{
		ServiceURL: "http://127.0.0.1:3220/api/v1/can/0", Listen: "localhost:3223", DataDir: "./can_sync_data_b",
		RelayURL: "/ip4/1.2.3.4/tcp/4001/p2p/x", Poll: time.Second, FullScan: time.Minute, Network: cansync.Private,
		Bootstrap: []string{"/ip4/1.2.3.4/tcp/4001/p2p/y"}, P2PListen: []string{"/ip4/127.0.0.1/tcp/0"}, Token: "abc",
		Upload: 500_000, Download: 2 << 20, Reserve: 1 << 30,
	}, c)
	require.Equal(t, cansync.Limits{Upload: 500_000, Download: 2 << 20}, c.node(nil, nil).Limits)
	require.EqualValues(t, 1<<30, c.node(nil, nil).DiskReserve)
	require.Equal(t, []string{c.RelayURL}, c.node(nil, nil).Relays)
	for _, empty := range []string{"", "# nothing\n", "---\n", "relay_url: null\nbootstrap:\nlisten: ~\napi_token:\n"} {
		c, err := parse([]byte(empty))
		require.NoError(t, err)
		require.Equal(t, defaults(), c)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "'7'": 7, "8192": 8192, "3B": 3, "5kB": 5000, "5 MB": 5_000_000, "1GB": 1e9, "2TB": 2e12, "4KiB": 4096,
		"1MiB": 1 << 20, "\"3 GiB\"": 3 << 30, "1TiB": 1 << 40, "9223372036854775807": 1<<63 - 1,
	} {
		c, err := parse([]byte("upload_limit: " + text))
		require.NoError(t, err, text)
		require.Equal(t, want, c.Upload, text)
	}
	for _, text := range []string{
		"-1", "-1MiB", "1.5MiB", "0x10", "1e6", "MiB", "2MiB/s", "2mib", "2M", "fast", "true", "[1]", "{a: 1}", "+1", "1_000",
		"9223372036854775808", "9007199254740992KiB", "99999999TiB", "' '", "1 2", "2MiBMiB",
	} {
		for _, key := range []string{"upload_limit", "download_limit", "disk_reserve"} {
			_, err := parse([]byte(key + ": " + text))
			require.ErrorContains(t, err, "line 1: "+key+": want a whole number of bytes", text)
		}
	}
}

func TestBadConfig(t *testing.T) {
	for text, says := range map[string]string{
		"data_dir: x\ndata-dir: y\n":                       `line 2: unknown key "data-dir"; known keys are can_service_url`,
		"poll_interval_secs: \"5\"":                        "line 1: poll_interval_secs: want a whole number",
		"poll_interval_secs: 0":                            "poll_interval_secs: want a whole number of seconds from 1",
		"poll_interval_secs: -5":                           "poll_interval_secs",
		"poll_interval_secs: 1.5":                          "poll_interval_secs",
		"poll_interval_secs: 5s":                           "poll_interval_secs",
		"\n\nfull_scan_interval_secs: [1]":                 "line 3: full_scan_interval_secs",
		"full_scan_interval_secs: 99999999999":             "full_scan_interval_secs",
		"poll_interval_secs: 99999999999999999999999":      "poll_interval_secs",
		"data_dir: [a]":                                    "data_dir: want a text",
		"data_dir: 7":                                      "data_dir: want a text",
		"data_dir: \"\"":                                   "data_dir: it is empty",
		"can_service_url: {a: b}":                          "can_service_url: want a text",
		"listen: /ip4/127.0.0.1":                           "listen: want a list",
		"bootstrap: [1]":                                   "bootstrap: line 1: want a multiaddr",
		"can_service_url: 127.0.0.1:3210":                  "can_service_url: want a URL that begins with http://",
		"can_service_url: localhost:3210/api":              "can_service_url: want a URL that begins with http://",
		"can_service_url: \"ftp://x/\"":                    "can_service_url: want a URL that begins with http://",
		"network: moon":                                    "network: want public, private or lan",
		"listen_addr: 127.0.0.1":                           "listen_addr: want an address and a port",
		"listen_addr: \"127.0.0.1:http\"":                  "listen_addr: want a port",
		"listen_addr: \"127.0.0.1:99999\"":                 "listen_addr: want a port",
		"listen_addr: \":3213\"":                           "takes an api_token",
		"listen_addr: \"unix:\"":                           "want a path",
		"listen_addr: \"10.0.0.1:3213\"\napi_token: short": "api_token: want 16 characters",
		"api_token: \"with space\"":                        "api_token: want visible",
		"data_dir: a\ndata_dir: b":                         `line 2: key "data_dir" is given twice`,
		"- a":                                              "key: value",
		"just text":                                        "key: value",
		"disk_reserve: 31MiB":                              "disk_reserve: want 32MiB or more",
		"upload_limit: 1MiB\nupload-limit: 1MiB":           `line 2: unknown key "upload-limit"`,
		"a: b: c":                                          "mapping values",
		"\tx":                                              "character",
		"data_dir: a\n---\ndata_dir: b":                    "one YAML document",
		"? [a]\n: b":                                       "unknown key",
		strings.Repeat("#", maxConfig+1):                   "larger than",
	} {
		_, err := parse([]byte(text))
		require.ErrorContains(t, err, says, "%.60q", text)
		require.NotContains(t, err.Error(), "\n")
	}
	// A secret of the wrong type is not repeated.
	for _, text := range []string{"api_token: [canary]", "api_token: {canary: 1}", "api_token: 'canary canary'"} {
		_, err := parse([]byte(text))
		require.Error(t, err)
		require.NotContains(t, err.Error(), "canary")
	}
}

func FuzzConfig(f *testing.F) {
	data, err := os.ReadFile("config.yaml")
	require.NoError(f, err)
	f.Add(data)
	for _, s := range []string{"", "a: b", "data_dir: &x y\nlisten: [*x]", "&a [*a]", "<<: {data_dir: x}", "poll_interval_secs: 0x10", "!!binary x", "\xff"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parse(data)
		if err != nil {
			require.Less(t, len(err.Error()), 2000)
			return
		}
		require.NoError(t, c.check())
		require.GreaterOrEqual(t, c.Poll, time.Second)
		require.GreaterOrEqual(t, c.FullScan, time.Second)
		require.NotEmpty(t, c.DataDir)
	})
}

func TestListen(t *testing.T) {
	c := defaults()
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0", "localhost:0"} {
		c.Listen = addr
		loopback, err := checkListen(addr)
		require.NoError(t, err)
		require.True(t, loopback)
		if addr == "[::1]:0" {
			continue // a machine may lack IPv6
		}
		s, err := listen(c)
		require.NoError(t, err)
		require.Contains(t, s.URL(), "http://127.0.0.1:")
		require.NoError(t, s.Close())
	}
	// A socket in the file system, one that was left behind, one in use, and a file.
	path := filepath.Join(t.TempDir(), "s")
	c.Listen = "unix:" + path
	s, err := listen(c)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())
	_, err = listen(c)
	require.ErrorContains(t, err, "another program is using")
	require.NoError(t, s.Close())
	require.NoError(t, os.WriteFile(path, []byte("mine"), 0o600))
	_, err = listen(c)
	require.ErrorContains(t, err, "not a socket")
	require.FileExists(t, path)
}

func TestCommandLine(t *testing.T) {
	t.Chdir(t.TempDir())
	var out, log bytes.Buffer
	ctx := context.Background()
	for _, flag := range []string{"-h", "--help"} {
		require.NoError(t, start(ctx, []string{flag}, &out, &log))
		require.Contains(t, out.String(), "usage: sidecar")
	}
	out.Reset()
	require.NoError(t, start(ctx, []string{"--version"}, &out, &log))
	require.Equal(t, "sidecar "+cansync.Version()+"\n", out.String())
	for _, args := range [][]string{{"-no"}, {"a", "b"}, {"-log", "loud"}} {
		require.ErrorIs(t, start(ctx, args, &out, &log), errUsage)
	}
	require.Contains(t, log.String(), `invalid value "loud" for flag -log: want debug, info, warn or error`)
	require.ErrorContains(t, start(ctx, []string{"absent.yaml"}, &out, &log), "absent.yaml")
	// What only the node finds out names the file as well.
	for text, says := range map[string]string{
		"listen_addr: 127.0.0.1:0\nrelay_url: http://x":             "relay address",
		"listen_addr: 127.0.0.1:0\nbootstrap: [x]":                  "bootstrap address",
		"listen_addr: 127.0.0.1:0\nlisten: [/ip4/1]":                "listen address",
		"listen_addr: \"192.0.2.1:1\"\napi_token: 0123456789abcdef": "listen_addr",
	} {
		require.NoError(t, os.WriteFile("node.yaml", []byte(text+"\ndata_dir: d\n"), 0o600))
		err := start(ctx, []string{"node.yaml"}, &out, &log)
		require.ErrorContains(t, err, "configuration node.yaml: ", text)
		require.ErrorContains(t, err, says, text)
	}
	require.NoError(t, os.Remove("node.yaml"))
	require.NoError(t, os.RemoveAll("d"))
	require.NoError(t, os.WriteFile("config.yaml", []byte("x: 1"), 0o600))
	require.ErrorContains(t, start(ctx, nil, &out, &log), `unknown key "x"`)
	require.NoError(t, os.Remove("config.yaml"))
	c, err := load("")
	require.NoError(t, err)
	require.Equal(t, defaults(), c)
	entries, err := os.ReadDir(".")
	require.NoError(t, err)
	require.Empty(t, entries)
}
