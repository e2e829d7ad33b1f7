package service

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testService is a service under test behind a real server.
type testService struct {
	t    *testing.T
	svc  *Service
	srv  *httptest.Server
	http *http.Client
	cfg  Config
}

func start(t *testing.T, cfg Config) *testService {
	t.Helper()
	if cfg.StorageRoot == "" {
		cfg.StorageRoot = filepath.Join(t.TempDir(), "a root?#%20")
	}
	svc, err := Open(cfg)
	require.NoError(t, err)
	srv := httptest.NewServer(svc.Handler())
	ts := &testService{t: t, svc: svc, srv: srv, http: srv.Client(), cfg: cfg}
	t.Cleanup(ts.stop)
	return ts
}

func (ts *testService) stop() {
	require.NoError(ts.t, ts.svc.Close())
	ts.http.CloseIdleConnections()
	ts.srv.Close()
}

// again closes the service and opens its root once more.
func (ts *testService) again() *testService {
	ts.t.Helper()
	require.NoError(ts.t, ts.svc.Close())
	return start(ts.t, ts.cfg)
}

func (ts *testService) root(parts ...string) string {
	return filepath.Join(append([]string{ts.cfg.StorageRoot}, parts...)...)
}

type testAnswer struct {
	code   int
	header http.Header
	Status string          `json:"status"`
	Error  string          `json:"error"`
	Data   json.RawMessage `json:"data"`
	raw    []byte
}

func (a testAnswer) into(t *testing.T, v any) {
	t.Helper()
	require.Equal(t, 200, a.code, string(a.raw))
	require.NoError(t, json.Unmarshal(a.Data, v), string(a.raw))
}

func (a testAnswer) asset(t *testing.T) (out asset) {
	t.Helper()
	a.into(t, &out)
	return out
}

type testList struct {
	Items      []asset `json:"items"`
	Total      *int64  `json:"total"`
	Limit      int     `json:"limit"`
	Offset     int64   `json:"offset"`
	NextCursor string  `json:"next_cursor"`
	More       bool    `json:"more"`
}

func (ts *testService) do(method, path, contentType string, body io.Reader, header ...string) testAnswer {
	ts.t.Helper()
	req, err := http.NewRequestWithContext(ts.t.Context(), method, ts.srv.URL+Prefix+path, body)
	require.NoError(ts.t, err)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := ts.http.Do(req)
	require.NoError(ts.t, err)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	require.NoError(ts.t, err)
	out := testAnswer{code: resp.StatusCode, header: resp.Header, raw: raw}
	if resp.Header.Get("ETag") == "" && len(raw) > 0 && strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		require.NoError(ts.t, json.Unmarshal(raw, &out), string(raw)) // content has an ETag
	}
	return out
}

func (ts *testService) get(path string) testAnswer { ts.t.Helper(); return ts.do("GET", path, "", nil) }

func (ts *testService) list(path string) (out testList) {
	ts.t.Helper()
	ts.get(path).into(ts.t, &out)
	return out
}

// upload is a form; fields that begin with "-" come after the file.
func upload(t testing.TB, name string, content []byte, fields ...string) (body []byte, contentType string) {
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	write := func(late bool) {
		for i := 0; i+1 < len(fields); i += 2 {
			if n, after := strings.CutPrefix(fields[i], "-"); after == late {
				require.NoError(t, w.WriteField(n, fields[i+1]))
			}
		}
	}
	write(false)
	p, err := w.CreateFormFile("file", name)
	require.NoError(t, err)
	_, err = p.Write(content)
	require.NoError(t, err)
	write(true)
	require.NoError(t, w.Close())
	return buf.Bytes(), w.FormDataContentType()
}

func (ts *testService) ingest(name string, content []byte, fields ...string) testAnswer {
	ts.t.Helper()
	body, ct := upload(ts.t, name, content, fields...)
	return ts.do("POST", "/ingest", ct, bytes.NewReader(body))
}

func (ts *testService) put(content string, fields ...string) asset {
	ts.t.Helper()
	return ts.ingest("blob", []byte(content), fields...).asset(ts.t)
}

func sha(content string) string {
	h := sha256.Sum256([]byte(content))
	return hex.EncodeToString(h[:])
}

// names lists the root without what every root holds.
func (ts *testService) names(dir string) []string {
	ts.t.Helper()
	list, err := os.ReadDir(ts.root(dir))
	require.NoError(ts.t, err)
	out := []string{}
	for _, e := range list {
		if n := e.Name(); !strings.HasPrefix(n, indexName) && n != lockName && n != trashDir && n != thumbDir {
			out = append(out, n)
		}
	}
	return out
}
