package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/cansync/cansync/can/cantest"
)

// plainTLS is the setup of the role "tls-server": a file of generated content,
// served by net/http over TLS 1.3.
type plainTLS struct {
	Dir  string
	Size int64
}

// fileAt is where a file can be downloaded, and the certificate to expect.
type fileAt struct {
	URL  string
	Cert []byte
}

func openTLSServer(_ context.Context, _ *slog.Logger, s plainTLS) (*role, error) {
	path := filepath.Join(s.Dir, "file")
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(f, cantest.Generated(0, s.Size))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, err
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}},
	})
	if err != nil {
		return nil, err
	}
	srv := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) }),
		ReadHeaderTimeout: 10 * time.Second,
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	at := fileAt{URL: "https://" + ln.Addr().String(), Cert: cert}
	return &role{
		methods: map[string]func(context.Context, json.RawMessage) (any, error){
			"at": method(func(context.Context, none) (fileAt, error) { return at, nil }),
		},
		close: func() error { err := srv.Close(); <-done; return err },
	}, nil
}

// openTLSClient opens the role "tls-client", which downloads to a file.
func openTLSClient(_ context.Context, _ *slog.Logger, s plainTLS) (*role, error) {
	get := func(ctx context.Context, at fileAt) (time.Duration, error) {
		cert, err := x509.ParseCertificate(at.Cert)
		if err != nil {
			return 0, err
		}
		pool := x509.NewCertPool()
		pool.AddCert(cert)
		tr := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool}, DisableCompression: true}
		defer tr.CloseIdleConnections()
		q, err := http.NewRequestWithContext(ctx, http.MethodGet, at.URL, nil)
		if err != nil {
			return 0, err
		}
		path := filepath.Join(s.Dir, "download")
		f, err := os.Create(path)
		if err != nil {
			return 0, err
		}
		defer func() { _ = os.Remove(path) }()
		defer func() { _ = f.Close() }()
		began := time.Now()
		resp, err := (&http.Client{Transport: tr}).Do(q)
		if err != nil {
			return 0, err
		}
		defer func() { _ = resp.Body.Close() }()
		n, err := io.Copy(f, resp.Body)
		if err == nil && n != s.Size {
			err = fmt.Errorf("%d bytes of %d", n, s.Size)
		}
		return time.Since(began), err
	}
	return &role{
		methods: map[string]func(context.Context, json.RawMessage) (any, error){"get": method(get)},
		close:   func() error { return nil },
	}, nil
}
