package service

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/stretchr/testify/require"
)

// crash gives up a service without its closing steps, as kill -9 does: the state
// of its root is copied while it runs, and the copy is opened.
func (ts *testService) crash(harm func(root string)) *testService {
	ts.t.Helper()
	cfg := ts.cfg
	cfg.StorageRoot = filepath.Join(ts.t.TempDir(), "copy")
	require.NoError(ts.t, os.CopyFS(cfg.StorageRoot, os.DirFS(ts.cfg.StorageRoot)))
	if harm != nil {
		harm(cfg.StorageRoot)
	}
	return start(ts.t, cfg)
}

func fileOf(root string, a asset) string { return filepath.Join(root, place(&a)) }

func TestKillLosesNothing(t *testing.T) {
	ts := start(t, Config{})
	var want []asset
	for i := range 20 {
		want = append(want, ts.put(fmt.Sprint(i), "tags", "a,b", "timestamp", fmt.Sprint(1700000000000+i)))
	}
	cursor := ts.list("/list?changed_since=").NextCursor
	want[3] = ts.do("PATCH", "/asset/"+want[3].Hash.String(), "application/json", strings.NewReader(`{"user":"u"}`)).asset(t)
	want[4] = ts.do("DELETE", "/asset/"+want[4].Hash.String(), "", nil).asset(t)
	for _, harm := range []func(root string){
		nil,
		func(root string) { // the index fell back to nothing
			for _, s := range []string{"", "-wal", "-shm"} {
				require.NoError(t, os.Remove(filepath.Join(root, indexName+s)))
			}
		},
		func(root string) { // the index is garbage
			require.NoError(t, os.WriteFile(filepath.Join(root, indexName), bytes.Repeat([]byte("garbage "), 1000), 0o600))
			require.NoError(t, os.Remove(filepath.Join(root, indexName+"-wal")))
		},
	} {
		after := ts.crash(harm)
		require.EqualValues(t, 19, *after.list("/list").Total)
		for _, a := range want {
			require.Equal(t, a, after.get("/asset/"+a.Hash.String()+"/meta").asset(t))
		}
		require.EqualValues(t, 19, *after.list("/search?tags=a").Total)
		if harm == nil {
			l := after.list("/list?changed_since=" + cursor)
			require.Len(t, l.Items, 2)
			b := after.put("later")
			l = after.list("/list?changed_since=" + l.NextCursor)
			require.Len(t, l.Items, 1)
			require.Equal(t, b.Hash, l.Items[0].Hash)
		}
	}
}

