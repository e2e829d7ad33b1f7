package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can/cantest"
	smem "github.com/cansync/cansync/store/memory"
	"github.com/cansync/cansync/transport"
	tmem "github.com/cansync/cansync/transport/memory"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"crypto/ed25519"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testAddr = "127.0.0.1:3213"
	absentID = "0000000000000000000000000000000000000000000000000000000000000001"
)

// rig is a node on memory alone with its API.
type rig struct {
	*Handler
	node *cansync.Node
	can  *cantest.Service
	db   *smem.Store
	log  *logBuffer
}

// logBuffer is a log at debug level that can be read while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newRig(t testing.TB, network *tmem.Network, edit func(*Options)) *rig {
	t.Helper()
	r := &rig{can: cantest.New(cantest.Options{}), db: smem.New(), log: new(logBuffer)}
	log := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	r.node, err = cansync.New(context.Background(), cansync.Config{
		CAN: r.can, Store: r.db, Logger: log,
		Transport: func(seed [32]byte) (transport.Transport, error) {
			key := ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey)
			return network.Host(transport.PeerID(key)), nil
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, r.node.Close())
		require.NoError(t, r.db.Close())
	})
	o := Options{Node: r.node, Addr: testAddr, ServiceURL: "http://127.0.0.1:3210/api/v1/can/0", Network: cansync.LAN, Logger: log}
	if edit != nil {
		edit(&o)
	}
	r.Handler, err = New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Drain(context.Background())) })
	return r
}

func single(t testing.TB) *rig {
	return newRig(t, tmem.NewNetwork(tmem.Options{Directory: true}), nil)
}

// request is one with what a well-behaved client sends.
func request(method, path, body string) *http.Request {
	var rd io.Reader
	if body != "" {
		rd = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, path, rd)
	r.Host = testAddr
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

// answer is an envelope, checked.
type answer struct {
	code   int
	header http.Header
	data   json.RawMessage
	error  string
}

// do serves a request and checks that the answer is a proper envelope.
func (r *rig) do(t testing.TB, req *http.Request) answer {
	t.Helper()
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return check(t, w)
}

func check(t testing.TB, w *httptest.ResponseRecorder) answer {
	t.Helper()
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
	for name := range w.Header() {
		require.False(t, strings.HasPrefix(name, "Access-Control-"), name)
	}
	var keys map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &keys), w.Body.String())
	a := answer{code: w.Code, header: w.Header(), data: keys["data"]}
	require.Len(t, keys, 2)
	if w.Code == http.StatusOK {
		require.Equal(t, `"success"`, string(keys["status"]))
		require.NotNil(t, keys["data"])
	} else {
		require.Equal(t, `"error"`, string(keys["status"]))
		require.NoError(t, json.Unmarshal(keys["error"], &a.error))
		require.NotEmpty(t, a.error)
	}
	return a
}

func (r *rig) call(t testing.TB, method, path, body string) answer {
	t.Helper()
	return r.do(t, request(method, path, body))
}

// get calls and reads the data of a success.
func get[T any](t testing.TB, r *rig, method, path, body string) T {
	t.Helper()
	a := r.call(t, method, path, body)
	require.Equal(t, http.StatusOK, a.code, a.error)
	var v T
	dec := json.NewDecoder(bytes.NewReader(a.data))
	dec.DisallowUnknownFields()
	require.NoError(t, dec.Decode(&v))
	return v
}

func (r *rig) create(t testing.TB, name, filter string) createdView {
	t.Helper()
	return get[createdView](t, r, "POST", "/libraries", `{"name":"`+name+`","filter":`+filter+`}`)
}

// eventually polls until ok, for as long as a slow machine may take.
func (r *rig) eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			require.FailNow(t, "never: "+what, "log:\n%s", r.log.String())
		}
	}
}
