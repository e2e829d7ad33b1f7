package service

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestIngestKeepsEveryField(t *testing.T) {
	for _, dash := range []string{"", "-"} { // fields before and after the file
		ts := start(t, Config{})
		a := ts.ingest("photo.jpg", []byte("hello"), dash+"human_file_name", "ß photo.jpg", dash+"human_readable_path", "/a/../b", dash+"application", "paste",
			dash+"user", "ann", dash+"tags", " x, y,,x ", dash+"description", "line\nline", dash+"timestamp", "1700000000000", "unknown", "field").asset(t)
		require.Equal(t, sha("hello"), a.Hash.String())
		require.EqualValues(t, 1700000000000, a.Timestamp)
		require.EqualValues(t, 5, a.Size)
		require.Equal(t, metadata{MIMEType: "image/jpeg", Application: "paste", User: "ann", Description: "line\nline", Tags: []string{"x", "y"},
			Filename: "ß photo.jpg", Path: "/a/../b"}, a.metadata)
		require.Equal(t, a.metadata, ts.get("/asset/"+a.Hash.String()+"/meta").asset(t).metadata)
		require.Equal(t, []string{blobName(a.Timestamp, a.Hash), blobName(a.Timestamp, a.Hash) + metaSuffix}, ts.names("."))
		b, err := os.ReadFile(ts.root(blobName(a.Timestamp, a.Hash)))
		require.NoError(t, err)
		require.Equal(t, "hello", string(b))
		info, err := os.Stat(ts.root(indexName))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	}
}

func TestIngestAbsentFieldsAreNull(t *testing.T) {
	ts := start(t, Config{})
	r := ts.ingest("x", nil)
	require.Equal(t, 200, r.code)
	for _, f := range []string{"application", "user", "description", "human_filename", "human_path"} {
		require.Contains(t, string(r.Data), `"`+f+`":null`)
	}
	require.Contains(t, string(r.Data), `"tags":[]`)
	a := r.asset(t)
	require.Zero(t, a.Size)
	require.Equal(t, defaultMIME, a.MIMEType)
	require.Empty(t, ts.get("/asset/"+a.Hash.String()).raw)
}

func TestIngestSameBytesByRule(t *testing.T) {
	ts := start(t, Config{})
	first := ts.put("same", "tags", "one")
	again := ts.put("same", "tags", "two")
	require.Equal(t, first, again)
	require.EqualValues(t, 1, *ts.list("/list").Total)

	tt := start(t, Config{HashRule: HashTimestamp})
	seen := map[string]bool{}
	for range 5 { // more than one a millisecond, or not
		a := tt.put("same")
		require.NotEqual(t, sha("same"), a.Hash.String())
		require.False(t, seen[a.Hash.String()])
		seen[a.Hash.String()] = true
	}
	require.EqualValues(t, 5, *tt.list("/list").Total)
	one := tt.put("same", "timestamp", "1700000000000")
	require.Equal(t, one, tt.put("same", "timestamp", "1700000000000"))
	for h := range seen {
		require.Equal(t, "same", string(tt.get("/asset/"+h).raw))
	}
	require.Len(t, tt.names("."), 12)
}

func TestIngestLargeStreams(t *testing.T) {
	ts := start(t, Config{})
	for _, size := range []int{overlapAbove - 1, overlapAbove, overlapAbove + 1, overlapAbove + chunkSize, 3*overlapAbove + 17} {
		content := make([]byte, size)
		rand.NewChaCha8([32]byte{byte(size)}).Read(content) //nolint:errcheck // never fails
		a := ts.ingest("big.bin", content).asset(t)
		require.Equal(t, sha(string(content)), a.Hash.String())
		require.EqualValues(t, size, a.Size)
		require.True(t, bytes.Equal(content, ts.get("/asset/"+a.Hash.String()).raw))
	}
}

