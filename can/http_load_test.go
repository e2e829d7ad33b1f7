package can_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/tier"
)

// heapWatch measures the heap while bodies are read through it.
type heapWatch struct {
	rt    http.RoundTripper
	every int64

	mu   sync.Mutex
	base uint64
	peak uint64
	read int64
	next int64
}

func (h *heapWatch) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := h.rt.RoundTrip(req)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.TeeReader(resp.Body, h), resp.Body}
	}
	return resp, err
}

// Write is told of what was read.
func (h *heapWatch) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.read += int64(len(p)); h.read >= h.next {
		h.next = h.read + h.every
		h.sample()
	}
	return len(p), nil
}

// sample looks at what is in use. What a collection under way would free has to be
// gone first: how late it is depends on the machine.
func (h *heapWatch) sample() {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	h.peak = max(h.peak, m.HeapAlloc)
}

func (h *heapWatch) begin() {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	h.base = m.HeapAlloc
}

// zeros is 1 GiB of JSON, or 10 GiB of what claims to be gzip, made as it is read.
func zeros(n int64, header string) http.RoundTripper {
	return roundTrip(func(req *http.Request) (*http.Response, error) {
		body := io.MultiReader(strings.NewReader(`{"status":"success","data":"`), io.LimitReader(zero{}, n))
		return &http.Response{
			StatusCode: 200, Header: http.Header{"Content-Encoding": {header}}, ContentLength: -1, Request: req, Body: io.NopCloser(body),
		}, nil
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

type zero struct{}

var noughts = strings.Repeat("0", 4<<10)

func (zero) Read(p []byte) (int, error) {
	for n := 0; n < len(p); {
		n += copy(p[n:], noughts)
	}
	return len(p), nil
}

// C-03: whatever the length of an answer, it costs little memory and no panic.
func TestBodiesOfAnyLengthCostLittle(t *testing.T) {
	small, large := tier.Of(500, 500), tier.Of(50, 500)
	body := bytes.Repeat([]byte("0123456789"), 10_000)
	for name, tc := range map[string]struct {
		rt   http.RoundTripper // nil: a service with the fault below
		act  cantest.Action
		list error
		long bool // read up to the client's own limit each time
	}{
		"truncated":         {nil, cantest.Action{Kind: cantest.ActCut}, can.ErrUnavailable, false},
		"longer than said":  {nil, cantest.Action{Kind: cantest.ActWrongLength, N: -5}, can.ErrTruncated, false},
		"shorter than said": {nil, cantest.Action{Kind: cantest.ActWrongLength, N: 5}, can.ErrTruncated, false},
		"without an end":    {nil, cantest.Action{Kind: cantest.ActEndless}, can.ErrInvalid, true},
		"gzip without end":  {nil, cantest.Action{Kind: cantest.ActEndless, Gzip: true}, can.ErrInvalid, false},
		"10 GiB gzip":       {zeros(10<<30, "gzip"), cantest.Action{}, can.ErrInvalid, false},
		"1 GiB JSON":        {zeros(1<<30, "identity"), cantest.Action{}, can.ErrInvalid, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := cantest.New(cantest.Options{})
				h := &heapWatch{rt: s.RoundTripper(), every: 4 << 20}
				times := small
				if tc.rt != nil {
					h.rt = tc.rt
				}
				if tc.long {
					times = large
				}
				c := client(t, h, can.HTTPOptions{Retries: -1})
				a := s.Add(body, can.Metadata{Description: strings.Repeat("d", 1000)})
				f := s.Inject(cantest.Fault{Action: tc.act})
				h.begin()
				for range times {
					_, err := c.List(t.Context(), can.ListOptions{})
					require.ErrorIs(t, err, tc.list)
					_, err = c.Meta(t.Context(), a.Handle)
					require.ErrorIs(t, err, tc.list)
					synctest.Wait() // what the service had for its answers is no more
				}
				h.sample()
				t.Logf("%d times, %d MiB read, heap grew by %.1f MiB", times, h.read>>20, float64(int64(h.peak)-int64(h.base))/(1<<20))
				if tc.rt == nil && tc.long {
					// The first listing is tried without a limit and with 256 assets to 1.
					require.Equal(t, 2*times+9, f.Fired())
				} else if tc.rt == nil {
					require.Equal(t, 2*times, f.Fired())
				}
				require.LessOrEqual(t, int64(h.peak)-int64(h.base), int64(16<<20))
				require.NoError(t, s.Close())
			})
		})
	}
}

