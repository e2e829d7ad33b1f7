package transfer

import (
	"bytes"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/tier"
	"github.com/cansync/cansync/transport"
)

// swapped is a service that answers reads of one asset, from the n-th on, with another
// one and another ETag.
type swapped struct {
	rt       http.RoundTripper
	nth      int64 // from 1; none if 0
	from, to string
	reads    atomic.Int64
	swaps    atomic.Int64
}

func (s *swapped) RoundTrip(req *http.Request) (*http.Response, error) {
	tag := `"1"`
	if s.from != "" && strings.HasSuffix(req.URL.Path, "/asset/"+s.from) {
		if n := s.reads.Add(1); s.nth > 0 && n >= s.nth {
			s.swaps.Add(1)
			req, tag = req.Clone(req.Context()), `"2"`
			req.URL.Path = strings.TrimSuffix(req.URL.Path, s.from) + s.to
		}
	}
	resp, err := s.rt.RoundTrip(req)
	if err == nil {
		resp.Header.Set("ETag", tag)
	}
	return resp, err
}

// TestServiceWithBrokenRanges is C-05 where contents are served: whatever the service
// over HTTP makes of ranges, the peer has the right bytes, or "unavailable" when the
// content changes on the way.
func TestServiceWithBrokenRanges(t *testing.T) {
	size := max(6, tier.Of(10, 64)) << 20
	for name, tc := range map[string]struct {
		fault cantest.ActionKind
		nth   int64
	}{
		"ignored": {fault: cantest.ActNoRange}, "wrong": {fault: cantest.ActWrongRange},
		"refused": {fault: cantest.ActRangeRefused}, "changed": {nth: 3},
		"changed behind a refusal": {fault: cantest.ActRangeRefused, nth: 2},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				service := cantest.New(cantest.Options{})
				sw := &swapped{rt: service.RoundTripper(), nth: tc.nth}
				c, err := can.NewHTTPClient("http://can.test:3210", can.HTTPOptions{Transport: sw, Retries: -1})
				require.NoError(t, err)
				var received atomic.Int64
				a, b, lib := pair(t, nodeOptions{server: func(sc *ServerConfig) { sc.Service = c }},
					nodeOptions{client: func(cc *ClientConfig) {
						cc.OnReceived = func(_ [32]byte, _ transport.PeerID, n int) { received.Add(int64(n)) }
					}})
				t.Cleanup(func() {
					require.NoError(t, c.Close())
					require.NoError(t, service.Close())
				})
				data, other := random(t, 1, size), random(t, 2, size)
				as := service.Add(data, can.Metadata{})
				sum := blob.Sum(data)
				a.know(as, sum)
				sw.from, sw.to = as.Handle, service.Add(other, can.Metadata{}).Handle
				w := a.announce(lib, sum)
				var f *cantest.Injected
				if tc.fault != 0 {
					f = service.Inject(cantest.Fault{Route: cantest.RouteAsset, Action: cantest.Action{Kind: tc.fault}})
				}
				got, err := b.client.Large(t.Context(), w, nil)
				require.Zero(t, b.liars.Load())
				if f != nil {
					require.Positive(t, f.Fired())
				}
				t.Logf("%d reads, %d of them of another content, %d faults, %d bytes of %d", sw.reads.Load(), sw.swaps.Load(),
					firedOf(f), received.Load(), size)
				require.LessOrEqual(t, received.Load(), int64(size)*105/100)
				if tc.nth > 0 {
					require.ErrorIs(t, err, ErrUnavailable)
					require.Positive(t, sw.swaps.Load())
					require.Positive(t, a.rotten.Load())
					return
				}
				require.NoError(t, err)
				require.True(t, bytes.Equal(data, readContent(t, got)))
				require.NoError(t, got.Discard())
				require.Zero(t, a.rotten.Load())
				// The range that failed, the whole one in its place, and the one that is
				// kept open behind the runs.
				require.LessOrEqual(t, sw.reads.Load(), int64(3))
			})
		})
	}
}

func firedOf(f *cantest.Injected) int {
	if f == nil {
		return 0
	}
	return f.Fired()
}