func TestIngestRefusesAndLeavesNothing(t *testing.T) {
	ts := start(t, Config{})
	good, ct := upload(t, "x", []byte("content"))
	two := bytes.Replace(good, []byte("\r\ncontent\r\n"), []byte("\r\ncontent\r\n--"+strings.TrimPrefix(ct, "multipart/form-data; boundary=")+"\r\nContent-Disposition: form-data; name=\"file\"; filename=\"y\"\r\n\r\nmore\r\n"), 1)
	require.NotEqual(t, good, two)
	post := func(ct string, body []byte) testAnswer { return ts.do("POST", "/ingest", ct, bytes.NewReader(body)) }
	for name, r := range map[string]testAnswer{
		"no form":       post("application/json", []byte("{}")),
		"no boundary":   post("multipart/form-data", good),
		"cut":           post(ct, good[:len(good)-20]),
		"cut content":   post(ct, good[:len(good)-70]),
		"garbage":       post(ct, []byte("garbage")),
		"empty":         post(ct, nil),
		"two files":     post(ct, two),
		"no file":       post("multipart/form-data; boundary=b", []byte("--b\r\nContent-Disposition: form-data; name=\"tags\"\r\n\r\na\r\n--b--\r\n")),
		"bad timestamp": ts.ingest("x", []byte("c"), "timestamp", "yesterday"),
		"negative":      ts.ingest("x", []byte("c"), "timestamp", "-5"),
		"far":           ts.ingest("x", []byte("c"), "timestamp", "9999999999999999"),
		"not UTF-8":     ts.ingest("x", []byte("c"), "description", "\xff"),
		"long field":    ts.ingest("x", []byte("c"), "-description", strings.Repeat("x", maxField+1)),
		"long user":     ts.ingest("x", []byte("c"), "user", strings.Repeat("x", maxName+1)),
		"many tags":     ts.ingest("x", []byte("c"), "tags", manyTags(maxTags+1)),
		"twice":         ts.ingest("x", []byte("c"), "user", "a", "user", "b"),
	} {
		require.Equal(t, 400, r.code, name+": "+string(r.raw))
		require.Equal(t, "error", r.Status, name)
		require.NotEmpty(t, r.Error, name)
	}
	require.Empty(t, ts.names("."))
	require.Zero(t, *ts.list("/list").Total)
	require.Len(t, ts.put("c", "tags", manyTags(maxTags)).Tags, maxTags)
}

func manyTags(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "t%d,", i)
	}
	return b.String()
}

func TestIngestData(t *testing.T) {
	ts := start(t, Config{})
	post := func(body string) testAnswer {
		return ts.do("POST", "/ingest/data", "application/json", strings.NewReader(body))
	}
	for text, fields := range map[string]string{
		`{"b": 1, "a":[null]}`: `,"tags":"a,b","application":"app","human_file_name":"n.json"`,
		`null`:                 `,"tags":["a","b"],"application":"app","human_filename":"n.json"`,
		`"text"`:               `,"tags":["a","b"],"application":"app","human_filename":"n.json","user":null`,
		`1e400`:                `,"tags":["a","b"],"application":"app","human_filename":"n.json","timestamp":1700000000000`,
	} {
		a := post(`{"data":` + text + fields + `}`).asset(t)
		require.Equal(t, sha(text), a.Hash.String())
		require.Equal(t, metadata{MIMEType: "application/json", Application: "app", Tags: []string{"a", "b"}, Filename: "n.json"}, a.metadata)
		require.Equal(t, text, string(ts.get("/asset/"+a.Hash.String()).raw))
	}
	for _, body := range []string{``, `{}`, `[]`, `{"data":}`, `{"data":1}{}`, `{"data":1,"tags":{}}`, `{"data":1,"tags":[1]}`, `{"data":1,"timestamp":"x"}`, `{"data":1,"timestamp":0}`, `{"data":1,"user":4}`} {
		r := post(body)
		require.Equal(t, 400, r.code, body)
		require.Equal(t, "error", r.Status, body)
	}
	require.Contains(t, post(`{"data":1,"colour":"red"}`).Error, "colour")
	require.Equal(t, 413, post(`{"data":"`+strings.Repeat("x", maxDataBody)+`"}`).code)
	require.Equal(t, 400, ts.do("POST", "/ingest/data", "text/plain", strings.NewReader(`{"data":1}`)).code)
	require.EqualValues(t, 4, *ts.list("/list").Total)
}

func TestConcurrentIngest(t *testing.T) {
	ts := start(t, Config{})
	const workers, each = 16, 25
	var wg sync.WaitGroup
	errs := make(chan error, workers)
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				// Every content comes from two workers.
				body, ct := upload(t, "x", fmt.Appendf(nil, "content %d %d", w/2, i), "tags", "t")
				resp, err := ts.http.Post(ts.srv.URL+Prefix+"/ingest", ct, bytes.NewReader(body))
				if err != nil {
					errs <- err
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					errs <- fmt.Errorf("status %d", resp.StatusCode)
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	const want = workers / 2 * each
	require.EqualValues(t, want, *ts.list("/list").Total)
	require.EqualValues(t, want, *ts.list("/search?tags=t").Total)
	require.Len(t, ts.names("."), 2*want)
	seen := map[int64]bool{}
	cursor := ""
	for more := true; more; {
		l := ts.list("/list?limit=37&changed_since=" + cursor)
		for _, a := range l.Items {
			require.Equal(t, a.Hash.String(), sha(string(ts.get("/asset/"+a.Hash.String()).raw)))
			seen[a.Timestamp] = true
		}
		more, cursor = l.More, l.NextCursor
	}
	require.NotEmpty(t, seen)
}
