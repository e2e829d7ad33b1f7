package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cansync/cansync/can"
)

// copyWorkers is how many requests the plain copy has under way. More made it no
// faster on two cores.
const copyWorkers = 16

// copying asks for a plain copy of everything from one CAN Service to another.
type copying struct{ From, To string }

// openCopy opens the role "copy": the plainest program that copies what one CAN
// Service holds to another and checks SHA-256 on the way, in parallel, over HTTP.
func openCopy(context.Context, *slog.Logger, none) (*role, error) {
	tr := &http.Transport{MaxIdleConns: 4 * copyWorkers, MaxIdleConnsPerHost: 2 * copyWorkers, DisableCompression: true}
	c := &copier{http: &http.Client{Transport: tr}}
	return &role{
		methods: map[string]func(context.Context, json.RawMessage) (any, error){"copy": method(c.copy)},
		close:   func() error { tr.CloseIdleConnections(); return nil },
	}, nil
}

type copier struct{ http *http.Client }

// copy returns how long it took, listing included.
func (c *copier) copy(ctx context.Context, q copying) (time.Duration, error) {
	lister, err := can.NewHTTPClient(q.From, can.HTTPOptions{})
	if err != nil {
		return 0, err
	}
	defer func() { _ = lister.Close() }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	began := time.Now()
	assets := make(chan can.Asset, 1000)
	var wg sync.WaitGroup
	var done atomic.Int64
	for range copyWorkers {
		wg.Go(func() {
			buf := new(bytes.Buffer)
			for a := range assets {
				if err := c.one(ctx, q, a, buf); err != nil {
					cancel(fmt.Errorf("copy %s: %w", a.Handle, err))
					return
				}
				done.Add(1)
			}
		})
	}
	offset := 0
	for ctx.Err() == nil {
		page, err := lister.List(ctx, can.ListOptions{Limit: 1000, Offset: offset, Order: can.Oldest})
		if err != nil {
			cancel(err)
			break
		}
		if len(page.Assets) == 0 {
			break
		}
		offset += len(page.Assets)
		for _, a := range page.Assets {
			select {
			case assets <- a:
			case <-ctx.Done():
			}
		}
	}
	close(assets)
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	if done.Load() != int64(offset) {
		return 0, fmt.Errorf("%d of %d copied", done.Load(), offset)
	}
	return time.Since(began), nil
}

// one copies an asset by way of memory, so that its digest is known before any of
// it is passed on.
func (c *copier) one(ctx context.Context, q copying, a can.Asset, buf *bytes.Buffer) error {
	get, err := http.NewRequestWithContext(ctx, http.MethodGet, q.From+can.DefaultPath+"/asset/"+a.Handle, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(get)
	if err != nil {
		return err
	}
	buf.Reset()
	_, err = buf.ReadFrom(resp.Body)
	_ = resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %v", resp.Status, err)
	}
	if sum := sha256.Sum256(buf.Bytes()); hex.EncodeToString(sum[:]) != a.Handle {
		return fmt.Errorf("content has the digest %x", sum)
	}
	return ingest(ctx, c.http, q.To, bytes.NewReader(buf.Bytes()), a.Metadata, a.Timestamp)
}

// ingest posts a content to a CAN Service.
func ingest(ctx context.Context, client *http.Client, to string, content io.Reader, m can.Metadata, timestamp int64) error {
	body, ctype := ingestBody(content, m, timestamp)
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, to+can.DefaultPath+"/ingest", body)
	if err != nil {
		return err
	}
	post.Header.Set("Content-Type", ctype)
	resp, err := client.Do(post)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %v", resp.Status, answer, err)
	}
	return nil
}
