package cantest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/stretchr/testify/require"
)

// Suite says what [Run] may expect of the client under test. The zero value fits
// any service.
type Suite struct {
	// Timeout bounds each case; 0 is 30 s.
	Timeout time.Duration
	// MaxContent is the largest content that the suite ingests; 0 is 1 MiB.
	MaxContent int
	// Deduplicates says that the same content ingested again is the same asset.
	Deduplicates bool
	// Strict requires that metadata comes back as it was sent. Without it, only
	// content and sizes are compared.
	Strict bool
}

// Run checks that a can.Client keeps the promises of package can. open returns a
// client of a service that is empty, or at least used by nobody else, for each
// case; it registers what is to be undone with t.Cleanup. Optional abilities are
// tested where the client has them and the service does not answer that they are
// unsupported.
func Run(t *testing.T, open func(t *testing.T) can.Client, suite Suite) {
	t.Helper()
	if suite.Timeout == 0 {
		suite.Timeout = 30 * time.Second
	}
	if suite.MaxContent == 0 {
		suite.MaxContent = 1 << 20
	}
	for _, c := range []struct {
		name string
		run  func(*check)
	}{
		{"ingest and read back", (*check).roundTrip},
		{"empty asset", (*check).emptyAsset},
		{"ranges", (*check).ranges},
		{"same content twice", (*check).twice},
		{"unicode metadata", (*check).unicode},
		{"paging", (*check).paging},
		{"paging during inserts", (*check).pagingDuringInserts},
		{"unknown asset", (*check).unknown},
		{"content that is not as described", (*check).badContent},
		{"content is read once and closed", (*check).contentOnce},
		{"contexts", (*check).contexts},
		{"cancel during ingest", (*check).cancelIngest},
		{"cancel during read", (*check).cancelRead},
		{"concurrent use", (*check).concurrent},
		{"meta", (*check).meta},
		{"update", (*check).update},
		{"trash", (*check).trash},
		{"changes", (*check).changes},
		{"watch", (*check).watch},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), suite.Timeout)
			defer cancel()
			c.run(&check{T: t, ctx: ctx, client: open(t), suite: suite})
		})
	}
}

// check is one case of the suite.
type check struct {
	*testing.T
	ctx    context.Context
	client can.Client
	suite  Suite
}

