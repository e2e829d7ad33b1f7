package service

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestListPagesInBothOrders(t *testing.T) {
	ts := start(t, Config{})
	var want []string
	for i := range 25 {
		a := ts.put(fmt.Sprint(i), "timestamp", fmt.Sprint(1700000000000+i/3)) // equal timestamps too
		want = append(want, a.Hash.String())
	}
	trashed := ts.put("gone", "timestamp", "1700000000003")
	require.Equal(t, 200, ts.do("DELETE", "/asset/"+trashed.Hash.String(), "", nil).code)
	for _, order := range []string{"asc", "desc", ""} {
		wanted := slices.Clone(want)
		if order != "asc" {
			slices.Reverse(wanted)
		}
		for _, step := range []int{1, 7, 25, 1000} {
			var got []string
			for len(got) < 25 {
				l := ts.list(fmt.Sprintf("/list?limit=%d&offset=%d&order=%s", step, len(got), order))
				require.EqualValues(t, 25, *l.Total)
				require.EqualValues(t, len(got), l.Offset)
				require.NotEmpty(t, l.Items)
				for _, a := range l.Items {
					got = append(got, a.Hash.String())
				}
				// A mark from before a change must not be used after it.
				require.Equal(t, wanted[:len(got)], got)
			}
		}
		require.Empty(t, ts.list("/list?offset=25&order="+order).Items)
		require.Empty(t, ts.list("/list?offset=9000000000000000000&order="+order).Items)
	}
	page := ts.list("/list?limit=5")
	newest := ts.put("newest", "timestamp", "1800000000000")
	second := ts.list("/list?limit=5&offset=5")
	require.Equal(t, page.Items[4].Hash, second.Items[0].Hash)
	require.Equal(t, newest.Hash, ts.list("/list?limit=1").Items[0].Hash)
	require.Equal(t, maxLimit, ts.list("/list?limit=99999999").Limit)
	for _, q := range []string{"limit=0", "limit=-1", "limit=x", "offset=-1", "offset=1.5", "order=up", "changed_since=x", "changed_since=0123456789abcdef-1",
		"limit=99999999999999999999", "%zz", "changed_since=&offset=1"} {
		require.Equal(t, 400, ts.get("/list?"+q).code, q)
	}
}

func TestChangedSince(t *testing.T) {
	ts := start(t, Config{})
	a, b := ts.put("a"), ts.put("b")
	l := ts.list("/list?changed_since=&limit=1")
	require.True(t, l.More)
	require.Equal(t, a.Hash, l.Items[0].Hash)
	l = ts.list("/list?limit=1&changed_since=" + l.NextCursor)
	require.False(t, l.More)
	require.Equal(t, b.Hash, l.Items[0].Hash)
	at := l.NextCursor
	l = ts.list("/list?changed_since=" + at)
	require.Empty(t, l.Items)
	require.Equal(t, at, l.NextCursor)

	ts = ts.again() // the cursor survives
	require.Empty(t, ts.list("/list?changed_since="+at).Items)
	require.Equal(t, 200, ts.do("PATCH", "/asset/"+a.Hash.String(), "application/json", strings.NewReader(`{"user":"u"}`)).code)
	require.Equal(t, 200, ts.do("DELETE", "/asset/"+b.Hash.String(), "", nil).code)
	l = ts.list("/list?changed_since=" + at)
	require.Len(t, l.Items, 2)
	require.Equal(t, optional("u"), l.Items[0].User)
	require.True(t, l.Items[1].Trashed)
	at = l.NextCursor
	// What changes nothing is no change.
	require.Equal(t, 200, ts.do("PATCH", "/asset/"+a.Hash.String(), "application/json", strings.NewReader(`{"user":"u"}`)).code)
	require.Equal(t, 200, ts.do("DELETE", "/asset/"+b.Hash.String(), "", nil).code)
	ts.put("a")
	require.Empty(t, ts.list("/list?changed_since="+at).Items)
	// A cursor of another index is refused.
	other := start(t, Config{})
	require.Equal(t, 400, other.get("/list?changed_since="+at).code)
}

