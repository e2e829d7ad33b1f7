package cantest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/stretchr/testify/require"
)

func put(ctx context.Context, c can.Client, b []byte) (can.Asset, error) {
	return c.Ingest(ctx, can.Ingest{
		Size:    int64(len(b)),
		Content: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil },
	})
}

func TestManyAssets(t *testing.T) {
	s := cantest.New(cantest.Options{Rule: cantest.HashTimestamp})
	const n = 20_000
	for i := range n {
		s.AddAt([]byte(strconv.Itoa(i)), can.Metadata{}, int64(1+i%1000))
	}
	require.Equal(t, n, s.Len())
	for offset := 0; offset < n; {
		p, err := s.List(t.Context(), can.ListOptions{Offset: offset, Limit: 500})
		require.NoError(t, err)
		require.Equal(t, n, p.Total)
		require.NotEmpty(t, p.Assets)
		offset += len(p.Assets)
	}
}

func TestLedger(t *testing.T) {
	s := cantest.New(cantest.Options{Rule: cantest.HashTimestamp, Seed: 1})
	lost := s.Inject(cantest.Fault{Route: cantest.RouteIngest, Nth: 2, Times: 1, Action: cantest.Action{Kind: cantest.ActAnswerLost}})
	forgot := s.Inject(cantest.Fault{Route: cantest.RouteIngest, Nth: 3, Times: 1, Action: cantest.Action{Kind: cantest.ActForget}})
	b := []byte("content")
	_, err := put(t.Context(), s, b)
	require.NoError(t, err)
	_, err = put(t.Context(), s, []byte("other"))
	require.ErrorIs(t, err, can.ErrAmbiguous)
	_, err = put(t.Context(), s, b)
	require.NoError(t, err)
	require.Equal(t, 1, lost.Fired())
	require.Equal(t, 1, forgot.Fired())
	d := can.Digest(sha256.Sum256(b))
	require.Equal(t, 2, s.Posts()[d])
	require.Equal(t, 1, s.Digests()[d])
	require.Equal(t, 3, s.Writes())
	got := s.Ledger()
	require.Len(t, got, 3)
	require.Equal(t, []bool{true, false, false}, []bool{got[0].Answered, got[1].Answered, got[2].Answered})
	require.Empty(t, got[2].Handle)
	s.Add(b, can.Metadata{})
	s.AddAt(b, can.Metadata{}, 12345)
	require.GreaterOrEqual(t, s.Duplicates()[d], 2)
}

func TestGeneratedContent(t *testing.T) {
	const size = 1 << 20
	whole, err := io.ReadAll(cantest.Generated(5, size))
	require.NoError(t, err)
	require.Len(t, whole, size)
	s := cantest.New(cantest.Options{DiscardContent: true, Reopen: func(_ can.Digest, size int64) io.ReadSeeker { return cantest.Generated(5, size) }})
	a := s.AddFunc(func() io.ReadSeeker { return cantest.Generated(5, size) }, can.Metadata{}, 0)
	sum := sha256.Sum256(whole)
	require.Equal(t, can.Digest(sum).String(), a.Handle)
	for _, off := range []int64{0, 1, 7, 8, 9, 12345, size - 1, size} {
		rc, err := s.Open(t.Context(), a.Handle, off, -1)
		require.NoError(t, err)
		b, err := io.ReadAll(rc)
		require.NoError(t, err)
		require.True(t, bytes.Equal(whole[off:], b))
	}
	s.Delete(a.Handle)
	b, err := put(t.Context(), s, whole)
	require.NoError(t, err)
	require.Equal(t, a.Handle, b.Handle)
	back, ok := s.Content(b.Handle)
	require.True(t, ok)
	require.True(t, bytes.Equal(whole, back))
}

