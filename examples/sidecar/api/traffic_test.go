package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	tmem "github.com/cansync/cansync/transport/memory"
)

// somePeer is the id of a peer that is nowhere.
const somePeer = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"

func TestLimitsOfTheNode(t *testing.T) {
	r := single(t)
	require.Equal(t, `{"upload":0,"download":0,"peers":[]}`, string(r.call(t, "GET", "/limits", "").data))
	v := get[nodeLimitsView](t, r, "PATCH", "/limits", `{"upload":1048576}`)
	require.Equal(t, limitsView{Upload: 1 << 20}, v.limitsView)
	v = get[nodeLimitsView](t, r, "PATCH", "/limits", `{"download":9000}`)
	require.Equal(t, limitsView{1 << 20, 9000}, v.limitsView, "what is not named stays")
	require.Equal(t, limitsView{0, 9000}, get[nodeLimitsView](t, r, "PATCH", "/limits", `{"upload":0}`).limitsView)
	require.Equal(t, limitsView{0, 9000}, get[nodeLimitsView](t, r, "GET", "/limits", "").limitsView)
	require.Equal(t, limitsView{0, cansync.MinLimit}, get[nodeLimitsView](t, r, "PATCH", "/limits", `{"download":7}`).limitsView, "as it is in force")

	path := "/peers/" + somePeer + "/limits"
	require.Equal(t, peerLimitsView{ID: somePeer}, get[peerLimitsView](t, r, "GET", path, ""))
	get[peerLimitsView](t, r, "PATCH", path, `{"upload":9}`)
	want := peerLimitsView{somePeer, limitsView{cansync.MinLimit, 8193}}
	require.Equal(t, want, get[peerLimitsView](t, r, "PATCH", path, `{"download":8193}`))
	require.Equal(t, want, get[peerLimitsView](t, r, "GET", path, ""))
	require.Equal(t, []peerLimitsView{want}, get[nodeLimitsView](t, r, "GET", "/limits", "").Peers)
	get[peerLimitsView](t, r, "PATCH", path, `{"upload":0,"download":0}`)
	require.Empty(t, get[nodeLimitsView](t, r, "GET", "/limits", "").Peers)
}

func TestChoicesOfALibraryThatIsMadeOrJoined(t *testing.T) {
	network := tmem.NewNetwork(tmem.Options{Directory: true})
	a, b := newRig(t, network, nil), newRig(t, network, nil)
	lib := get[createdView](t, a, "POST", "/libraries", `{"name":"x","mode":"announce-only","publish":"approve","quota":9,
		"view":{"user":"u"},"limits":{"upload":50000}}`)
	check := func(v libraryView, mode, publish, user string, l limitsView, quota int64) {
		t.Helper()
		require.Equal(t, []any{mode, publish, user, l, quota}, []any{v.Mode, v.Publish, v.View.User, v.Limits, v.Quota})
	}
	check(lib.libraryView, "announce-only", "approve", "u", limitsView{Upload: 50000}, 9)
	path := "/libraries/" + lib.ID
	check(get[libraryView](t, a, "GET", path, ""), "announce-only", "approve", "u", limitsView{Upload: 50000}, 9)
	check(get[changedView](t, a, "PATCH", path, `{"limits":{"download":60000},"quota":0}`).libraryView, "announce-only", "approve", "u", limitsView{50000, 60000}, 0)

	ticket := get[inviteView](t, a, "POST", path+"/invite", "").Ticket
	check(get[libraryView](t, b, "POST", "/join", `{"ticket":"`+ticket+`","mode":"records-only","view":{"user":"v"},"publish":"approve",
		"limits":{"download":3},"quota":4}`), "records-only", "approve", "v", limitsView{Download: cansync.MinLimit}, 4)
	b.eventually(t, "b is a member", func() bool { return get[libraryView](t, b, "GET", path, "").Access == "write" })
	check(get[libraryView](t, b, "GET", path, ""), "records-only", "approve", "v", limitsView{Download: cansync.MinLimit}, 4)
	require.Len(t, get[[]libraryView](t, a, "GET", "/libraries", ""), 1)
}

