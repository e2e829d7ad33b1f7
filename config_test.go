package cansync_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can/cantest"
	smemory "github.com/cansync/cansync/store/memory"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
)

func TestConfigErrorsNameTheField(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	good := func() cansync.Config {
		return cansync.Config{CAN: cantest.New(cantest.Options{}), Store: smemory.New(), Network: cansync.LAN}
	}
	for name, c := range map[string]struct {
		spoil func(*cansync.Config)
		field string
	}{
		"no client":            {func(c *cansync.Config) { c.CAN = nil }, "CAN"},
		"nowhere to keep":      {func(c *cansync.Config) { c.Store = nil }, "DataDir"},
		"unknown network":      {func(c *cansync.Config) { c.Network = "wan" }, "Network"},
		"hasty poll":           {func(c *cansync.Config) { c.PollInterval = time.Millisecond }, "PollInterval"},
		"negative poll":        {func(c *cansync.Config) { c.PollInterval = -time.Second }, "PollInterval"},
		"hasty scan":           {func(c *cansync.Config) { c.FullScanInterval = 1 }, "FullScanInterval"},
		"no address":           {func(c *cansync.Config) { c.Listen = []string{"127.0.0.1:4001"} }, "listen"},
		"unknown transport":    {func(c *cansync.Config) { c.Listen = []string{"/ip4/127.0.0.1/udp/1/utp"} }, "listen"},
		"bootstrap without id": {func(c *cansync.Config) { c.Network = cansync.Private; c.Bootstrap = []string{"/ip4/127.0.0.1/tcp/1"} }, "bootstrap"},
		"relay without id":     {func(c *cansync.Config) { c.Network = cansync.Private; c.Relays = []string{"/ip4/127.0.0.1/tcp/1"} }, "relay"},
		"bootstrap in a LAN":   {func(c *cansync.Config) { c.Bootstrap = []string{"/ip4/127.0.0.1/tcp/1"} }, "bootstrap"},
	} {
		cfg := good()
		c.spoil(&cfg)
		node, err := cansync.New(t.Context(), cfg)
		require.ErrorIs(t, err, cansync.ErrConfig, name)
		require.ErrorContains(t, err, c.field, name)
		require.Nil(t, node, name)
	}
	long := good()
	long.Network = cansync.Network(make([]byte, 1<<20))
	_, err := cansync.New(t.Context(), long)
	require.Less(t, len(err.Error()), 1000, "a long value must not fill a log")
}

var errPart = errors.New("the part fails")

// A New that fails half way leaves no goroutine, lock or socket behind: the same
// folder serves the next attempt.
func TestNewFailsCleanly(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	net := memory.NewNetwork(memory.Options{})
	good := func(dir string) cansync.Config {
		return cansync.Config{CAN: cantest.New(cantest.Options{}), DataDir: dir, Transport: hostOn(net)}
	}
	write := func(path string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte("in the way"), 0o600))
	}
	var opened []transport.Transport
	for name, spoil := range map[string]func(c *cansync.Config){
		"a file in its place":    func(c *cansync.Config) { write(c.DataDir) },
		"a file above it":        func(c *cansync.Config) { write(c.DataDir); c.DataDir = filepath.Join(c.DataDir, "below") },
		"a file for the store":   func(c *cansync.Config) { write(filepath.Join(c.DataDir, "db")) },
		"a file for the stages":  func(c *cansync.Config) { write(filepath.Join(c.DataDir, "stage")) },
		"a key that is none":     func(c *cansync.Config) { write(filepath.Join(c.DataDir, "identity.key")) },
		"a library that is none": func(c *cansync.Config) { write(filepath.Join(c.DataDir, "libraries", "x.key")) },
		"a name with a zero":     func(c *cansync.Config) { c.DataDir += "\x00" },
		"no randomness":          func(c *cansync.Config) { c.Rand = iotest.ErrReader(errPart) },
		"too little randomness":  func(c *cansync.Config) { c.Rand = io.LimitReader(zeros{}, 31) },
		"a transport that fails": func(c *cansync.Config) {
			c.Transport = func([32]byte) (transport.Transport, error) { return nil, errPart }
		},
		"a transport of another": func(c *cansync.Config) {
			c.Transport = func([32]byte) (transport.Transport, error) {
				h := net.Host(transport.PeerID{1})
				opened = append(opened, h)
				return h, nil
			}
		},
	} {
		cfg := good(filepath.Join(t.TempDir(), "data"))
		spoil(&cfg)
		node, err := cansync.New(t.Context(), cfg)
		require.Error(t, err, name)
		require.Nil(t, node, name)
	}
	require.Len(t, opened, 1)
	_, err := opened[0].Open(t.Context(), transport.PeerInfo{ID: transport.PeerID{2}}, "/x", transport.OpenOptions{})
	require.ErrorIs(t, err, transport.ErrClosed, "the transport was left open")

	// After a failure that comes last the folder is free.
	dir := t.TempDir()
	cfg := good(dir)
	cfg.Transport = func([32]byte) (transport.Transport, error) { return nil, errPart }
	_, err = cansync.New(t.Context(), cfg)
	require.ErrorIs(t, err, errPart)
	node, err := cansync.New(t.Context(), good(dir))
	require.NoError(t, err)

	// While a node runs its folder is taken, and stays in good order.
	_, err = cansync.New(t.Context(), good(dir))
	require.Error(t, err)
	_, err = node.CreateLibrary(t.Context(), "still works", cansync.Filter{})
	require.NoError(t, err)
	require.NoError(t, node.Close())
}

// zeros is an endless source of the worst randomness.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestServiceNeedNotBeThere(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	svc := cantest.New(cantest.Options{})
	svc.SetDown(true)
	dir := filepath.Join(t.TempDir(), "a", "b")
	node, err := cansync.New(t.Context(), cansync.Config{
		CAN: svc, DataDir: dir, Transport: hostOn(memory.NewNetwork(memory.Options{})),
	})
	require.NoError(t, err)
	lib, err := node.CreateLibrary(t.Context(), "later", cansync.Filter{})
	require.NoError(t, err)
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	require.NoError(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil {
			info, ierr := e.Info()
			require.NoError(t, ierr)
			require.Zero(t, info.Mode().Perm()&0o077, path)
		}
		return err
	}))
	require.NoError(t, node.Close())
	require.NoError(t, node.Close(), "closing twice")

	_, err = node.CreateLibrary(t.Context(), "too late", cansync.Filter{})
	require.ErrorIs(t, err, cansync.ErrClosed)
	_, err = lib.Invite(t.Context(), cansync.InviteOptions{})
	require.ErrorIs(t, err, cansync.ErrClosed)
	_, err = node.Peers()
	require.ErrorIs(t, err, cansync.ErrClosed)
	require.ErrorIs(t, lib.Wait(t.Context()), cansync.ErrClosed)
	for _, err := range lib.Assets(t.Context()) {
		require.ErrorIs(t, err, cansync.ErrClosed)
	}
	for range node.Events(context.Background()) {
		t.Fatal("an event of a closed node")
	}
	require.NoError(t, svc.Close())
}

func TestABusyPortIsAnErrorAndNothingElse(t *testing.T) {
	busy, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer func() { require.NoError(t, busy.Close()) }()
	port := busy.LocalAddr().(*net.UDPAddr).Port
	svc := cantest.New(cantest.Options{})
	defer func() { require.NoError(t, svc.Close()) }()
	_, err = cansync.New(t.Context(), cansync.Config{
		CAN: svc, DataDir: t.TempDir(), Network: cansync.LAN,
		Listen: []string{fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", port)},
	})
	require.Error(t, err)
}