func TestEcho(t *testing.T) {
	s := cantest.New(cantest.Options{Echo: []func(*can.Metadata){
		cantest.DropDescription, cantest.SortTags, cantest.TrimNames, cantest.CapTags(2),
	}})
	m := can.Metadata{Description: "d", Tags: []string{"c", "a", "b", "a"}, Filename: " x/y ", MIMEType: "text/plain"}
	a := s.Add([]byte("x"), m)
	require.Equal(t, can.Metadata{Tags: []string{"a", "b"}, Filename: "y", MIMEType: "text/plain"}, a.Metadata)
	require.Equal(t, []string{"c", "a", "b", "a"}, m.Tags, "the caller's tags were changed")
}

func TestTimestampIsHonouredOrNot(t *testing.T) {
	for _, lacks := range []cantest.Features{0, cantest.FeatureTimestamp} {
		s := cantest.New(cantest.Options{Lacks: lacks, Now: func() time.Time { return time.UnixMilli(77) }})
		a, err := s.Ingest(t.Context(), can.Ingest{Timestamp: 5, Content: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("")), nil }})
		require.NoError(t, err)
		require.Equal(t, map[cantest.Features]int64{0: 5, cantest.FeatureTimestamp: 77}[lacks], a.Timestamp)
	}
}

// A fault must look the same to a caller in process and over HTTP.
func TestFaultsInProcessMatchHTTP(t *testing.T) {
	sentinels := []error{
		can.ErrNotFound, can.ErrBadRequest, can.ErrDenied, can.ErrTooLarge, can.ErrConflict,
		can.ErrCorrupted, can.ErrUnavailable, can.ErrBusy, can.ErrAmbiguous, can.ErrNotStored,
	}
	matched := func(err error) (out []string) {
		for _, s := range sentinels {
			if errors.Is(err, s) {
				out = append(out, s.Error())
			}
		}
		return out
	}
	var acts []cantest.Action
	for _, status := range []int{400, 401, 403, 408, 409, 413, 429, 500, 502, 503, 504} {
		acts = append(acts, cantest.Action{Status: status})
	}
	for _, kind := range []cantest.ActionKind{cantest.ActReset, cantest.ActAnswerLost, cantest.ActStatusAfter, cantest.ActErrorEnvelope, cantest.ActCut} {
		acts = append(acts, cantest.Action{Kind: kind})
	}
	for _, act := range acts {
		var got [2][][]string
		for i := range got {
			synctest.Test(t, func(t *testing.T) {
				s := cantest.New(cantest.Options{})
				var c can.Client = s
				if i == 1 {
					c = overHTTP(t, "http://can.test", s.RoundTripper())
				}
				a := s.Add(bytes.Repeat([]byte("x"), 1000), can.Metadata{})
				f := s.Inject(cantest.Fault{Action: act})
				_, err := c.List(t.Context(), can.ListOptions{})
				got[i] = append(got[i], matched(err))
				_, err = put(t.Context(), c, []byte("new"))
				got[i] = append(got[i], matched(err))
				rc, err := c.Open(t.Context(), a.Handle, 0, -1)
				if err == nil {
					_, err = io.ReadAll(rc)
					require.NoError(t, rc.Close())
				}
				if act.Kind != cantest.ActErrorEnvelope { // over HTTP it is content like any other
					require.Error(t, err)
				}
				require.NotZero(t, f.Fired())
				require.NoError(t, s.Close())
			})
		}
		require.Equal(t, got[1], got[0], "%+v", act)
	}
}

func TestDown(t *testing.T) {
	s := cantest.New(cantest.Options{})
	for _, c := range []can.Client{s, overHTTP(t, "http://can.test", s.RoundTripper())} {
		s.SetDown(true)
		_, err := put(t.Context(), c, []byte("x"))
		require.ErrorIs(t, err, can.ErrUnavailable)
		require.Equal(t, can.OutcomeNotStored, can.OutcomeOf(err))
		s.SetDown(false)
		_, err = put(t.Context(), c, []byte("x"))
		require.NoError(t, err)
	}
}
