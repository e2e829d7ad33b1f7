package can_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
)

// C-01: waits are bounded whatever the service asks for, attempts are few.
func TestBusyServiceIsLeftAlone(t *testing.T) {
	for _, after := range []string{"", "0", "2", "86400", "-5", "soon", "Fri, 01 Jan 2100 00:00:00 GMT", "99999999999999999999999"} {
		for _, status := range []int{429, 500, 502, 503, 504} {
			t.Run(fmt.Sprintf("%d %s", status, after), func(t *testing.T) {
				bubble(t, cantest.Options{}, can.HTTPOptions{}, func(t *testing.T, s *cantest.Service, c *can.HTTPClient) {
					f := s.Inject(cantest.Fault{Route: cantest.RouteList, Action: cantest.Action{Status: status, RetryAfter: after}})
					start := time.Now()
					_, err := c.List(t.Context(), can.ListOptions{})
					require.ErrorIs(t, err, can.ErrUnavailable)
					require.LessOrEqual(t, time.Since(start), 30*time.Second)
					require.NotZero(t, f.Fired())
					require.LessOrEqual(t, f.Fired(), 3)
					wait, ok := can.RetryAfter(err)
					require.LessOrEqual(t, wait, 30*time.Second)
					require.Equal(t, ok, wait > 0)
					if after == "86400" {
						require.Equal(t, 30*time.Second, wait)
					}
					f.Remove()
					_, err = c.List(t.Context(), can.ListOptions{})
					require.NoError(t, err)
				})
			})
		}
	}
}

func TestOneFailureIsRetried(t *testing.T) {
	for name, act := range map[string]cantest.Action{
		"reset": {Kind: cantest.ActReset}, "503": {Status: 503, RetryAfter: "1"}, "500": {Status: 500},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, cantest.Options{}, can.HTTPOptions{}, func(t *testing.T, s *cantest.Service, c *can.HTTPClient) {
				f := s.Inject(cantest.Fault{Route: cantest.RouteList, Times: 1, Action: act})
				_, err := c.List(t.Context(), can.ListOptions{})
				require.NoError(t, err)
				require.Equal(t, 1, f.Fired())
				require.Equal(t, 2, s.Calls()[cantest.RouteList])
			})
		})
	}
}

