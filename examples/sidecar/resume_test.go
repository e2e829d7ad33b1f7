package main

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// told is an event as the stream sends it.
type told struct {
	Seq     uint64
	Kind    string
	Library string
	Asset   string
	Size    int64
}

// events reads the events behind one until ok says that it was the last.
func (s *sidecar) events(t *testing.T, after uint64, ok func(told) bool) []told {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://127.0.0.1:"+s.port+"/events", nil)
	require.NoError(t, err)
	req.Header.Set("Last-Event-ID", strconv.FormatUint(after, 10))
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	var out []told
	id := ""
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if v, is := strings.CutPrefix(lines.Text(), "id: "); is {
			id = v
		}
		data, is := strings.CutPrefix(lines.Text(), "data: ")
		if !is {
			continue
		}
		var e told
		require.NoError(t, json.Unmarshal([]byte(data), &e))
		require.Equal(t, strconv.FormatUint(e.Seq, 10), id)
		if out = append(out, e); ok(e) {
			return out
		}
	}
	require.FailNow(t, "the stream ended early")
	return nil
}

// TestEventsOverRestarts goes on behind the last event that a reader saw, after a
// sidecar was stopped and after it was killed.
func TestEventsOverRestarts(t *testing.T) {
	ca := newService(t, usual)
	ca.start()
	a := newSidecar(t, ca.proxy)
	a.start()
	var lib struct{ ID string }
	require.NoError(t, a.call("POST", "/libraries", `{"name":"x","filter":{}}`, &lib))
	announced := func(content string) func(told) bool {
		return func(e told) bool {
			return e.Kind == "announced" && e.Library == lib.ID && e.Asset == sum([]byte(content))
		}
	}
	last := func(es []told) uint64 { return es[len(es)-1].Seq }
	ca.ingest("one", nil)
	first := a.events(t, 0, announced("one"))
	ca.ingest("two", nil) // nobody reads this before the end
	until(t, "it is announced", func() bool { return a.library(lib.ID).Assets == 2 })
	require.Zero(t, a.terminate(t))
	ca.ingest("three", nil)
	a.start()
	second := a.events(t, last(first), announced("three"))
	for i, e := range second {
		require.Equal(t, last(first)+uint64(i)+1, e.Seq, "nothing is left out and nothing comes twice")
		require.NotEqual(t, "missed", e.Kind)
		require.False(t, announced("one")(e))
	}
	require.Condition(t, func() bool {
		for _, e := range second {
			if announced("two")(e) {
				return true
			}
		}
		return false
	})
	// What comes again comes the same.
	require.Equal(t, second, a.events(t, last(first), announced("three")))

	// A crash may lose the last events, and then says so. Numbers never come again.
	a.kill()
	a.start()
	ca.ingest("four", nil)
	third := a.events(t, last(second), announced("four"))
	seq := last(second)
	for _, e := range third {
		if e.Kind == "missed" {
			require.EqualValues(t, e.Seq-seq, e.Size)
		} else {
			require.Equal(t, seq+1, e.Seq)
		}
		seq = e.Seq
	}
	require.Zero(t, a.terminate(t))
}
