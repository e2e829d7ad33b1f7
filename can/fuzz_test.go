package can

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func FuzzDecodePage(f *testing.F) {
	for _, s := range []string{
		``, `null`, `[]`, `{}`, `[{"hash":"ab","size":1}]`, `{"items":[{"hash":"ab","tags":"x,y"}],"total":1,"next_cursor":"c1"}`,
		`{"assets":[{"hash":"ab","tags":["x",null,3],"is_trashed":1}],"total":"7"}`, `[null]`, `{"items":[{"hash":"a/b"}]}`, `[{"hash":"h","size":-1}]`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodePage(b)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		require.GreaterOrEqual(t, p.total, -1)
		for _, a := range p.assets {
			requireSane(t, a)
		}
	})
}

func requireSane(t *testing.T, a Asset) {
	require.NoError(t, checkHandle(a.Handle))
	require.GreaterOrEqual(t, a.Size, int64(-1))
	require.LessOrEqual(t, a.Size, int64(maxSize))
	require.GreaterOrEqual(t, a.Timestamp, int64(0))
	require.LessOrEqual(t, a.Timestamp, int64(maxTimestamp))
}

func FuzzDecodeAsset(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"hash":"ab"}`, `{"hash":"ab","timestamp":"1","size":1.0,"tags":"a, b"}`, `{"hash":"ab","human_file_name":"f","human_readable_path":"p"}`,
		`{"hash":7}`, `{"hash":"ab","is_corrupted":true,"user":null}`, `{"hash":"ab"} x`, `{"hash":"é"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := decodeAsset(b)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		requireSane(t, a)
		// What was understood, written plainly, is understood the same.
		plain, err := json.Marshal(map[string]any{
			"hash": a.Handle, "timestamp": a.Timestamp, "mime_type": a.MIMEType, "application": a.Application,
			"user": a.User, "description": a.Description, "tags": a.Tags, "human_filename": a.Filename,
			"human_path": a.Path, "is_trashed": a.Trashed, "is_corrupted": a.Corrupted,
		})
		require.NoError(t, err)
		size := a.Size
		again, err := decodeAsset(plain)
		require.NoError(t, err)
		again.Size = size
		require.Equal(t, a, again)
	})
}

func FuzzDecodeEnvelope(f *testing.F) {
	for _, s := range []string{`{"status":"success","data":[1]}`, `{"status":"error","error":"x"}`, `{"status":"error","error":{"a":1}}`, `[1]`, `<html>`, `{"status":"success","data":{"it`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		data, err := decodeEnvelope(b)
		if err == nil && len(data) > 0 && bytes.TrimSpace(b)[0] == '{' {
			require.True(t, json.Valid(data))
		}
	})
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-0/1", "bytes 5-9/*", "bytes */7", "bytes */*", "bytes 9-5/10", "bytes 0-10/5", "Bytes  1-2/3", "items 0-1/2", "bytes 0-99999999999999999999/1", "bytes -1-2/3", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseContentRange(s)
		if err != nil {
			return
		}
		if r.first >= 0 {
			require.LessOrEqual(t, r.first, r.last)
			require.True(t, r.total < 0 || r.last < r.total)
		}
		again, err := parseContentRange(r.String())
		require.NoError(t, err)
		require.Equal(t, r, again)
	})
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "0", "2", "86400", "-1", "1.5", "soon", "Fri, 01 Jan 2100 00:00:00 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", "9223372036854775807", "9999999999999999999999"} {
		f.Add(s)
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		d := parseRetryAfter(s, now)
		require.GreaterOrEqual(t, d, time.Duration(0))
		require.LessOrEqual(t, d, maxWait)
	})
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"": 0, "0": 0, "2": 2 * time.Second, "30": maxWait, "31": maxWait, "99999999999999999999": maxWait, "-2": 0, "+2": 0, "x": 0,
		"Thu, 01 Jan 2026 00:00:05 GMT": 5 * time.Second, "Fri, 01 Jan 2100 00:00:00 GMT": maxWait, "Thu, 01 Jan 1970 00:00:00 GMT": 0,
	} {
		require.Equal(t, want, parseRetryAfter(s, now), s)
	}
}

func FuzzSSE(f *testing.F) {
	for _, s := range []string{
		"event: new_asset\ndata: {\"hash\":\"ab\"}\n\n", "data\n\n", ": alive\n\n", "\ufeffdata: x\r\rdata: y\r\n\r\n",
		"event: asset_trashed\n\n", "data: a\ndata: b\n\n", "id: 1\nretry: 5\n\n", "data: " + strings.Repeat("x", 300) + "\n\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 256
		r := newSSEReader(bytes.NewReader(b), limit, func() {})
		for n := 0; ; n++ {
			ev, err := r.next()
			if err != nil {
				return
			}
			require.LessOrEqual(t, len(ev.data), limit)
			require.LessOrEqual(t, len(ev.name), limit)
			require.LessOrEqual(t, n, len(b))
			if out, known := ev.event(); known && out.Asset.Handle != "" {
				requireSane(t, out.Asset)
			}
		}
	})
}

func TestSSE(t *testing.T) {
	r := newSSEReader(strings.NewReader("\ufeffevent: new_asset\rdata: a\r\ndata:b\n\n: comment\n\nid: 9\n\nevent: x\ndata:  y\n\ndata: cut"), 64, func() {})
	var got []sseEvent
	for {
		ev, err := r.next()
		if err != nil {
			break
		}
		got = append(got, ev)
	}
	require.Equal(t, []sseEvent{{"new_asset", "a\nb"}, {"x", " y"}}, got)
}

func TestOutcomeOf(t *testing.T) {
	require.Equal(t, OutcomeStored, OutcomeOf(nil))
	for _, err := range []error{ErrUnavailable, ErrConflict, ErrAmbiguous, ErrInvalid, &Error{Op: "ingest", Err: ErrAmbiguous}} {
		require.Equal(t, OutcomeUnknown, OutcomeOf(err))
	}
	require.Equal(t, OutcomeNotStored, OutcomeOf(&Error{Err: ErrBusy}))
}
