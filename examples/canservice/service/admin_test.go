package service

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func (ts *testService) admin(path string) testAnswer {
	ts.t.Helper()
	return ts.do("POST", "/admin/"+path, "", nil, "Authorization", "Bearer "+ts.cfg.AdminToken)
}

func TestAdminToken(t *testing.T) {
	ts := start(t, Config{AdminToken: "secret"})
	for _, h := range []string{"", "Bearer", "Bearer ", "Bearer Secret", "Basic secret", "secret"} {
		r := ts.do("POST", "/admin/verify", "", nil, "Authorization", h)
		require.Equal(t, 401, r.code, h)
		require.NotEmpty(t, r.header.Get("WWW-Authenticate"))
	}
	require.Equal(t, 200, ts.admin("verify").code)
	off := start(t, Config{})
	require.Equal(t, 403, off.do("POST", "/admin/verify", "", nil, "Authorization", "Bearer ").code)
}

func TestVerify(t *testing.T) {
	for _, rule := range []HashRule{HashContent, HashTimestamp} {
		ts := start(t, Config{AdminToken: "secret", HashRule: rule})
		good, flipped, short, gone := ts.put("good"), ts.put("flipped"), ts.put("short"), ts.put("gone")
		trash := ts.put("trash")
		trash = ts.do("DELETE", "/asset/"+trash.Hash.String(), "", nil).asset(t)
		require.NoError(t, os.WriteFile(fileOf(ts.cfg.StorageRoot, flipped), []byte("fLipped"), 0o600))
		require.NoError(t, os.WriteFile(fileOf(ts.cfg.StorageRoot, short), []byte("shor"), 0o600))
		require.NoError(t, os.WriteFile(fileOf(ts.cfg.StorageRoot, trash), []byte("trAsh"), 0o600))
		require.NoError(t, os.Remove(fileOf(ts.cfg.StorageRoot, gone)))
		cursor := ts.list("/list?changed_since=").NextCursor
		var rep verifyReport
		ts.admin("verify").into(t, &rep)
		require.Equal(t, verifyReport{Checked: 5, Bytes: 4, Corrupted: 4, Missing: 1, News: 4}, rep)
		require.Len(t, ts.list("/list?changed_since="+cursor).Items, 4)
		for _, a := range []asset{flipped, short, gone} {
			require.Equal(t, 500, ts.get("/asset/"+a.Hash.String()).code)
			require.True(t, ts.get("/asset/"+a.Hash.String()+"/meta").asset(t).Corrupted)
		}
		require.Equal(t, 200, ts.get("/asset/"+good.Hash.String()).code)
		require.NoError(t, os.WriteFile(fileOf(ts.cfg.StorageRoot, flipped), []byte("flipped"), 0o600))
		rep = verifyReport{}
		ts.admin("verify").into(t, &rep)
		require.EqualValues(t, 1, rep.Recovered)
		require.Equal(t, "flipped", string(ts.get("/asset/"+flipped.Hash.String()).raw))
	}
}

func TestReadingFindsLostContent(t *testing.T) {
	ts := start(t, Config{})
	short, gone := ts.put("short"), ts.put("gone")
	require.NoError(t, os.WriteFile(fileOf(ts.cfg.StorageRoot, short), []byte("shor"), 0o600))
	require.NoError(t, os.Remove(fileOf(ts.cfg.StorageRoot, gone)))
	for _, a := range []asset{short, gone} {
		require.Equal(t, 500, ts.get("/asset/"+a.Hash.String()).code)
		require.True(t, ts.get("/asset/"+a.Hash.String()+"/meta").asset(t).Corrupted)
	}
	require.Equal(t, short, ts.put("short"))
	require.Equal(t, gone, ts.put("gone"))
}

