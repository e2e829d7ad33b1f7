package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/examples/canservice/service"
)

// serviceSetup is the setup of the role "service": a CAN Service over HTTP on
// loopback. With Dir it is the reference service, on that storage root, else the
// one in memory.
type serviceSetup struct{ Dir string }

// filling asks for assets: Count of them, of Size bytes, made from seeds that begin
// at First.
type filling struct {
	First, Count int
	Size         int64
}

type serviceRole struct {
	url  string
	srv  *http.Server
	done chan struct{}
	ref  *service.Service
	mem  *cantest.Service

	asked *tally
}

func openService(_ context.Context, log *slog.Logger, s serviceSetup) (*role, error) {
	r := &serviceRole{done: make(chan struct{})}
	var h http.Handler
	var err error
	if s.Dir != "" {
		if r.ref, err = service.Open(service.Config{StorageRoot: s.Dir, VerifyInterval: -1, Logger: log}); err != nil {
			return nil, err
		}
		h = r.ref.Handler()
	} else {
		r.mem = cantest.New(cantest.Options{PageCap: 1000})
		h = r.mem.Handler()
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, r.closeServices())
	}
	r.url = "http://" + ln.Addr().String()
	r.asked = newTally(h)
	r.srv = &http.Server{Handler: r.asked, ReadHeaderTimeout: 10 * time.Second}
	go func() { defer close(r.done); _ = r.srv.Serve(ln) }()
	return &role{
		methods: map[string]func(context.Context, json.RawMessage) (any, error){
			"url":    method(func(context.Context, none) (string, error) { return r.url, nil }),
			"fill":   method(r.fill),
			"asked":  method(func(context.Context, none) (string, error) { return r.asked.String(), nil }),
			"writes": method(func(context.Context, none) (int, error) { return r.mem.Writes(), nil }),
		},
		close: r.close,
	}, nil
}

func (r *serviceRole) closeServices() (err error) {
	if r.ref != nil {
		err = r.ref.Close()
	}
	if r.mem != nil {
		err = errors.Join(err, r.mem.Close())
	}
	return err
}

func (r *serviceRole) close() error {
	err := r.closeServices() // ends event streams
	err = errors.Join(err, r.srv.Close())
	<-r.done
	return err
}

// fill stores assets without passing the network.
func (r *serviceRole) fill(ctx context.Context, f filling) (none, error) {
	if r.mem != nil {
		for i := range f.Count {
			seed := uint64(f.First + i)
			r.mem.AddFunc(func() io.ReadSeeker { return cantest.Generated(seed, f.Size) }, benchMetadata(int(seed)), benchTimestamp(int(seed)))
		}
		return none{}, nil
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, copyWorkers)
	for range copyWorkers {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(f.Count) && ctx.Err() == nil; i = next.Add(1) - 1 {
				n := f.First + int(i)
				body, ctype := ingestBody(cantest.Generated(uint64(n), f.Size), benchMetadata(n), benchTimestamp(n))
				q := httptest.NewRequestWithContext(ctx, http.MethodPost, "http://localhost"+can.DefaultPath+"/ingest", body)
				q.Header.Set("Content-Type", ctype)
				w := httptest.NewRecorder()
				r.ref.Handler().ServeHTTP(w, q)
				if w.Code != http.StatusOK {
					errs <- fmt.Errorf("ingest: %d %s", w.Code, w.Body)
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return none{}, err
	default:
		return none{}, ctx.Err()
	}
}

// benchMetadata is what a camera's import says of its n-th picture.
func benchMetadata(n int) can.Metadata {
	return can.Metadata{
		MIMEType: "image/jpeg", Application: "camera-import", User: "anna", Description: fmt.Sprintf("picture %d of the summer", n),
		Tags: []string{"holiday", "sea", strconv.Itoa(2000 + n%25)}, Filename: fmt.Sprintf("IMG_%07d.jpg", n), Path: "/photos/2025/summer",
	}
}

func benchTimestamp(n int) int64 { return 1_750_000_000_000 + int64(n) }

const boundary = "cansync-bench-7d1f0c2a9b"

// ingestBody makes the body of an ingest as a stream, so that large contents need
// no memory.
func ingestBody(content io.Reader, m can.Metadata, timestamp int64) (body io.Reader, contentType string) {
	var head bytes.Buffer
	for _, f := range [][2]string{
		{"mime_type", m.MIMEType}, {"application", m.Application}, {"user", m.User}, {"description", m.Description},
		{"tags", strings.Join(m.Tags, ",")}, {"human_file_name", m.Filename}, {"human_readable_path", m.Path},
		{"timestamp", strconv.FormatInt(timestamp, 10)},
	} {
		fmt.Fprintf(&head, "--%s\r\nContent-Disposition: form-data; name=%q\r\n\r\n%s\r\n", boundary, f[0], f[1])
	}
	fmt.Fprintf(&head, "--%s\r\nContent-Disposition: form-data; name=\"file\"; filename=%q\r\nContent-Type: %s\r\n\r\n", boundary, m.Filename, m.MIMEType)
	return io.MultiReader(&head, content, strings.NewReader("\r\n--"+boundary+"--\r\n")), "multipart/form-data; boundary=" + boundary
}
