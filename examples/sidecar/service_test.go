package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can/cantest"
)

// flavour is a kind of CAN Service.
type flavour struct {
	minimal bool   // only ingest, list and the bytes of assets; else the reference
	rule    string // how it makes hashes: content or timestamp
}

var (
	usual   = flavour{rule: "content"}
	stamped = flavour{rule: "timestamp"}
)

// minimal is the process of a CAN Service that offers the least there is. It keeps
// assets in memory.
func minimal() {
	opts := cantest.Options{Lacks: cantest.AllFeatures}
	if os.Getenv("CAN_HASH_RULE") == stamped.rule {
		opts.Rule = cantest.HashTimestamp
	}
	srv := &http.Server{
		Addr: net.JoinHostPort("127.0.0.1", os.Getenv("CAN_PORT")), Handler: cantest.New(opts).Handler(), ReadHeaderTimeout: time.Minute,
	}
	fmt.Fprintln(os.Stderr, srv.ListenAndServe())
	os.Exit(1)
}

// service is a CAN Service, behind a proxy that counts what the sidecar asks.
type service struct {
	t     testing.TB
	kind  flavour
	dir   string
	port  string
	proxy string // base URL for the sidecar
	*process

	mu     sync.Mutex
	flying int            // ingests under way
	tries  int            // ingests that came in whole
	posts  map[string]int // ingests that the service confirmed, by the SHA-256 of the content
	lists  int            // listings answered
}

func newService(t testing.TB, kind flavour) *service {
	t.Helper()
	s := &service{t: t, kind: kind, dir: t.TempDir(), port: freePort(t), posts: make(map[string]int)}
	target, err := url.Parse("http://127.0.0.1:" + s.port)
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.FlushInterval = -1 // events
	proxy.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { panic(http.ErrAbortHandler) }
	proxy.ModifyResponse = s.answered
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := &http.Server{Handler: s.counting(proxy), ReadHeaderTimeout: patience}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	s.proxy = "http://" + ln.Addr().String() + "/api/v1/can/0"
	return s
}

// digestKey is where the digest of what is ingested travels in a context.
type digestKey struct{}

// counting passes on ingests that came in whole, and then to their end, whether or
// not who asked is killed meanwhile: so each is counted exactly once.
func (s *service) counting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			next.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		digest, err := fileDigest(r.Header.Get("Content-Type"), body)
		if err != nil {
			digest = err.Error() // which no test expects
		}
		s.count(func() { s.tries++; s.flying++ })
		defer s.count(func() { s.flying-- })
		ctx, cancel := context.WithCancel(context.WithValue(context.WithoutCancel(r.Context()), digestKey{}, digest))
		defer cancel()
		r = r.WithContext(ctx)
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

func (s *service) answered(r *http.Response) error {
	if r.StatusCode != http.StatusOK {
		return nil
	}
	if digest, ok := r.Request.Context().Value(digestKey{}).(string); ok {
		s.count(func() { s.posts[digest]++ })
	}
	if strings.HasSuffix(r.Request.URL.Path, "/list") {
		s.count(func() { s.lists++ })
	}
	return nil
}

func (s *service) count(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn()
}

// posted returns how often the sidecar ingested each content.
func (s *service) posted() (out map[string]int) {
	s.count(func() { out = maps.Clone(s.posts) })
	return out
}

// once maps contents as posted does when each was ingested once.
func once(contents ...string) map[string]int {
	out := make(map[string]int)
	for _, c := range contents {
		out[sum([]byte(c))]++
	}
	return out
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// fileDigest returns the SHA-256 of the file in a form.
func fileDigest(kind string, body []byte) (string, error) {
	_, params, err := mime.ParseMediaType(kind)
	if err != nil {
		return "", err
	}
	form := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	for {
		part, err := form.NextPart()
		if err != nil {
			return "", errors.Join(errors.New("no file in the form"), err)
		}
		if part.FormName() != "file" {
			continue
		}
		b, err := io.ReadAll(part)
		return sum(b), err
	}
}

func (s *service) start() {
	s.t.Helper()
	env := []string{"CAN_PORT=" + s.port, "CAN_STORAGE_ROOT=" + filepath.Join(s.dir, "can"), "CAN_HASH_RULE=" + s.kind.rule}
	if s.kind.minimal {
		path, what := self(s.t, "minimal")
		s.process = spawn(s.t, s.dir, append(env, what...), path)
	} else {
		file := filepath.Join(s.dir, "config.yaml")
		require.NoError(s.t, os.WriteFile(file, []byte("hash_rule: "+s.kind.rule+"\n"), 0o600))
		s.process = spawn(s.t, s.dir, env, reference(s.t), file)
	}
	until(s.t, "the CAN Service answers", func() bool { return ask("GET", s.base()+"/list?limit=1", "", nil, nil) == nil })
}

func (s *service) base() string { return "http://127.0.0.1:" + s.port + "/api/v1/can/0" }

// asset is an asset as the CAN Service shows it, all of it.
type asset map[string]any

func (s *service) list() []asset {
	s.t.Helper()
	var out []asset
	for {
		var page struct{ Items []asset }
		require.NoError(s.t, ask("GET", s.base()+"/list?limit=500&order=asc&offset="+strconv.Itoa(len(out)), "", nil, &page))
		if out = append(out, page.Items...); len(page.Items) == 0 {
			return out
		}
	}
}

func (s *service) ingest(content string, fields map[string]string) asset {
	s.t.Helper()
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for k, v := range fields {
		require.NoError(s.t, w.WriteField(k, v))
	}
	f, err := w.CreateFormFile("file", "photo.jpg")
	require.NoError(s.t, err)
	_, err = io.WriteString(f, content)
	require.NoError(s.t, err)
	require.NoError(s.t, w.Close())
	var a asset
	require.NoError(s.t, ask("POST", s.base()+"/ingest", w.FormDataContentType(), &body, &a))
	return a
}

// contents returns the assets by the SHA-256 of their contents.
func (s *service) contents() map[string][]asset {
	s.t.Helper()
	out := make(map[string][]asset)
	for _, a := range s.list() {
		resp, err := client.Get(s.base() + "/asset/" + a["hash"].(string))
		require.NoError(s.t, err)
		b, err := io.ReadAll(resp.Body)
		require.NoError(s.t, err)
		require.NoError(s.t, resp.Body.Close())
		require.Equal(s.t, http.StatusOK, resp.StatusCode)
		out[sum(b)] = append(out[sum(b)], a)
	}
	return out
}
