package can_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
)

func TestMissingCallsAreRememberedAndProbedAgain(t *testing.T) {
	bubble(t, cantest.Options{Lacks: cantest.AllFeatures}, can.HTTPOptions{Reprobe: time.Hour}, func(t *testing.T, s *cantest.Service, c *can.HTTPClient) {
		a := s.Add([]byte("x"), can.Metadata{})
		ctx := t.Context()
		for range 3 {
			_, err := c.Meta(ctx, a.Handle)
			require.ErrorIs(t, err, can.ErrUnsupported)
			_, err = c.UpdateMeta(ctx, a.Handle, can.Update{})
			require.ErrorIs(t, err, can.ErrUnsupported)
			require.ErrorIs(t, c.Trash(ctx, a.Handle), can.ErrUnsupported)
			require.ErrorIs(t, c.Watch(ctx, func(can.Event) {}), can.ErrUnsupported)
			_, err = c.Changes(ctx, "", 0)
			require.ErrorIs(t, err, can.ErrUnsupported)
		}
		probes := s.Calls()[cantest.RouteAsset]
		require.Equal(t, 1, probes, "only a missing meta route needs a look at the asset; PATCH and DELETE get 405")
		<-time.After(time.Hour + time.Second)
		_, err := c.Meta(ctx, a.Handle)
		require.ErrorIs(t, err, can.ErrUnsupported)
		require.Equal(t, probes+1, s.Calls()[cantest.RouteAsset], "asked again after a while")
	})
}

func TestUnknownAssetIsNotAMissingCall(t *testing.T) {
	bubble(t, cantest.Options{}, can.HTTPOptions{}, func(t *testing.T, s *cantest.Service, c *can.HTTPClient) {
		_, err := c.Meta(t.Context(), strings.Repeat("0", 64))
		require.ErrorIs(t, err, can.ErrNotFound)
		a := s.Add([]byte("x"), can.Metadata{})
		got, err := c.Meta(t.Context(), a.Handle)
		require.NoError(t, err)
		require.Equal(t, a, got)
		// From now on a 404 needs no second look.
		reads := s.Calls()[cantest.RouteAsset]
		s.Delete(a.Handle)
		_, err = c.Meta(t.Context(), a.Handle)
		require.ErrorIs(t, err, can.ErrNotFound)
		require.Equal(t, reads, s.Calls()[cantest.RouteAsset])
	})
}

// answer is a transport with one fixed answer.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		_, _ = io.Copy(io.Discard, req.Body)
		_ = req.Body.Close()
	}
	rec := httptest.NewRecorder()
	for k, v := range a.header {
		rec.Header()[k] = v
	}
	rec.WriteHeader(a.status)
	_, _ = rec.WriteString(a.body)
	resp := rec.Result()
	resp.Request = req
	return resp, nil
}

