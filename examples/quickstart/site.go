package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/examples/canservice/service"
)

// site stands for one person's machine: a CAN Service and a node beside it, each
// with a folder of its own.
type site struct {
	name string
	dir  string
	url  string // of the CAN Service's API
	node *cansync.Node
	user *can.HTTPClient // what a program of the user has, apart from the node's
	web  *http.Transport
	undo []func() error
}

func openSite(ctx context.Context, name, dir string, log *slog.Logger) (_ *site, err error) {
	s := &site{name: name, dir: dir}
	log = log.With("site", name)
	defer func() {
		if err != nil {
			err = fmt.Errorf("start %s: %w", name, errors.Join(err, s.close()))
		}
	}()
	if err := s.serve(log); err != nil {
		return nil, err
	}
	if s.user, err = can.NewHTTPClient(s.url, can.HTTPOptions{}); err != nil {
		return nil, err
	}
	s.later(s.user.Close)
	s.web = &http.Transport{}
	s.later(func() error { s.web.CloseIdleConnections(); return nil })

	// This is all that a program needs to take part. On a real machine Network and
	// Listen are left out, and the peers may be anywhere.
	client, err := can.NewHTTPClient(s.url, can.HTTPOptions{})
	if err != nil {
		return nil, err
	}
	s.later(client.Close)
	s.node, err = cansync.New(ctx, cansync.Config{
		CAN:     client,
		DataDir: filepath.Join(dir, "can_sync_data"),
		Network: cansync.LAN,
		Listen:  []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"},
		Logger:  log,
	})
	if err != nil {
		return nil, err
	}
	s.later(s.node.Close)
	return s, nil
}

// serve starts the CAN Service on a free port.
func (s *site) serve(log *slog.Logger) error {
	svc, err := service.Open(service.Config{StorageRoot: filepath.Join(s.dir, "can"), Logger: log})
	if err != nil {
		return err
	}
	s.later(svc.Close)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.url = "http://" + ln.Addr().String() + service.Prefix
	srv := &http.Server{
		Handler: svc.Handler(), ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	s.later(func() error {
		// The service first: it ends the event streams, which Shutdown waits for.
		err := svc.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if srv.Shutdown(ctx) != nil {
			err = errors.Join(err, srv.Close())
		}
		if serr := <-served; !errors.Is(serr, http.ErrServerClosed) {
			err = errors.Join(err, serr)
		}
		return err
	})
	return nil
}

func (s *site) later(undo func() error) { s.undo = append(s.undo, undo) }

// close stops what was started, the last first.
func (s *site) close() error {
	var errs []error
	for len(s.undo) > 0 {
		last := len(s.undo) - 1
		errs = append(errs, s.undo[last]())
		s.undo = s.undo[:last]
	}
	return errors.Join(errs...)
}

// upload does what this does:
//
//	curl -X POST $URL/ingest -F file=@photo.png -F mime_type=image/png -F tags=a,b …
//
// and returns the service's hash.
func (s *site) upload(ctx context.Context, path string, m can.Metadata) (hash string, err error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close() // it was only read
	info, err := file.Stat()
	if err != nil {
		return "", err
	}

	// The form around the file is small; the file itself is streamed.
	var form bytes.Buffer
	mp := multipart.NewWriter(&form)
	for _, f := range [][2]string{
		{"mime_type", m.MIMEType}, {"human_file_name", m.Filename}, {"human_readable_path", m.Path},
		{"application", m.Application}, {"user", m.User}, {"tags", strings.Join(m.Tags, ",")}, {"description", m.Description},
	} {
		err = errors.Join(err, mp.WriteField(f[0], f[1]))
	}
	_, ferr := mp.CreateFormFile("file", m.Filename)
	head := form.Len()
	if err = errors.Join(err, ferr, mp.Close()); err != nil {
		return "", err
	}
	body := io.MultiReader(bytes.NewReader(form.Bytes()[:head]), file, bytes.NewReader(form.Bytes()[head:]))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/ingest", body)
	if err != nil {
		return "", err
	}
	req.ContentLength = int64(form.Len()) + info.Size()
	req.Header.Set("Content-Type", mp.FormDataContentType())

	answer, err := (&http.Client{Transport: s.web}).Do(req)
	if err != nil {
		return "", fmt.Errorf("upload to %s: %w", s.name, err)
	}
	defer answer.Body.Close() // read below
	var got struct {
		Status, Error string
		Data          struct{ Hash string }
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, 1<<20)).Decode(&got); err != nil {
		return "", fmt.Errorf("upload to %s: %w", s.name, err)
	}
	if got.Status != "success" {
		return "", fmt.Errorf("upload to %s: status %d: %s", s.name, answer.StatusCode, got.Error)
	}
	return got.Data.Hash, nil
}

// digest reads an asset from the service and returns the SHA-256 of its content.
func (s *site) digest(ctx context.Context, hash string) (d can.Digest, err error) {
	rc, err := s.user.Open(ctx, hash, 0, -1)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	h := sha256.New()
	if _, err = io.Copy(h, rc); err != nil {
		return d, err
	}
	return can.Digest(h.Sum(nil)), nil
}