// C-02: twenty calls that hang cost each its own deadline, and another client of
// another service does not notice.
func TestHangingCallsKeepToThemselves(t *testing.T) {
	body := bytes.Repeat([]byte("d"), 200_000)
	for _, kind := range []cantest.ActionKind{cantest.ActHangBefore, cantest.ActHangMid, cantest.ActSlow} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			bubble(t, cantest.Options{}, can.HTTPOptions{IdleTimeout: 10 * time.Second, Retries: -1}, func(t *testing.T, s *cantest.Service, c *can.HTTPClient) {
				other := cantest.New(cantest.Options{})
				well := client(t, other.RoundTripper(), can.HTTPOptions{})
				a, b := s.Add(body, can.Metadata{}), other.Add(body, can.Metadata{})
				f := s.Inject(cantest.Fault{Route: cantest.RouteAsset, Action: cantest.Action{Kind: kind}})
				const workers = 20
				rounds := tier.Of(10, 100)
				var wg sync.WaitGroup
				var mu sync.Mutex
				var took []time.Duration
				for range workers {
					wg.Go(func() {
						for range rounds {
							begun := time.Now()
							_, err := readAll(t.Context(), c, a.Handle, 0, -1)
							mu.Lock()
							took = append(took, time.Since(begun))
							require.ErrorIs(t, err, can.ErrUnavailable)
							mu.Unlock()
						}
					})
				}
				for range rounds {
					begun := time.Now()
					got, err := readAll(t.Context(), well, b.Handle, 0, -1)
					require.NoError(t, err)
					require.Len(t, got, len(body))
					require.Zero(t, time.Since(begun))
					<-time.After(9 * time.Second)
				}
				wg.Wait()
				require.Equal(t, workers*rounds, f.Fired())
				for _, d := range took {
					require.InDelta(t, 10, d.Seconds(), 1)
				}
				require.NoError(t, other.Close())
			})
		})
	}
}

// C-05: large assets of a service whose ranges do not work.
func TestRangeFaultsOfLargeAssets(t *testing.T) {
	size, assets := int64(tier.Of(4, 64))<<20, tier.Of(20, 200)
	for name, kind := range map[string]cantest.ActionKind{
		"ignored": cantest.ActNoRange, "wrong": cantest.ActWrongRange, "refused": cantest.ActRangeRefused,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, cantest.Options{DiscardContent: true}, can.HTTPOptions{}, func(t *testing.T, s *cantest.Service, c *can.HTTPClient) {
				for i := range assets {
					seed := uint64(i)
					a := s.AddFunc(func() io.ReadSeeker { return cantest.Generated(seed, size) }, can.Metadata{}, 0)
					f := s.Inject(cantest.Fault{Route: cantest.RouteAsset, Handle: a.Handle, Times: 1, Action: cantest.Action{Kind: kind}})
					at := size / 2
					rc, err := c.Open(t.Context(), a.Handle, at, -1)
					require.NoError(t, err)
					got, n, err := cantest.DigestOf(rc)
					require.NoError(t, err)
					require.NoError(t, rc.Close())
					want := cantest.Generated(seed, size)
					_, err = want.Seek(at, io.SeekStart)
					require.NoError(t, err)
					right, _, err := cantest.DigestOf(want)
					require.NoError(t, err)
					require.Equal(t, size-at, n)
					require.Equal(t, right, got)
					require.Equal(t, 1, f.Fired())
					require.LessOrEqual(t, s.Reads(a.Handle), 2, "one fallback")
					f.Remove()
				}
				t.Logf("%d assets of %d MiB", assets, size>>20)
			})
		})
	}
}

// C-04: content that is not what was asked for does not pass for it.
func TestWrongBytesAreSeenByTheirDigest(t *testing.T) {
	times := tier.Of(1000, 1000)
	bubble(t, cantest.Options{Rule: cantest.HashTimestamp}, can.HTTPOptions{}, func(t *testing.T, s *cantest.Service, c *can.HTTPClient) {
		wrong := s.Inject(cantest.Fault{Route: cantest.RouteAsset, Action: cantest.Action{Kind: cantest.ActWrongBytes}})
		for i := range times {
			b := fmt.Appendf(bytes.Repeat([]byte("w"), 100), "%d", i)
			a := s.Add(b, can.Metadata{})
			got, err := readAll(t.Context(), c, a.Handle, 0, -1)
			require.NoError(t, err, "the client does not know the digest")
			d, _, err := cantest.DigestOf(bytes.NewReader(got))
			require.NoError(t, err)
			require.Zero(t, s.Digests()[d], "bytes of no asset")
		}
		require.Equal(t, times, wrong.Fired())
	})
}
