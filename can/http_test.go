package can_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const base = "http://can.test:3210"

func client(t *testing.T, rt http.RoundTripper, o can.HTTPOptions) *can.HTTPClient {
	t.Helper()
	o.Transport = rt
	c, err := can.NewHTTPClient(base, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// bubble runs f in virtual time with a service and a client of it.
func bubble(t *testing.T, so cantest.Options, o can.HTTPOptions, f func(t *testing.T, s *cantest.Service, c *can.HTTPClient)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := cantest.New(so)
		c := client(t, s.RoundTripper(), o)
		f(t, s, c)
		require.NoError(t, s.Close())
	})
}

func content(b []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

func ingest(ctx context.Context, c can.Client, b []byte) (can.Asset, error) {
	return c.Ingest(ctx, can.Ingest{Content: content(b), Size: int64(len(b)), Metadata: can.Metadata{Filename: "a.bin"}})
}

func readAll(ctx context.Context, c can.Client, handle string, off, n int64) ([]byte, error) {
	rc, err := c.Open(ctx, handle, off, n)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(rc)
	return b, errors.Join(err, rc.Close())
}

func TestIngestOutcome(t *testing.T) {
	type want struct {
		outcome can.Outcome
		is      error
		stored  int
	}
	cases := map[string]struct {
		act  cantest.Action
		want want
	}{
		"400":                {cantest.Action{Status: 400}, want{can.OutcomeNotStored, can.ErrBadRequest, 0}},
		"401":                {cantest.Action{Status: 401}, want{can.OutcomeNotStored, can.ErrDenied, 0}},
		"403 early":          {cantest.Action{Status: 403, Early: true}, want{can.OutcomeNotStored, can.ErrDenied, 0}},
		"404":                {cantest.Action{Status: 404}, want{can.OutcomeNotStored, can.ErrUnsupported, 0}},
		"408":                {cantest.Action{Status: 408}, want{can.OutcomeUnknown, can.ErrAmbiguous, 0}},
		"409":                {cantest.Action{Status: 409}, want{can.OutcomeUnknown, can.ErrConflict, 0}},
		"413":                {cantest.Action{Status: 413}, want{can.OutcomeNotStored, can.ErrTooLarge, 0}},
		"429":                {cantest.Action{Status: 429, RetryAfter: "2"}, want{can.OutcomeNotStored, can.ErrBusy, 0}},
		"503":                {cantest.Action{Status: 503}, want{can.OutcomeNotStored, can.ErrBusy, 0}},
		"503 of a proxy":     {cantest.Action{Kind: cantest.ActHTML, Status: 503}, want{can.OutcomeUnknown, can.ErrAmbiguous, 0}},
		"500":                {cantest.Action{Status: 500}, want{can.OutcomeUnknown, can.ErrUnavailable, 0}},
		"500 early":          {cantest.Action{Status: 500, Early: true}, want{can.OutcomeNotStored, can.ErrUnavailable, 0}},
		"502":                {cantest.Action{Kind: cantest.ActHTML, Status: 502}, want{can.OutcomeUnknown, can.ErrAmbiguous, 0}},
		"504":                {cantest.Action{Status: 504}, want{can.OutcomeUnknown, can.ErrAmbiguous, 0}},
		"500 after":          {cantest.Action{Kind: cantest.ActStatusAfter}, want{can.OutcomeUnknown, can.ErrAmbiguous, 1}},
		"reset before":       {cantest.Action{Kind: cantest.ActReset}, want{can.OutcomeUnknown, can.ErrUnavailable, 0}},
		"reset early":        {cantest.Action{Kind: cantest.ActReset, Early: true}, want{can.OutcomeNotStored, can.ErrUnavailable, 0}},
		"answer lost":        {cantest.Action{Kind: cantest.ActAnswerLost}, want{can.OutcomeUnknown, can.ErrAmbiguous, 1}},
		"answer cut":         {cantest.Action{Kind: cantest.ActCut}, want{can.OutcomeUnknown, can.ErrAmbiguous, 1}},
		"hang before":        {cantest.Action{Kind: cantest.ActHangBefore}, want{can.OutcomeUnknown, os.ErrDeadlineExceeded, 0}},
		"hang early":         {cantest.Action{Kind: cantest.ActHangBefore, Early: true}, want{can.OutcomeNotStored, os.ErrDeadlineExceeded, 0}},
		"hang after":         {cantest.Action{Kind: cantest.ActHangAfter}, want{can.OutcomeUnknown, os.ErrDeadlineExceeded, 1}},
		"hang in the answer": {cantest.Action{Kind: cantest.ActHangMid}, want{can.OutcomeUnknown, os.ErrDeadlineExceeded, 1}},
		"HTML":               {cantest.Action{Kind: cantest.ActHTML}, want{can.OutcomeUnknown, can.ErrInvalid, 0}},
		"bad JSON":           {cantest.Action{Kind: cantest.ActBadJSON}, want{can.OutcomeUnknown, can.ErrInvalid, 0}},
		"error envelope":     {cantest.Action{Kind: cantest.ActErrorEnvelope}, want{can.OutcomeUnknown, can.ErrAmbiguous, 0}},
		"redirect":           {cantest.Action{Kind: cantest.ActRedirect, Location: base + "/elsewhere"}, want{can.OutcomeUnknown, can.ErrInvalid, 0}},
		"endless answer":     {cantest.Action{Kind: cantest.ActEndless}, want{can.OutcomeUnknown, can.ErrInvalid, 0}},
		"list for an answer": {cantest.Action{Kind: cantest.ActEmptyList}, want{can.OutcomeUnknown, can.ErrInvalid, 0}},
		"lied to":            {cantest.Action{Kind: cantest.ActForget}, want{can.OutcomeStored, nil, 0}},
		"wrong hash":         {cantest.Action{Kind: cantest.ActWrongHash}, want{can.OutcomeStored, nil, 1}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			bubble(t, cantest.Options{Rule: cantest.HashTimestamp}, can.HTTPOptions{}, func(t *testing.T, s *cantest.Service, c *can.HTTPClient) {
				f := s.Inject(cantest.Fault{Route: cantest.RouteIngest, Action: tc.act})
				start := time.Now()
				_, err := ingest(t.Context(), c, bytes.Repeat([]byte("z"), 100_000))
				require.Equal(t, tc.want.outcome, can.OutcomeOf(err), "%v", err)
				if tc.want.is != nil {
					require.ErrorIs(t, err, tc.want.is)
				}
				require.False(t, errors.Is(err, can.ErrAmbiguous) && errors.Is(err, can.ErrNotStored))
				require.Equal(t, 1, f.Fired(), "an ingest is sent once")
				require.Equal(t, tc.want.stored, s.Len())
				require.LessOrEqual(t, time.Since(start), 2*time.Minute+time.Second)
			})
		})
	}
	t.Run("connection refused", func(t *testing.T) {
		bubble(t, cantest.Options{}, can.HTTPOptions{}, func(t *testing.T, s *cantest.Service, c *can.HTTPClient) {
			s.SetDown(true)
			_, err := ingest(t.Context(), c, []byte("x"))
			require.ErrorIs(t, err, can.ErrUnavailable)
			require.Equal(t, can.OutcomeNotStored, can.OutcomeOf(err))
		})
	})
	t.Run("cancelled while waiting for the answer", func(t *testing.T) {
		bubble(t, cantest.Options{}, can.HTTPOptions{}, func(t *testing.T, s *cantest.Service, c *can.HTTPClient) {
			s.Inject(cantest.Fault{Route: cantest.RouteIngest, Action: cantest.Action{Kind: cantest.ActHangAfter}})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := ingest(ctx, c, []byte("x"))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorIs(t, err, can.ErrAmbiguous)
		})
	})
}
