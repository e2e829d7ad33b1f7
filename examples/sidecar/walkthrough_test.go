package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// pair is two machines, running.
func pair(t *testing.T, of, with flavour) (ca, cb *service, a, b *sidecar) {
	t.Helper()
	ca, cb = newService(t, of), newService(t, with)
	ca.start()
	cb.start()
	a, b = newSidecar(t, ca.proxy), newSidecar(t, cb.proxy)
	a.start()
	b.start()
	return ca, cb, a, b
}

func TestWalkThrough(t *testing.T) {
	ca, cb, a, b := pair(t, usual, usual)
	share(t, a, b, `{"mime_prefix":"image/"}`)
	fields := map[string]string{
		"mime_type": "image/jpeg", "human_file_name": "photo.jpg", "human_readable_path": "/pictures/2026", "application": "camera",
		"user": "ann", "tags": "beach,summer", "description": "At the \"sea\", with ümläuts",
	}
	ca.ingest("text stays here", map[string]string{"mime_type": "text/plain"})
	for _, way := range []struct{ from, to *service }{{ca, cb}, {cb, ca}} {
		before := len(way.to.list())
		sent := way.from.ingest("picture of "+way.from.port, fields)
		until(t, "the picture arrives", func() bool { return len(way.to.list()) > before })
		until(t, "it arrives with its metadata", func() bool {
			for _, got := range way.to.list() {
				if got["hash"] == sent["hash"] {
					return fmt.Sprint(got) == fmt.Sprint(sent)
				}
			}
			return false
		})
	}
	require.Len(t, ca.list(), 3)
	require.Len(t, cb.list(), 2)
	require.Equal(t, once("picture of "+cb.port), ca.posted())
	require.Equal(t, once("picture of "+ca.port), cb.posted())
	for _, s := range []*sidecar{a, b} {
		require.Zero(t, s.terminate(t))
		require.NotContains(t, s.output(t), "cansync1")
		require.NotContains(t, s.output(t), "level=ERROR")
	}
}

func TestNodeThatWasOffCatchesUp(t *testing.T) {
	ca, cb, a, b := pair(t, usual, usual)
	id := share(t, a, b, `{}`)
	until(t, "b has joined", func() bool { return b.library(id).Access == "write" })
	require.Zero(t, b.terminate(t))
	for i := range 20 {
		ca.ingest(fmt.Sprintf("while b was off %d", i), nil)
	}
	until(t, "a has them", func() bool { return a.library(id).Assets == 20 })
	cb.ingest("b's own", nil)
	b.start()
	until(t, "b catches up", func() bool { return len(cb.list()) == 21 && b.library(id).Synced == 21 })
	until(t, "a too", func() bool { return len(ca.list()) == 21 })
	require.Len(t, cb.posted(), 20)
	require.Equal(t, once("b's own"), ca.posted())
}

func TestServiceComesAndGoes(t *testing.T) {
	t.Parallel()
	ca, cb := newService(t, usual), newService(t, usual)
	cb.start()
	a, b := newSidecar(t, ca.proxy), newSidecar(t, cb.proxy)
	type status struct {
		CANService struct {
			Healthy bool
			Error   *string
		} `json:"can_service"`
	}
	healthy := func(s *sidecar) bool {
		var v status
		require.NoError(t, s.call("GET", "/status", "", &v), "the sidecar keeps answering")
		require.Equal(t, v.CANService.Healthy, v.CANService.Error == nil)
		return v.CANService.Healthy
	}
	a.start() // without its service
	b.start()
	until(t, "a says that its service is absent", func() bool { return !healthy(a) })
	id := share(t, a, b, `{}`)
	ca.start()
	until(t, "a says that its service is there", func() bool { return healthy(a) })
	for i := range 10 {
		ca.ingest(fmt.Sprintf("one %d", i), nil)
	}
	until(t, "b has the first", func() bool { return b.library(id).Synced == 10 })

	cb.kill()
	until(t, "b says that its service is gone", func() bool { return !healthy(b) })
	for i := range 10 {
		ca.ingest(fmt.Sprintf("two %d", i), nil)
	}
	until(t, "b knows of the others", func() bool { return b.library(id).Assets == 20 })
	require.EqualValues(t, 20, a.library(id).Assets, "what is unknown is not deleted")
	cb.start()
	until(t, "b says that its service is back", func() bool { return healthy(b) })
	until(t, "b has all", func() bool { return len(cb.list()) == 20 && b.library(id).Synced == 20 })
	require.Len(t, ca.list(), 20)
}

// TestStopsOnSignal stops a sidecar in the midst of its work.
func TestStopsOnSignal(t *testing.T) {
	ca, _, a, b := pair(t, usual, usual)
	id := share(t, a, b, `{}`)
	for i := range 20 {
		ca.ingest(fmt.Sprintf("%d %s", i, strings.Repeat("x", 1<<20)), nil)
	}
	until(t, "b is at work", func() bool { return b.library(id).Synced > 0 })
	for _, s := range []*sidecar{b, a} {
		began := time.Now()
		require.Zero(t, s.terminate(t))
		t.Logf("stopped within %s", time.Since(began).Round(time.Millisecond))
		require.Contains(t, s.output(t), "stopped")
	}
}

func TestFilesAreTheUsersAlone(t *testing.T) {
	ca := newService(t, usual)
	ca.start()
	a := newSidecar(t, ca.proxy)
	path, env := self(t, "sidecar")
	a.process = spawn(t, a.dir, env, "sh", "-c", `umask 000; exec "$0"`, path)
	until(t, "the sidecar answers", func() bool { return a.call("GET", "/status", "", nil) == nil })
	require.NoError(t, a.call("POST", "/libraries", `{"name":"x","filter":{}}`, nil))
	require.Zero(t, a.terminate(t))
	seen := 0
	require.NoError(t, filepath.WalkDir(filepath.Join(a.dir, "data"), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		seen++
		require.Zero(t, info.Mode().Perm()&0o077, "%s: %s", path, info.Mode())
		return nil
	}))
	require.Greater(t, seen, 5)
}