// C-02: each call ends within its deadline.
func TestDeadlines(t *testing.T) {
	o := can.HTTPOptions{CallTimeout: 20 * time.Second, IdleTimeout: 10 * time.Second, Retries: -1}
	body := bytes.Repeat([]byte("d"), 200_000)
	for name, tc := range map[string]struct {
		act   cantest.Action
		limit time.Duration
	}{
		"hang before": {cantest.Action{Kind: cantest.ActHangBefore}, 10 * time.Second},
		"hang mid":    {cantest.Action{Kind: cantest.ActHangMid}, 10 * time.Second},
		"hang after":  {cantest.Action{Kind: cantest.ActHangAfter}, 10 * time.Second},
		"byte/second": {cantest.Action{Kind: cantest.ActSlow}, 10 * time.Second},
	} {
		t.Run("open/"+name, func(t *testing.T) {
			bubble(t, cantest.Options{}, o, func(t *testing.T, s *cantest.Service, c *can.HTTPClient) {
				a := s.Add(body, can.Metadata{})
				f := s.Inject(cantest.Fault{Route: cantest.RouteAsset, Action: tc.act})
				start := time.Now()
				b, err := readAll(t.Context(), c, a.Handle, 0, -1)
				took := time.Since(start)
				require.Equal(t, 1, f.Fired())
				if name == "hang after" && err == nil {
					require.Equal(t, body, b)
					return
				}
				require.ErrorIs(t, err, can.ErrUnavailable)
				require.ErrorIs(t, err, os.ErrDeadlineExceeded)
				require.NotErrorIs(t, err, context.DeadlineExceeded)
				require.InDelta(t, tc.limit.Seconds(), took.Seconds(), 1)
			})
		})
		t.Run("list/"+name, func(t *testing.T) {
			bubble(t, cantest.Options{}, o, func(t *testing.T, s *cantest.Service, c *can.HTTPClient) {
				s.Add(body, can.Metadata{})
				f := s.Inject(cantest.Fault{Route: cantest.RouteList, Action: tc.act})
				start := time.Now()
				_, err := c.List(t.Context(), can.ListOptions{})
				require.ErrorIs(t, err, can.ErrUnavailable)
				require.Equal(t, 1, f.Fired())
				require.InDelta(t, 20, time.Since(start).Seconds(), 1)
			})
		})
	}
	t.Run("slow but moving", func(t *testing.T) {
		bubble(t, cantest.Options{}, o, func(t *testing.T, s *cantest.Service, c *can.HTTPClient) {
			a := s.Add(body, can.Metadata{})
			f := s.Inject(cantest.Fault{Route: cantest.RouteAsset, Action: cantest.Action{Kind: cantest.ActSlow, N: 2000}})
			b, err := readAll(t.Context(), c, a.Handle, 0, -1)
			require.NoError(t, err)
			require.Equal(t, body, b)
			require.Equal(t, 1, f.Fired())
		})
	})
	t.Run("slow reader", func(t *testing.T) {
		bubble(t, cantest.Options{}, o, func(t *testing.T, s *cantest.Service, c *can.HTTPClient) {
			a := s.Add(body, can.Metadata{})
			rc, err := c.Open(t.Context(), a.Handle, 0, -1)
			require.NoError(t, err)
			for n := 0; n < len(body); {
				<-time.After(time.Minute)
				k, err := io.ReadFull(rc, make([]byte, min(50_000, len(body)-n)))
				require.NoError(t, err)
				n += k
			}
			require.NoError(t, rc.Close())
		})
	})
}

// C-03 and C-04 on reads.
func TestBrokenBodies(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789"), 10_000)
	for name, tc := range map[string]struct {
		act  cantest.Action
		list error // nil: succeeds
		open error
	}{
		"cut":           {cantest.Action{Kind: cantest.ActCut}, can.ErrUnavailable, can.ErrUnavailable},
		"announced +5":  {cantest.Action{Kind: cantest.ActWrongLength, N: 5}, can.ErrTruncated, nil},
		"announced -5":  {cantest.Action{Kind: cantest.ActWrongLength, N: -5}, can.ErrTruncated, can.ErrTruncated},
		"extra":         {cantest.Action{Kind: cantest.ActExtra, N: 9}, can.ErrInvalid, can.ErrInvalid},
		"HTML":          {cantest.Action{Kind: cantest.ActHTML}, can.ErrInvalid, can.ErrTruncated},
		"HTML 502":      {cantest.Action{Kind: cantest.ActHTML, Status: 502}, can.ErrUnavailable, can.ErrUnavailable},
		"endless":       {cantest.Action{Kind: cantest.ActEndless}, can.ErrInvalid, nil},
		"gzip bomb":     {cantest.Action{Kind: cantest.ActEndless, Gzip: true}, can.ErrInvalid, can.ErrInvalid},
		"envelope":      {cantest.Action{Kind: cantest.ActErrorEnvelope}, can.ErrUnavailable, can.ErrTruncated},
		"bad JSON":      {cantest.Action{Kind: cantest.ActBadJSON}, can.ErrTruncated, can.ErrTruncated},
		"500":           {cantest.Action{Status: 500}, can.ErrUnavailable, can.ErrCorrupted},
		"403":           {cantest.Action{Status: 403}, can.ErrDenied, can.ErrDenied},
		"elsewhere":     {cantest.Action{Kind: cantest.ActRedirect, Location: "http://evil.test/"}, can.ErrInvalid, can.ErrInvalid},
		"other port":    {cantest.Action{Kind: cantest.ActRedirect, Location: "http://can.test:1/"}, can.ErrInvalid, can.ErrInvalid},
		"other scheme":  {cantest.Action{Kind: cantest.ActRedirect, Location: "https://can.test:3210/"}, can.ErrInvalid, can.ErrInvalid},
		"redirect loop": {cantest.Action{Kind: cantest.ActRedirect, Location: base + can.DefaultPath + "/list"}, can.ErrInvalid, nil},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, cantest.Options{}, can.HTTPOptions{Retries: -1, Token: "secret"}, func(t *testing.T, s *cantest.Service, c *can.HTTPClient) {
				a := s.Add(body, can.Metadata{Description: strings.Repeat("d", 1000)})
				f := s.Inject(cantest.Fault{Action: tc.act})
				_, err := c.List(t.Context(), can.ListOptions{})
				require.ErrorIs(t, err, tc.list)
				require.NotContains(t, err.Error(), "secret")
				require.NotZero(t, f.Fired())
				if name == "redirect loop" {
					require.LessOrEqual(t, f.Fired(), 4)
					return
				}
				b, err := readAll(t.Context(), c, a.Handle, 0, int64(len(body)))
				if tc.open == nil {
					require.NoError(t, err)
					require.Len(t, b, len(body), "no more than was asked for")
					return
				}
				require.ErrorIs(t, err, tc.open)
				require.NotContains(t, err.Error(), "secret")
			})
		})
	}
}