func TestSearch(t *testing.T) {
	ts := start(t, Config{})
	put := func(c string, fields ...string) { ts.put(c, fields...) }
	put("1", "tags", "a,b", "application", "x", "user", "u", "mime_type", "image/png")
	put("2", "tags", "b,c", "application", "x", "mime_type", "image/jpeg", "description", "100% Sunny_day")
	put("3", "tags", "c", "application", "y", "mime_type", "text/plain", "human_file_name", "report.TXT")
	put("4", "mime_type", "imagex/png", "human_readable_path", `/home/a\b`)
	gone := ts.put("5", "tags", "a", "application", "x")
	ts.do("DELETE", "/asset/"+gone.Hash.String(), "", nil)
	for q, want := range map[string]string{
		"":                         "1234",
		"tags=a":                   "1",
		"tags=a,c":                 "123",
		"tags=a&tags=c":            "123",
		"tags=A":                   "",
		"application=x":            "12",
		"application=x&tags=c":     "2",
		"user=u":                   "1",
		"mime_type=image/png":      "1",
		"mime_type=image/":         "12",
		"mime_type=image/*":        "12",
		"mime_type=image":          "",
		"q=sunny":                  "2",
		"q=100%25":                 "2",
		"q=y_d":                    "2",
		"q=%25":                    "2",
		"q=report.txt":             "3",
		"q=a%5Cb":                  "4",
		"q=nothing":                "",
		"q=c&application=y":        "3",
		"application=&tags=&user=": "1234",
	} {
		l := ts.list("/search?order=asc&" + q)
		got := ""
		for _, a := range l.Items {
			got += string(ts.get("/asset/" + a.Hash.String()).raw)
		}
		sorted := strings.Split(got, "")
		slices.Sort(sorted)
		require.Equal(t, want, strings.Join(sorted, ""), q)
		require.EqualValues(t, len(want), *l.Total, q)
	}
	require.Len(t, ts.list("/search?application=x&limit=1&offset=1").Items, 1)
	require.Equal(t, 400, ts.get("/search?limit=x").code)
	require.Equal(t, 400, ts.get("/search?q=%ff").code)
	ts.do("PATCH", "/asset/"+sha("3"), "application/json", strings.NewReader(`{"tags":["z"]}`))
	require.Empty(t, ts.list("/search?tags=c&application=y").Items)
	require.Len(t, ts.list("/search?tags=z").Items, 1)
}

func TestPatch(t *testing.T) {
	ts := start(t, Config{})
	a := ts.put("x", "tags", "a,b", "user", "u", "description", "d", "human_file_name", "n", "human_readable_path", "p", "application", "app")
	patch := func(body string) testAnswer {
		return ts.do("PATCH", "/asset/"+a.Hash.String(), "application/json", strings.NewReader(body))
	}
	got := patch(`{"tags":"c, d","human_file_name":"m"}`).asset(t)
	want := a.metadata
	want.Tags, want.Filename = []string{"c", "d"}, "m"
	require.Equal(t, want, got.metadata)
	require.Equal(t, want, patch(`{}`).asset(t).metadata)
	got = patch(`{"tags":null,"user":null,"description":"","human_filename":"","human_path":null,"application":null}`).asset(t)
	require.Equal(t, metadata{MIMEType: a.MIMEType, Tags: []string{}}, got.metadata)
	require.Equal(t, a.Timestamp, got.Timestamp)
	for _, body := range []string{``, `null`, `[]`, `{"tags":1}`, `{"tags":["a,b"]}`, `{"user":3}`, `{"size":3}`, `{"user":"a"}{}`, `{"user":"` + strings.Repeat("x", maxName+1) + `"}`} {
		require.Equal(t, 400, patch(body).code, body)
	}
	require.Contains(t, patch(`{"colour":1}`).Error, "colour")
	require.Equal(t, 413, patch(`{"user":"`+strings.Repeat("x", maxPatchBody)+`"}`).code)
	require.Equal(t, 404, ts.do("PATCH", "/asset/"+sha("other"), "application/json", strings.NewReader(`{}`)).code)
	require.Equal(t, got.metadata, ts.again().get("/asset/"+a.Hash.String()+"/meta").asset(t).metadata)
}

