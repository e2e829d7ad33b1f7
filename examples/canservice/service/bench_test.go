package service

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func benchService(b *testing.B) (*Service, *httptest.Server) {
	svc, err := Open(Config{StorageRoot: b.TempDir(), VerifyInterval: -1})
	require.NoError(b, err)
	srv := httptest.NewServer(svc.Handler())
	srv.Client().Transport.(*http.Transport).MaxIdleConnsPerHost = 64
	b.Cleanup(func() {
		srv.Close()
		require.NoError(b, svc.Close())
	})
	return svc, srv
}

// BenchmarkIngestSmall ingests 1 KiB assets over HTTP, many at a time.
func BenchmarkIngestSmall(b *testing.B) {
	_, srv := benchService(b)
	var n atomic.Int64
	content := make([]byte, 1000)
	b.SetParallelism(8)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			body, ct := upload(b, "x", append(fmt.Appendf(nil, "%024d", n.Add(1)), content...), "tags", "a,b", "application", "bench")
			resp, err := srv.Client().Post(srv.URL+Prefix+"/ingest", ct, bytes.NewReader(body))
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != 200 {
				b.Error(resp.Status)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "assets/s")
}

// BenchmarkBulk ingests and reads one large asset over HTTP.
func BenchmarkBulk(b *testing.B) {
	const size = 256 << 20
	_, srv := benchService(b)
	block := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{1}).Read(block) //nolint:errcheck // never fails
	var a testAnswer
	b.Run("ingest", func(b *testing.B) {
		b.SetBytes(size)
		for i := range b.N {
			block[0], block[1] = byte(i), byte(i>>8)
			pr, pw := io.Pipe()
			w := multipart.NewWriter(pw)
			go func() {
				p, err := w.CreateFormFile("file", "x")
				for range size / len(block) {
					if err == nil {
						_, err = p.Write(block)
					}
				}
				if err == nil {
					err = w.Close()
				}
				_ = pw.CloseWithError(err)
			}()
			resp, err := srv.Client().Post(srv.URL+Prefix+"/ingest", w.FormDataContentType(), pr)
			require.NoError(b, err)
			a.raw, err = io.ReadAll(resp.Body)
			require.NoError(b, err)
			require.Equal(b, 200, resp.StatusCode, string(a.raw))
			_ = resp.Body.Close()
		}
	})
	hash := string(a.raw[bytes.Index(a.raw, []byte(`"hash":"`))+8:][:64])
	b.Run("read", func(b *testing.B) {
		b.SetBytes(size)
		for range b.N {
			resp, err := srv.Client().Get(srv.URL + Prefix + "/asset/" + hash)
			require.NoError(b, err)
			n, err := io.Copy(io.Discard, resp.Body)
			require.NoError(b, err)
			require.EqualValues(b, size, n)
			_ = resp.Body.Close()
		}
	})
}