// C-05: whatever the service makes of Range, the bytes are the right ones.
func TestRangeFaults(t *testing.T) {
	body := make([]byte, 100_000)
	_, err := io.ReadFull(cantest.Generated(1, int64(len(body))), body)
	require.NoError(t, err)
	for name, kind := range map[string]cantest.ActionKind{
		"ignored": cantest.ActNoRange, "wrong": cantest.ActWrongRange, "refused": cantest.ActRangeRefused,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, cantest.Options{}, can.HTTPOptions{}, func(t *testing.T, s *cantest.Service, c *can.HTTPClient) {
				a := s.Add(body, can.Metadata{})
				require.True(t, c.Ranges())
				f := s.Inject(cantest.Fault{Route: cantest.RouteAsset, Action: cantest.Action{Kind: kind}})
				for _, r := range [][2]int64{{10, 7}, {50_000, 50_000}, {99_999, 1}, {5, -1}} {
					b, err := readAll(t.Context(), c, a.Handle, r[0], r[1])
					require.NoError(t, err)
					end := r[0] + r[1]
					if r[1] < 0 {
						end = int64(len(body))
					}
					require.True(t, bytes.Equal(body[r[0]:end], b))
				}
				require.False(t, c.Ranges())
				require.LessOrEqual(t, s.Calls()[cantest.RouteAsset], 8, "one fallback each")
				require.NotZero(t, f.Fired())
				_, err := readAll(t.Context(), c, a.Handle, 99_999, 2)
				require.ErrorIs(t, err, can.ErrTruncated)
				f.Remove()
				_, err = readAll(t.Context(), c, a.Handle, 1, 1)
				require.NoError(t, err)
				require.True(t, c.Ranges())
			})
		})
	}
}

// C-06: nothing goes to another origin, over real sockets.
func TestTokenStaysHome(t *testing.T) {
	var hits atomic.Int32
	evil := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer evil.Close()
	var got atomic.Value
	home := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got.Store(r.Header.Get("Authorization"))
		http.Redirect(w, r, evil.URL+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	defer home.Close()
	c, err := can.NewHTTPClient(home.URL, can.HTTPOptions{Token: "tok", Retries: -1})
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	_, err = c.List(t.Context(), can.ListOptions{})
	require.ErrorIs(t, err, can.ErrInvalid)
	_, err = ingest(t.Context(), c, []byte("x"))
	require.ErrorIs(t, err, can.ErrInvalid)
	_, err = c.Open(t.Context(), "abc", 0, -1)
	require.ErrorIs(t, err, can.ErrInvalid)
	require.Error(t, c.Trash(t.Context(), "abc"))
	require.Equal(t, "Bearer tok", got.Load())
	require.Zero(t, hits.Load())
}