// TestFetchOnDemandAndProgress lets a node that keeps records only fetch one asset
// of three, and shows how far it is.
func TestFetchOnDemandAndProgress(t *testing.T) {
	a, b, path := two(t)
	require.Equal(t, progressView{Library: path[len("/libraries/"):], Transfers: []transferView{}}, get[progressView](t, b, "GET", path+"/progress", ""))
	get[changedView](t, b, "PATCH", path, `{"mode":"records-only"}`)
	var all []string
	for i := range 3 {
		c := strings.Repeat(fmt.Sprint(i), 1000*(i+1))
		a.can.Add([]byte(c), can.Metadata{})
		all = append(all, digestOf([]byte(c)).String())
	}
	a.node.Poll()
	progress := func(r *rig) progressView { return get[progressView](t, r, "GET", path+"/progress", "") }
	b.eventually(t, "b knows of them", func() bool { return progress(b).Assets == 3 })
	p := progress(b)
	require.Equal(t, []int64{0, 6000, 0}, []int64{p.AssetsHere, p.Bytes, p.BytesHere})
	a.eventually(t, "a is through", func() bool { return progress(a).AssetsHere == 3 })
	require.EqualValues(t, 6000, progress(a).BytesHere)

	ask := func(route string, digests ...string) answer {
		return b.call(t, "POST", path+route, `{"digests":["`+strings.Join(digests, `","`)+`"]}`)
	}
	require.Contains(t, ask("/prioritize", all[1]).error, "fetches nothing that could come first")
	require.Equal(t, http.StatusConflict, ask("/prioritize", all[1]).code)
	require.Equal(t, http.StatusNotFound, ask("/fetch", absentID).code)
	got := ask("/fetch", absentID, all[1])
	require.Equal(t, http.StatusOK, got.code, got.error)
	require.JSONEq(t, `{"library":"`+path[len("/libraries/"):]+`","digests":["`+all[1]+`"],"unknown":["`+absentID+`"]}`, string(got.data))
	b.eventually(t, "it came", func() bool { p := progress(b); return p.AssetsHere == 1 && p.BytesHere == 2000 })
	require.Equal(t, 1, b.can.Len())

	get[libraryView](t, b, "POST", path+"/pause", "")
	got = ask("/fetch", all[0])
	require.Equal(t, http.StatusConflict, got.code)
	require.Contains(t, got.error, "resume")
	require.Contains(t, ask("/prioritize", all[0]).error, "resume")
	get[libraryView](t, b, "POST", path+"/resume", "")
	get[changedView](t, b, "PATCH", path, `{"mode":"sync"}`)
	require.Equal(t, http.StatusOK, ask("/prioritize", all[2]).code)
	b.eventually(t, "all came", func() bool { p := progress(b); return p.AssetsHere == 3 && p.BytesHere == 6000 })
	require.Equal(t, http.StatusOK, ask("/fetch", all...).code, "what is here is passed over")
}

// TestProgressOfATransfer follows a large asset under a limit, in the API and in
// the event stream, and lifts the limit half-way.
func TestProgressOfATransfer(t *testing.T) {
	a, b, path := two(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		q.Host = testAddr
		b.ServeHTTP(w, q)
	}))
	defer s.Close()
	defer func() { require.NoError(t, b.Drain(context.Background())) }()
	resp, err := s.Client().Get(s.URL + "/events?library=" + path[len("/libraries/"):])
	require.NoError(t, err)
	defer resp.Body.Close()
	in := bufio.NewReader(resp.Body)

	const size = 8 << 20
	get[changedView](t, b, "PATCH", path, `{"limits":{"download":262144}}`)
	content, err := io.ReadAll(cantest.Generated(1, size))
	require.NoError(t, err)
	a.can.Add(content, can.Metadata{})
	a.node.Poll()
	digest := digestOf(content).String()
	var p progressView
	b.eventually(t, "bytes arrive", func() bool {
		p = get[progressView](t, b, "GET", path+"/progress", "")
		return p.BytesHere > 0 && p.Rate > 0
	})
	require.Equal(t, []int64{1, 0, size}, []int64{p.Assets, p.AssetsHere, p.Bytes})
	require.Less(t, p.BytesHere, int64(size))
	require.NotNil(t, p.ETASecs)
	require.Positive(t, *p.ETASecs)
	require.Len(t, p.Transfers, 1)
	require.Equal(t, digest, p.Transfers[0].Digest)
	require.EqualValues(t, size, p.Transfers[0].Bytes)
	require.LessOrEqual(t, p.Transfers[0].BytesHere, p.BytesHere)
	require.Equal(t, "partial", get[assetView](t, b, "GET", path+"/assets/"+digest, "").State)
	a.eventually(t, "a serves", func() bool { return get[progressView](t, a, "GET", path+"/progress", "").UploadRate > 0 })
	for {
		line, err := in.ReadString('\n')
		require.NoError(t, err)
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		var e eventView
		require.NoError(t, json.Unmarshal([]byte(data), &e))
		if e.Kind != "progress" || e.Rate == 0 {
			continue
		}
		require.Equal(t, digest, *e.Asset)
		require.EqualValues(t, size, e.Total)
		require.Less(t, e.Size, e.Total)
		break
	}
	get[changedView](t, b, "PATCH", path, `{"limits":{"download":0}}`)
	b.eventually(t, "it is here", func() bool {
		p = get[progressView](t, b, "GET", path+"/progress", "")
		return p.AssetsHere == 1 && p.BytesHere == size && len(p.Transfers) == 0
	})
	require.Nil(t, p.ETASecs)
}

func TestETA(t *testing.T) {
	require.Nil(t, eta(0))
	require.EqualValues(t, 1, *eta(time.Millisecond))
	require.EqualValues(t, 2, *eta(1001 * time.Millisecond))
}