func TestBackgroundVerification(t *testing.T) {
	root := t.TempDir()
	ts := start(t, Config{StorageRoot: root})
	a := ts.put("content")
	require.NoError(t, ts.svc.Close())
	require.NoError(t, os.WriteFile(fileOf(root, a), []byte("cOntent"), 0o600))
	synctest.Test(t, func(t *testing.T) {
		svc, err := Open(Config{StorageRoot: root, VerifyInterval: time.Hour})
		require.NoError(t, err)
		<-time.After(30 * time.Minute) // of the bubble's time
		got, _, err := svc.index.byHash(t.Context(), a.Hash)
		require.NoError(t, err)
		require.False(t, got.Corrupted)
		<-time.After(31 * time.Minute)
		synctest.Wait()
		got, _, err = svc.index.byHash(t.Context(), a.Hash)
		require.NoError(t, err)
		require.True(t, got.Corrupted)
		require.NoError(t, svc.Close())
	})
}

func TestRebuild(t *testing.T) {
	ts := start(t, Config{AdminToken: "secret", RebuildErrorThreshold: 2})
	var want []asset
	for i := range 10 {
		want = append(want, ts.put(fmt.Sprint(i), "tags", "t", "user", fmt.Sprint("u", i)))
	}
	want[0] = ts.do("DELETE", "/asset/"+want[0].Hash.String(), "", nil).asset(t)
	want[1] = ts.do("PATCH", "/asset/"+want[1].Hash.String(), "application/json", strings.NewReader(`{"description":"d"}`)).asset(t)
	require.NoError(t, os.Remove(fileOf(ts.cfg.StorageRoot, want[2])))
	require.Equal(t, 500, ts.get("/asset/"+want[2].Hash.String()).code)
	cursor := ts.list("/list?changed_since=").NextCursor
	_, err := ts.svc.writer.conn.ExecContext(t.Context(), "UPDATE assets SET user = 'wrong'")
	require.NoError(t, err)

	var rep rebuildReport
	ts.admin("rebuild").into(t, &rep)
	require.Equal(t, rebuildReport{Assets: 9, Trashed: 1}, rep)
	for i, a := range want {
		if i == 2 {
			require.Equal(t, 404, ts.get("/asset/"+a.Hash.String()+"/meta").code)
			continue
		}
		require.Equal(t, a, ts.get("/asset/"+a.Hash.String()+"/meta").asset(t))
	}
	require.EqualValues(t, 8, *ts.list("/list").Total)
	require.EqualValues(t, 8, *ts.list("/search?tags=t").Total)
	require.Len(t, ts.list("/list?changed_since="+cursor).Items, 9) // the cursor stays good

	// At the threshold it goes through, above it nothing changes.
	for i := 3; i < 5; i++ {
		require.NoError(t, os.WriteFile(fileOf(ts.cfg.StorageRoot, want[i])+metaSuffix, []byte("{broken"), 0o600))
	}
	ts.admin("rebuild").into(t, &rep)
	require.EqualValues(t, 2, rep.Errors)
	require.NoError(t, os.Remove(fileOf(ts.cfg.StorageRoot, want[5])+metaSuffix))
	r := ts.admin("rebuild")
	require.Equal(t, 500, r.code)
	require.Contains(t, r.Error, "rebuild_error_threshold")
	require.EqualValues(t, 8, *ts.list("/list").Total)
	require.Equal(t, want[5], ts.get("/asset/"+want[5].Hash.String()+"/meta").asset(t))
	ts.put("goes on")

	require.True(t, ts.svc.verifying.TryLock())
	for _, p := range []string{"verify", "rebuild"} {
		require.Equal(t, 409, ts.admin(p).code)
	}
	ts.svc.verifying.Unlock()
}

func TestAnswersAreEnvelopes(t *testing.T) {
	ts := start(t, Config{AdminToken: "x"})
	for _, r := range []testAnswer{ts.get("/list"), ts.get("/search"), ts.admin("verify"), ts.admin("rebuild"), ts.get("/list?limit=x"), ts.get("/asset/x")} {
		var m map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(r.raw, &m))
		require.Len(t, m, 2)
		require.Contains(t, []string{"success", "error"}, r.Status)
		require.Equal(t, r.code == 200, r.Status == "success")
	}
}