func TestOpenRepairs(t *testing.T) {
	ts := start(t, Config{})
	a, b, c, d := ts.put("a", "user", "ua"), ts.put("b", "user", "ub"), ts.put("c", "user", "uc"), ts.put("d", "user", "ud")
	trashed := ts.put("e")
	trashed = ts.do("DELETE", "/asset/"+trashed.Hash.String(), "", nil).asset(t)
	stray := asset{Hash: can.Digest(sha256.Sum256([]byte("stray"))), Timestamp: 1700000000000}
	orphan := blobName(5, can.Digest{1}) + metaSuffix
	harm := func(root string) {
		require.NoError(t, os.WriteFile(filepath.Join(root, tempPrefix+"123"), []byte("half"), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(root, orphan), []byte("{}"), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(root, "mine.txt"), []byte("not the service's"), 0o600))
		require.NoError(t, os.WriteFile(fileOf(root, stray), []byte("stray"), 0o600))
		require.NoError(t, os.Remove(fileOf(root, a)))            // row without content
		require.NoError(t, os.Remove(fileOf(root, b)+metaSuffix)) // content without metadata
		moved := c                                                // cut off in the middle of a trash
		moved.Trashed = true
		require.NoError(t, os.Rename(fileOf(root, c), fileOf(root, moved)))
		require.NoError(t, os.Rename(fileOf(root, c)+metaSuffix, fileOf(root, moved)+metaSuffix))
		half := d // cut off after the first of the two renames
		half.Trashed = true
		require.NoError(t, os.Rename(fileOf(root, d)+metaSuffix, fileOf(root, half)+metaSuffix))
		twice := trashed // cut off in the middle of a restore
		twice.Timestamp, twice.Trashed = 1700000000007, false
		require.NoError(t, os.WriteFile(fileOf(root, twice), []byte("e"), 0o600))
	}
	check := func(ts *testService) {
		t.Helper()
		require.True(t, ts.get("/asset/"+a.Hash.String()+"/meta").asset(t).Corrupted)
		require.Equal(t, 500, ts.get("/asset/"+a.Hash.String()).code)
		require.Equal(t, "b", string(ts.get("/asset/"+b.Hash.String()).raw))
		require.FileExists(t, fileOf(ts.cfg.StorageRoot, b)+metaSuffix)
		gotc := ts.get("/asset/" + c.Hash.String() + "/meta").asset(t)
		require.True(t, gotc.Trashed)
		require.Equal(t, c.metadata, gotc.metadata)
		require.Equal(t, d, ts.get("/asset/"+d.Hash.String()+"/meta").asset(t))
		require.FileExists(t, fileOf(ts.cfg.StorageRoot, d)+metaSuffix)
		require.Equal(t, "stray", string(ts.get("/asset/"+stray.Hash.String()).raw))
		require.Equal(t, trashed, ts.get("/asset/"+trashed.Hash.String()+"/meta").asset(t))
		require.EqualValues(t, 4, *ts.list("/list").Total) // a, b, d and the stray
		for _, n := range ts.names(".") {
			require.NotEqual(t, orphan, n)
			require.False(t, strings.HasPrefix(n, tempPrefix))
		}
		require.FileExists(t, ts.root("mine.txt"))
		// Ingesting the bytes again repairs what is gone, metadata kept.
		healed := ts.put("a", "user", "other")
		require.Equal(t, a, healed)
		require.Equal(t, "a", string(ts.get("/asset/"+a.Hash.String()).raw))
	}
	check(ts.crash(harm)) // after a kill
	require.NoError(t, ts.svc.Close())
	harm(ts.cfg.StorageRoot)
	check(start(t, ts.cfg)) // after a clean end
}

func TestPowerCutLeavesNothingWrongUnmarked(t *testing.T) {
	ts := start(t, Config{})
	require.NoError(t, ts.svc.flusher.flush(false))
	a, b := ts.put("content a"), ts.put("content b")
	after := ts.crash(func(root string) {
		// The length reached the disk, the bytes did not.
		require.NoError(t, os.WriteFile(fileOf(root, a), make([]byte, a.Size), 0o600))
	})
	require.True(t, after.get("/asset/"+a.Hash.String()+"/meta").asset(t).Corrupted)
	require.Equal(t, "content b", string(after.get("/asset/"+b.Hash.String()).raw))
	// An edit that the index lost and the metadata file has.
	after = ts.crash(func(root string) {
		edited := b
		edited.User = "edited"
		other := &files{}
		var err error
		other.root, err = os.OpenRoot(root)
		require.NoError(t, err)
		tmp, err := other.writeMeta(&edited, false)
		require.NoError(t, err)
		require.NoError(t, other.root.Rename(tmp, place(&b)+metaSuffix))
		require.NoError(t, other.root.Close())
	})
	require.Equal(t, optional("edited"), after.get("/asset/"+b.Hash.String()+"/meta").asset(t).User)
}

func TestLock(t *testing.T) {
	ts := start(t, Config{})
	_, err := Open(ts.cfg)
	require.ErrorIs(t, err, ErrLocked)
	require.ErrorContains(t, err, ts.cfg.StorageRoot)
	ts.put("still works")
	require.EqualValues(t, 1, *ts.again().list("/list").Total)
}

func TestOpenRefusesBadConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, cfg := range []Config{{}, {StorageRoot: file}, {StorageRoot: filepath.Join(file, "below")}, {StorageRoot: t.TempDir(), HashRule: "md5"}} {
		_, err := Open(cfg)
		require.ErrorIs(t, err, ErrConfig)
	}
}

func TestCloseCutsOffStalledUploads(t *testing.T) {
	ts := start(t, Config{})
	pr, pw := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), "POST", ts.srv.URL+Prefix+"/ingest", pr)
	require.NoError(t, err)
	req.Header.Set("Content-Type", "multipart/form-data; boundary=b")
	done := make(chan struct{})
	go func() {
		defer close(done)
		if resp, err := ts.http.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}()
	_, err = pw.Write([]byte("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\nhalf"))
	require.NoError(t, err)
	for len(ts.names(".")) == 0 { // until the upload has begun
		require.NoError(t, t.Context().Err())
	}
	ts.svc.cancel() // what Close does once its grace is over
	require.NoError(t, ts.svc.Close())
	_ = pw.CloseWithError(io.ErrClosedPipe)
	<-done
	require.Empty(t, ts.names("."))
	require.NoError(t, ts.svc.Close())
}

func TestDurable(t *testing.T) {
	ts := start(t, Config{Durable: true})
	a := ts.put("x")
	ts.do("PATCH", "/asset/"+a.Hash.String(), "application/json", strings.NewReader(`{"user":"u"}`)).asset(t)
	ts.do("DELETE", "/asset/"+a.Hash.String(), "", nil).asset(t)
	b := ts.put("x")
	require.Equal(t, "x", string(ts.again().get("/asset/"+b.Hash.String()).raw))
}

func TestFailedCommitLeavesNothing(t *testing.T) {
	ts := start(t, Config{})
	a := ts.put("kept")
	failed := 0
	// The index refuses commits from here on.
	_, err := ts.svc.writer.conn.ExecContext(t.Context(), "PRAGMA query_only(1)")
	require.NoError(t, err)
	for _, r := range []testAnswer{
		ts.ingest("x", []byte("new")),
		ts.do("PATCH", "/asset/"+a.Hash.String(), "application/json", strings.NewReader(`{"user":"u"}`)),
		ts.do("DELETE", "/asset/"+a.Hash.String(), "", nil),
	} {
		require.Equal(t, 500, r.code)
		require.Equal(t, "error", r.Status)
		failed++
	}
	require.Equal(t, 3, failed)
	require.Len(t, ts.names("."), 2)
	require.Empty(t, ts.names(trashDir))
	_, err = ts.svc.writer.conn.ExecContext(t.Context(), "PRAGMA query_only(0)")
	require.NoError(t, err)
	m, _, err := ts.svc.files.readMeta(place(&a) + metaSuffix)
	require.NoError(t, err)
	require.Equal(t, a.metadata, m)
	require.Equal(t, "kept", string(ts.get("/asset/"+a.Hash.String()).raw))
	ts.put("new")
}

func TestVerifyIntervalSurvivesRestart(t *testing.T) {
	var now atomic.Int64 // the service's own goroutines read it too
	now.Store(1700000000000)
	pass := func(d time.Duration) { now.Add(d.Milliseconds()) }
	ts := start(t, Config{Now: func() time.Time { return time.UnixMilli(now.Load()) }})
	require.Equal(t, DefaultVerifyInterval, ts.svc.nextVerify(t.Context()))
	_, err := ts.svc.verify(t.Context(), nil)
	require.NoError(t, err)
	ts = ts.again()
	pass(10 * time.Hour)
	require.Equal(t, 14*time.Hour, ts.svc.nextVerify(t.Context()))
	pass(100 * time.Hour)
	require.Equal(t, verifyDelay, ts.svc.nextVerify(t.Context()))
}