func TestLeniency(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	for name, data := range map[string]string{
		"items":          `{"items":[{"hash":"H","timestamp":1700000000000,"size":3,"tags":["a","b"],"human_filename":"f","human_path":"p"}],"total":1}`,
		"assets":         `{"assets":[{"hash":"H","timestamp":1700000000000.0,"size":"3","tags":"a, b","human_file_name":"f","human_readable_path":"p"}],"total":"1"}`,
		"bare array":     `[{"hash":"H","timestamp":"1700000000000","size":3e0,"tags":"a,b,","human_filename":"f","human_path":"p","new_field":{"x":[1]}}]`,
		"null and empty": `{"items":[{"hash":"H","timestamp":1700000000000,"size":3,"tags":["a","","b"],"human_filename":null,"human_file_name":"f","human_path":"p","user":null,"description":null,"is_trashed":null}],"next_cursor":null}`,
	} {
		t.Run(name, func(t *testing.T) {
			body := `{"status":"success","data":` + strings.ReplaceAll(data, `"H"`, `"`+hash+`"`) + `}`
			c := client(t, answer{status: 200, body: body}, can.HTTPOptions{})
			p, err := c.List(t.Context(), can.ListOptions{})
			require.NoError(t, err)
			require.Equal(t, []can.Asset{{
				Handle: hash, Timestamp: 1700000000000, Size: 3,
				Metadata: can.Metadata{Tags: []string{"a", "b"}, Filename: "f", Path: "p"},
			}}, p.Assets)
		})
	}
	for name, body := range map[string]string{
		"negative size":   `[{"hash":"h","size":-1}]`,
		"absurd size":     `[{"hash":"h","size":1e300}]`,
		"fraction":        `[{"hash":"h","size":1.5}]`,
		"future":          `[{"hash":"h","timestamp":999999999999999999}]`,
		"no hash":         `[{"size":1}]`,
		"path for a hash": `[{"hash":"../../etc/passwd"}]`,
		"null asset":      `[null]`,
		"negative total":  `{"items":[],"total":-4}`,
		"text":            `"list"`,
	} {
		t.Run(name, func(t *testing.T) {
			c := client(t, answer{status: 200, body: `{"status":"success","data":` + body + `}`}, can.HTTPOptions{})
			_, err := c.List(t.Context(), can.ListOptions{})
			require.ErrorIs(t, err, can.ErrInvalid)
		})
	}
	for name, body := range map[string]string{"null": `null`, "nothing": `{}`, "null items": `{"items":null}`} {
		t.Run(name, func(t *testing.T) {
			c := client(t, answer{status: 200, body: `{"status":"success","data":` + body + `}`}, can.HTTPOptions{})
			p, err := c.List(t.Context(), can.ListOptions{})
			require.NoError(t, err)
			require.Equal(t, can.Page{Total: -1}, p)
		})
	}
	t.Run("size unknown", func(t *testing.T) {
		c := client(t, answer{status: 201, body: `{"status":"success","data":{"hash":"h"}}`}, can.HTTPOptions{})
		a, err := ingest(t.Context(), c, []byte("abc"))
		require.NoError(t, err)
		require.Equal(t, can.Asset{Handle: "h", Size: -1}, a)
	})
	t.Run("another size", func(t *testing.T) {
		c := client(t, answer{status: 200, body: `{"status":"success","data":{"hash":"h","size":2}}`}, can.HTTPOptions{})
		_, err := ingest(t.Context(), c, []byte("abc"))
		require.ErrorIs(t, err, can.ErrAmbiguous)
		require.ErrorIs(t, err, can.ErrInvalid)
	})
}

func TestServiceTextIsTamed(t *testing.T) {
	text, err := json.Marshal("bad\x1b[31m\n" + strings.Repeat("x", 10_000))
	require.NoError(t, err)
	c := client(t, answer{status: 400, body: `{"status":"error","error":` + string(text) + `}`}, can.HTTPOptions{})
	_, err = c.List(t.Context(), can.ListOptions{})
	require.ErrorIs(t, err, can.ErrBadRequest)
	require.Less(t, len(err.Error()), 300)
	require.NotContains(t, err.Error(), "\x1b")
	require.NotContains(t, err.Error(), "\n")
}

func TestNewHTTPClient(t *testing.T) {
	for _, bad := range []string{"", "x", "ftp://h", "http://", "http://u:p@h/", "http://h/?q", "http://h/#f", "http://h:port", "http://:80"} {
		_, err := can.NewHTTPClient(bad, can.HTTPOptions{})
		require.Error(t, err, bad)
		require.NotContains(t, err.Error(), "u:p")
	}
	_, err := can.NewHTTPClient(base, can.HTTPOptions{Token: "a\r\nb"})
	require.Error(t, err)
	_, err = can.NewHTTPClient(base, can.HTTPOptions{CallTimeout: -1})
	require.Error(t, err)
}