func bytesOf(b []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

// pattern returns n bytes that differ from seed to seed.
func pattern(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = io.ReadFull(Generated(seed, int64(n)), b)
	return b
}

func (c *check) ingest(b []byte, m can.Metadata) can.Asset {
	c.Helper()
	a, err := c.client.Ingest(c.ctx, can.Ingest{Content: bytesOf(b), Size: int64(len(b)), Metadata: m})
	require.NoError(c, err)
	require.NotEmpty(c, a.Handle)
	return a
}

func (c *check) read(handle string, offset, length int64) ([]byte, error) {
	c.Helper()
	rc, err := c.client.Open(c.ctx, handle, offset, length)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(rc)
	require.NoError(c, rc.Close())
	return b, err
}

// all pages through the listing.
func (c *check) all(order can.Order, limit int) []can.Asset {
	c.Helper()
	var out []can.Asset
	for {
		p, err := c.client.List(c.ctx, can.ListOptions{Limit: limit, Offset: len(out), Order: order})
		require.NoError(c, err)
		if len(p.Assets) == 0 {
			return out
		}
		out = append(out, p.Assets...)
	}
}

func (c *check) listed(handle string) bool {
	c.Helper()
	for _, a := range c.all(can.Newest, 100) {
		if a.Handle == handle {
			return true
		}
	}
	return false
}

func (c *check) roundTrip() {
	for i, n := range []int{1, 2, 1023, 65536, 65537, c.suite.MaxContent} {
		b := pattern(uint64(i), n)
		before := len(c.all(can.Newest, 100))
		a := c.ingest(b, can.Metadata{MIMEType: "application/octet-stream", Filename: fmt.Sprintf("f%d.bin", i)})
		if a.Size >= 0 {
			require.EqualValues(c, n, a.Size)
		}
		got, err := c.read(a.Handle, 0, -1)
		require.NoError(c, err)
		require.True(c, bytes.Equal(b, got), "content differs at size %d", n)
		require.Len(c, c.all(can.Newest, 100), before+1)
		require.True(c, c.listed(a.Handle))
	}
}

func (c *check) emptyAsset() {
	a := c.ingest(nil, can.Metadata{Filename: "empty", MIMEType: "text/plain"})
	for _, length := range []int64{-1, 0} {
		b, err := c.read(a.Handle, 0, length)
		require.NoError(c, err)
		require.Empty(c, b)
	}
	_, err := c.read(a.Handle, 0, 1)
	require.ErrorIs(c, err, can.ErrTruncated)
}

func (c *check) ranges() {
	const n = 100_000
	b := pattern(7, n)
	a := c.ingest(b, can.Metadata{Filename: "ranges.bin"})
	edges := []int64{0, 1, 4095, 4096, n - 1, n}
	for _, off := range edges {
		for _, end := range edges {
			if end < off {
				continue
			}
			got, err := c.read(a.Handle, off, end-off)
			require.NoError(c, err, "[%d, %d)", off, end)
			require.True(c, bytes.Equal(b[off:end], got), "[%d, %d)", off, end)
		}
		got, err := c.read(a.Handle, off, -1)
		require.NoError(c, err, "from %d", off)
		require.True(c, bytes.Equal(b[off:], got), "from %d", off)

		got, err = c.read(a.Handle, off, n-off+1)
		require.ErrorIs(c, err, can.ErrTruncated, "beyond the end from %d", off)
		require.True(c, len(got) == 0 || bytes.Equal(b[off:], got))
	}
	_, err := c.read(a.Handle, n+1, -1)
	require.ErrorIs(c, err, can.ErrTruncated)
}

func (c *check) twice() {
	b := pattern(9, 3000)
	one := c.ingest(b, can.Metadata{Filename: "twice.bin"})
	two := c.ingest(b, can.Metadata{Filename: "twice.bin"})
	if c.suite.Deduplicates {
		require.Equal(c, one.Handle, two.Handle)
		require.Len(c, c.all(can.Newest, 10), 1)
	}
	for _, h := range []string{one.Handle, two.Handle} {
		got, err := c.read(h, 0, -1)
		require.NoError(c, err)
		require.True(c, bytes.Equal(b, got))
	}
}

func (c *check) unicode() {
	for i, m := range []can.Metadata{
		{Filename: "naïve – 文書 😀.txt", Path: "/Ünïcode/ß/文", Application: "äpp", User: "ユーザー", Description: "«línea»\nzweite\tZeile", Tags: []string{"grün", "赤"}, MIMEType: "text/plain"},
		{Filename: `quote" back\ semi;.txt`, Path: `C:\x\y`, Description: "--boundary\r\nContent-Disposition: form-data; name=\"tags\"\r\n\r\nforged", MIMEType: "text/plain"},
		{Filename: "plain.txt", MIMEType: "text/plain", Tags: []string{"a", "b", "c"}},
	} {
		b := pattern(uint64(100+i), 50)
		a := c.ingest(b, m)
		got, err := c.read(a.Handle, 0, -1)
		require.NoError(c, err)
		require.True(c, bytes.Equal(b, got), "metadata must not disturb content")
		if !c.suite.Strict {
			continue
		}
		require.Equal(c, m, a.Metadata)
		p, err := c.client.List(c.ctx, can.ListOptions{Limit: 1})
		require.NoError(c, err)
		require.Len(c, p.Assets, 1)
		require.Equal(c, m, p.Assets[0].Metadata)
	}
}

func (c *check) paging() {
	const n = 25
	want := map[string]bool{}
	for i := range n {
		want[c.ingest(pattern(uint64(200+i), 20), can.Metadata{Filename: strings.Repeat("p", i+1)}).Handle] = true
	}
	for _, limit := range []int{0, 1, 7, 25, 1000} {
		newest, oldest := c.all(can.Newest, limit), c.all(can.Oldest, limit)
		require.Len(c, newest, n, "limit %d", limit)
		require.Len(c, oldest, n, "limit %d", limit)
		seen := map[string]bool{}
		for i := range newest {
			seen[newest[i].Handle] = true
			if i > 0 {
				require.GreaterOrEqual(c, newest[i-1].Timestamp, newest[i].Timestamp)
				require.LessOrEqual(c, oldest[i-1].Timestamp, oldest[i].Timestamp)
			}
		}
		require.Equal(c, want, seen)
	}
	p, err := c.client.List(c.ctx, can.ListOptions{Offset: n + 5})
	require.NoError(c, err)
	require.Empty(c, p.Assets)
	if p.Total >= 0 {
		require.Equal(c, n, p.Total)
	}
}

func (c *check) unknown() {
	handle := strings.Repeat("0", 64)
	_, err := c.read(handle, 0, -1)
	require.ErrorIs(c, err, can.ErrNotFound)
	_, err = c.read(handle, 10, 5)
	require.ErrorIs(c, err, can.ErrNotFound)
	for _, h := range []string{"", "..", "a/b", "a?b", strings.Repeat("x", 10_000)} {
		_, err := c.read(h, 0, -1)
		require.Error(c, err)
		require.False(c, errors.Is(err, can.ErrUnsupported))
	}
}