func TestAssetRangesAndHeaders(t *testing.T) {
	ts := start(t, Config{})
	a := ts.put("0123456789", "mime_type", "text/html", "human_file_name", "a \"b\"\r\nX: y.html")
	path := "/asset/" + a.Hash.String()
	r := ts.get(path)
	require.Equal(t, "0123456789", string(r.raw))
	require.Equal(t, "text/html", r.header.Get("Content-Type"))
	require.Contains(t, r.header.Get("Content-Security-Policy"), "sandbox")
	require.Empty(t, r.header.Get("X"))
	r = ts.do("GET", path, "", nil, "Range", "bytes=2-4")
	require.Equal(t, 206, r.code)
	require.Equal(t, "234", string(r.raw))
	require.Equal(t, "bytes 2-4/10", r.header.Get("Content-Range"))
	require.Equal(t, "789", string(ts.do("GET", path, "", nil, "Range", "bytes=-3").raw))
	require.Equal(t, 416, ts.do("GET", path, "", nil, "Range", "bytes=20-").code)
	require.Equal(t, 304, ts.do("GET", path, "", nil, "If-None-Match", r.header.Get("ETag")).code)
	r = ts.do("HEAD", path, "", nil)
	require.Equal(t, "10", r.header.Get("Content-Length"))
	require.Empty(t, r.raw)
	for _, p := range []string{"/asset/" + sha("other"), "/asset/" + sha("other") + "/meta", "/asset/" + sha("other") + "/thumb/5/5"} {
		r := ts.get(p)
		require.Equal(t, 404, r.code, p)
		require.Equal(t, "error", r.Status)
	}
	for _, h := range []string{"x", strings.ToUpper(a.Hash.String()), "..%2f..%2fetc%2fpasswd", a.Hash.String() + "0"} {
		require.Equal(t, 400, ts.get("/asset/"+h).code, h)
	}
}

func TestTrashAndRestore(t *testing.T) {
	ts := start(t, Config{})
	a := ts.put("x", "tags", "old", "timestamp", "1700000000000")
	path := "/asset/" + a.Hash.String()
	for range 2 {
		require.True(t, ts.do("DELETE", path, "", nil).asset(t).Trashed)
	}
	name := blobName(a.Timestamp, a.Hash)
	require.Empty(t, ts.names("."))
	require.Equal(t, []string{name, name + metaSuffix}, ts.names(trashDir))
	require.Equal(t, 404, ts.get(path).code)
	require.True(t, ts.get(path+"/meta").asset(t).Trashed)
	require.Zero(t, *ts.list("/list").Total)
	require.Equal(t, 404, ts.do("DELETE", "/asset/"+sha("other"), "", nil).code)
	ts = ts.again()
	require.Zero(t, *ts.list("/list").Total)
	b := ts.put("x", "tags", "new")
	require.False(t, b.Trashed)
	require.Equal(t, []string{"new"}, b.Tags)
	require.Greater(t, b.Timestamp, a.Timestamp)
	require.Empty(t, ts.names(trashDir))
	require.Equal(t, "x", string(ts.get(path).raw))
	require.EqualValues(t, 1, *ts.list("/search?tags=new").Total)
	require.EqualValues(t, 0, *ts.list("/search?tags=old").Total)
	require.Equal(t, b, ts.again().get(path+"/meta").asset(t))
}

func TestRoutesAndForeignPages(t *testing.T) {
	ts := start(t, Config{AllowedHosts: []string{"can.local"}})
	for _, c := range []struct {
		method, path string
		code         int
	}{{"GET", "/nothing", 404}, {"POST", "/list", 405}, {"PUT", "/asset/" + sha("x"), 405}, {"GET", "/ingest", 405}, {"GET", "/admin/verify", 405}} {
		r := ts.do(c.method, c.path, "", nil)
		require.Equal(t, c.code, r.code, c.path)
		require.Equal(t, "error", r.Status, c.path)
		require.Equal(t, c.code == 405, r.header.Get("Allow") != "", c.path)
	}
	for host, code := range map[string]int{"evil.example": 403, "localhost.evil.example:3210": 403, "10.0.0.1": 403, "": 200, "localhost:9": 200, "127.0.0.9": 200, "[::1]:3210": 200, "CAN.local": 200} {
		args := []string{"Host", host}
		if host == "" {
			args = nil
		}
		require.Equal(t, code, ts.do("GET", "/list", "", nil, args...).code, host)
	}
	body, ct := upload(t, "x", []byte("planted"))
	for _, h := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "http://evil.example"}} {
		require.Equal(t, 403, ts.do("POST", "/ingest", ct, strings.NewReader(string(body)), h...).code)
	}
	require.Zero(t, *ts.list("/list").Total)
	require.NoError(t, ts.svc.Close())
	r := ts.get("/list")
	require.Equal(t, http.StatusServiceUnavailable, r.code)
	require.Equal(t, "error", r.Status)
}