func TestClose(t *testing.T) {
	bubble(t, cantest.Options{}, can.HTTPOptions{}, func(t *testing.T, s *cantest.Service, c *can.HTTPClient) {
		a := s.Add(make([]byte, 100_000), can.Metadata{})
		f := s.Inject(cantest.Fault{Route: cantest.RouteList, Action: cantest.Action{Kind: cantest.ActHangBefore}})
		rc, err := c.Open(t.Context(), a.Handle, 0, -1)
		require.NoError(t, err)
		ended := make(chan error, 2)
		go func() {
			_, err := c.List(context.Background(), can.ListOptions{})
			ended <- err
		}()
		placed := make(chan struct{})
		go func() { ended <- c.Watch(context.Background(), func(can.Event) { close(placed) }) }()
		<-placed
		synctest.Wait()
		require.NoError(t, c.Close())
		for range 2 {
			require.ErrorIs(t, <-ended, can.ErrClosed)
		}
		require.NotZero(t, f.Fired())
		_, err = io.Copy(io.Discard, rc)
		require.ErrorIs(t, err, can.ErrClosed)
		require.NoError(t, rc.Close())
		require.NoError(t, c.Close())
		_, err = c.List(t.Context(), can.ListOptions{})
		require.ErrorIs(t, err, can.ErrClosed)
		_, err = ingest(t.Context(), c, nil)
		require.ErrorIs(t, err, can.ErrClosed)
		require.Equal(t, can.OutcomeNotStored, can.OutcomeOf(err))
	})
}

// C-09 at the level of the client.
func TestWatchFaults(t *testing.T) {
	for name, tc := range map[string]struct {
		kind  cantest.ActionKind
		calls int // of fn for two assets, after the first
		err   error
	}{
		"lost": {cantest.ActEventLost, 1, nil}, "twice": {cantest.ActEventTwice, 3, nil},
		"unknown": {cantest.ActEventUnknown, 1, nil}, "endless line": {cantest.ActEventEndless, 0, can.ErrInvalid},
		"late": {cantest.ActEventLate, 2, nil},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, cantest.Options{}, can.HTTPOptions{}, func(t *testing.T, s *cantest.Service, c *can.HTTPClient) {
				f := s.Inject(cantest.Fault{Route: cantest.RouteEvent, Times: 1, Action: cantest.Action{Kind: tc.kind}})
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				var events []can.Event
				err := c.Watch(ctx, func(ev can.Event) {
					if events = append(events, ev); len(events) == 1 {
						s.Add([]byte("one"), can.Metadata{})
						s.Add([]byte("two"), can.Metadata{})
					}
				})
				require.Error(t, err)
				require.Equal(t, 1, f.Fired())
				require.Equal(t, can.Event{}, events[0])
				require.Len(t, events[1:], tc.calls)
				if name == "late" {
					b, ok := s.Content(events[2].Asset.Handle)
					require.True(t, ok)
					require.Equal(t, "one", string(b), "behind the other")
				}
				if tc.err != nil {
					require.ErrorIs(t, err, tc.err)
				} else {
					require.ErrorIs(t, err, context.DeadlineExceeded, "keep-alives hold the watch for ten minutes")
				}
			})
		})
	}
	t.Run("silent", func(t *testing.T) {
		bubble(t, cantest.Options{KeepAlive: time.Hour}, can.HTTPOptions{WatchIdle: time.Minute}, func(t *testing.T, s *cantest.Service, c *can.HTTPClient) {
			start := time.Now()
			err := c.Watch(t.Context(), func(can.Event) {})
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.Equal(t, time.Minute, time.Since(start))
		})
	})
	t.Run("broken off", func(t *testing.T) {
		bubble(t, cantest.Options{}, can.HTTPOptions{}, func(t *testing.T, s *cantest.Service, c *can.HTTPClient) {
			err := c.Watch(t.Context(), func(can.Event) { s.DropWatches() })
			require.ErrorIs(t, err, can.ErrUnavailable)
		})
	})
	t.Run("not a stream", func(t *testing.T) {
		c := client(t, answer{status: 200, body: "<html>"}, can.HTTPOptions{})
		require.ErrorIs(t, c.Watch(t.Context(), func(can.Event) {}), can.ErrInvalid)
	})
}
