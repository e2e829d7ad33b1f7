package service

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

type testEvent struct {
	id, kind string
	asset    asset
}

// listen reads events until ctx ends.
func (ts *testService) listen(ctx context.Context) (next func() (testEvent, bool)) {
	ts.t.Helper()
	req, err := http.NewRequestWithContext(ctx, "GET", ts.srv.URL+Prefix+"/events", nil)
	require.NoError(ts.t, err)
	resp, err := ts.http.Do(req)
	require.NoError(ts.t, err)
	ts.t.Cleanup(func() { _ = resp.Body.Close() })
	require.Equal(ts.t, "text/event-stream", resp.Header.Get("Content-Type"))
	sc := bufio.NewScanner(resp.Body)
	require.True(ts.t, sc.Scan())
	require.Equal(ts.t, ": listening", sc.Text())
	return func() (e testEvent, ok bool) {
		for sc.Scan() {
			key, value, _ := strings.Cut(sc.Text(), ": ")
			switch key {
			case "id":
				e.id = value
			case "event":
				e.kind = value
			case "data":
				require.NoError(ts.t, json.Unmarshal([]byte(value), &e.asset))
			case "":
				if e.kind != "" {
					return e, true
				}
			}
		}
		return e, false
	}
}

func TestEvents(t *testing.T) {
	ts := start(t, Config{})
	next := ts.listen(t.Context())
	a := ts.put("x", "description", "two\nlines")
	ts.put("x") // changes nothing
	edited := ts.do("PATCH", "/asset/"+a.Hash.String(), "application/json", strings.NewReader(`{"tags":"t"}`)).asset(t)
	trashed := ts.do("DELETE", "/asset/"+a.Hash.String(), "", nil).asset(t)
	restored := ts.put("x")
	last := ""
	for _, want := range []struct {
		kind string
		a    asset
	}{{eventNew, a}, {eventChanged, edited}, {eventTrashed, trashed}, {eventNew, restored}} {
		e, ok := next()
		require.True(t, ok)
		require.Equal(t, want.kind, e.kind)
		require.Equal(t, want.a, e.asset)
		last = e.id
	}
	require.Empty(t, ts.list("/list?changed_since="+last).Items) // an event's id is a cursor
	require.NoError(t, ts.svc.Close())
	_, ok := next()
	require.False(t, ok)
}

func TestSlowListenersAreDropped(t *testing.T) {
	h := newHub()
	slow, ok := h.listen()
	require.True(t, ok)
	quick, ok := h.listen()
	require.True(t, ok)
	for range listenerQueue + 1 {
		h.publish(eventNew, cursor{}, &asset{})
		<-quick
	}
	got := 0
	for range slow {
		got++
	}
	require.Equal(t, listenerQueue, got)
	h.publish(eventNew, cursor{}, &asset{})
	<-quick
	for range maxListeners - 1 {
		_, ok := h.listen()
		require.True(t, ok)
	}
	_, ok = h.listen()
	require.False(t, ok)
	h.leave(quick)
	h.leave(slow)
	_, ok = h.listen()
	require.True(t, ok)
	h.close()
	_, ok = h.listen()
	require.False(t, ok)
}
