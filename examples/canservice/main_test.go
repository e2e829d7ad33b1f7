package main

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cansync/cansync/examples/canservice/service"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func env(kv ...string) func(string) string {
	return func(key string) string {
		for i := 0; i+1 < len(kv); i += 2 {
			if kv[i] == key {
				return kv[i+1]
			}
		}
		return ""
	}
}

func TestDefaults(t *testing.T) {
	set, err := load("", env())
	require.NoError(t, err)
	require.Equal(t, settings{port: "3210", service: service.Config{StorageRoot: "./can_data"}}, set)
}

func TestExampleHoldsTheDefaults(t *testing.T) {
	set, err := load("config.example.yaml", env())
	require.NoError(t, err)
	require.Equal(t, settings{port: "3210", service: service.Config{StorageRoot: "./can_data", VerifyInterval: service.DefaultVerifyInterval,
		RebuildErrorThreshold: service.DefaultRebuildErrorThreshold, HashRule: service.HashContent}}, set)
}

func TestConfigKeys(t *testing.T) {
	set, err := parse([]byte("storage_root: /x\nadmin_token: s\nenable_thumbnail_cache: false\nverify_interval_hours: 0.5\nrebuild_error_threshold: 0\nhash_rule: timestamp\ndurable: true\n"))
	require.NoError(t, err)
	require.Equal(t, service.Config{StorageRoot: "/x", AdminToken: "s", NoThumbnailCache: true, VerifyInterval: 30 * time.Minute,
		RebuildErrorThreshold: -1, HashRule: service.HashTimestamp, Durable: true}, set.service)
	set, err = parse([]byte("verify_interval_hours: 0"))
	require.NoError(t, err)
	require.Negative(t, set.service.VerifyInterval)
	for text, names := range map[string]string{
		"colour: red\nshape: round":  "colour",
		"a: 1\nshape: round":         "shape",
		"storage_root: ''":           "storage_root",
		"hash_rule: md5":             "hash_rule",
		"verify_interval_hours: -1":  "verify_interval_hours",
		"verify_interval_hours: 1e9": "verify_interval_hours",
		"rebuild_error_threshold: x": "into int",
		"storage_root: [":            "yaml",
		"a: 1\n---\nb: 2":            "a",
		"{}\n---\n{}":                "one",
	} {
		_, err := parse([]byte(text))
		require.ErrorContains(t, err, names, text)
	}
}

func TestEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	require.NoError(t, os.WriteFile(file, []byte("storage_root: a"), 0o600))
	set, err := load(file, env("CAN_PORT", "3220", "CAN_STORAGE_ROOT", "b"))
	require.NoError(t, err)
	require.Equal(t, "3220", set.port)
	require.Equal(t, "b", set.service.StorageRoot)
	for _, p := range []string{"x", "-1", "65536", "80 "} {
		_, err := load("", env("CAN_PORT", p))
		require.ErrorContains(t, err, "CAN_PORT")
	}
	_, err = load(file+"absent", env())
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestRunServesAndStops(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	addr, done := make(chan string, 1), make(chan error, 1)
	log := slog.New(slog.DiscardHandler)
	go func() {
		done <- run(ctx, log, "", env("CAN_PORT", "0", "CAN_STORAGE_ROOT", root), func(a string) { addr <- a })
	}()
	var at string
	select {
	case at = <-addr:
	case err := <-done:
		require.NoError(t, err)
	}
	host, port, err := net.SplitHostPort(at)
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1", host)
	client := &http.Client{Transport: &http.Transport{}}
	resp, err := client.Get("http://" + at + service.Prefix + "/list")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 200, resp.StatusCode)
	events, err := client.Get("http://" + at + service.Prefix + "/events")
	require.NoError(t, err)

	// A second one on the same port, and on the same root.
	err = run(ctx, log, "", env("CAN_PORT", port, "CAN_STORAGE_ROOT", filepath.Join(root, "other")), nil)
	require.ErrorContains(t, err, "CAN_PORT")
	require.NoDirExists(t, filepath.Join(root, "other"))
	require.ErrorIs(t, run(ctx, log, "", env("CAN_PORT", "0", "CAN_STORAGE_ROOT", root), nil), service.ErrLocked)

	cancel() // as SIGTERM does; an open event stream does not hold it up
	require.NoError(t, <-done)
	require.NoError(t, events.Body.Close())
	client.CloseIdleConnections()
}

func TestCommandLine(t *testing.T) {
	call := func(args ...string) (stdout, stderr string, err error) {
		var out, errs bytes.Buffer
		err = start(t.Context(), args, env("CAN_PORT", "0"), &out, &errs)
		return out.String(), errs.String(), err
	}
	for _, help := range []string{"-h", "-help", "--help"} {
		out, errs, err := call(help)
		require.NoError(t, err)
		require.Equal(t, usage, out)
		require.Empty(t, errs)
	}
	for says, args := range map[string][]string{"at most": {"a", "b"}, "-nonsense": {"-nonsense"}} {
		out, errs, err := call(args...)
		require.ErrorIs(t, err, errUsage)
		require.Empty(t, out)
		require.Contains(t, errs, says)
		require.Contains(t, errs, usage)
	}
	_, _, err := call("absent.yaml")
	require.ErrorContains(t, err, "configuration: open absent.yaml")
	require.ErrorIs(t, err, os.ErrNotExist)
}

func FuzzConfig(f *testing.F) {
	f.Add("storage_root: x\nhash_rule: content\n")
	f.Add(strings.Repeat("[", 100))
	f.Fuzz(func(t *testing.T, text string) {
		set, err := parse([]byte(text))
		if err == nil {
			require.NotEmpty(t, set.service.StorageRoot)
		}
	})
}
