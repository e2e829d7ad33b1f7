package api

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	tmem "github.com/cansync/cansync/transport/memory"

	"github.com/cansync/cansync"
)

// same runs fn and checks that the libraries are what they were.
func same(t *testing.T, r *rig, fn func()) {
	t.Helper()
	before := get[[]libraryView](t, r, "GET", "/libraries", "")
	fn()
	require.Equal(t, before, get[[]libraryView](t, r, "GET", "/libraries", ""))
	require.Zero(t, r.Panics())
}

func TestBadBodies(t *testing.T) {
	r := single(t)
	lib := r.create(t, "good", `{}`)
	one := "/libraries/" + lib.ID
	deep := strings.Repeat(`{"filter":`, 20_000) + "{}" + strings.Repeat("}", 20_000)
	type bad struct{ method, path, body, says string }
	cases := []bad{
		{"POST", "/libraries", `{"name":"x","filters":{}}`, `unknown key "filters"; known keys are filter, limits, mode, name, publish, quota, view`},
		{"POST", "/libraries", `{"name":"x","filter":{"mime":"a"}}`, `unknown key "filter.mime"`},
		{"POST", "/libraries", `{"Name":"x"}`, `unknown key "Name"`},
		{"POST", "/libraries", `{"name":"x","name":"y"}`, `key "name" is given twice`},
		{"POST", "/libraries", `{"name":7}`, `name: want a string, got a number`},
		{"POST", "/libraries", `{"name":"x","filter":[]}`, `filter: want an object, got a list`},
		{"POST", "/libraries", `{"name":"x","filter":"a"}`, `filter: want an object, got a string`},
		{"POST", "/libraries", `{"name":"x","filter":{"tags":"a"}}`, `filter.tags: want a list of strings, got a string`},
		{"POST", "/libraries", `{"name":"x","filter":{"tags":[1]}}`, `filter.tags: want a string, got a number`},
		{"POST", "/libraries", `{"name":"x","filter":{"tags":[""]}}`, `an empty tag`},
		{"POST", "/libraries", `{"name":"x","filter":{"application":true}}`, `filter.application: want a string, got true or false`},
		{"POST", "/libraries", `{"name":"x","filter":{"hashes":["zz"]}}`, `hashes`},
		{"POST", "/libraries", `{"name":"x","filter":{"user":"` + strings.Repeat("u", 5000) + `"}}`, `user`},
		{"POST", "/libraries", `{"name":""}`, `name`},
		{"POST", "/libraries", `{"name":"   "}`, `empty`},
		{"POST", "/libraries", `{"name":null}`, `name`},
		{"POST", "/libraries", `{"filter":{}}`, `name`},
		{"POST", "/libraries", `{"name":"a\u0000b"}`, `control`},
		{"POST", "/libraries", `{"name":"` + strings.Repeat("n", cansync.MaxNameLen+1) + `"}`, `at most`},
		{"POST", "/join", `{}`, `ticket`},
		{"POST", "/join", `{"ticket":""}`, `ticket`},
		{"PATCH", one, `{"mode":5}`, `mode: want a string, got a number`},
		{"POST", "/libraries", `{"name":"x","limits":{"upload":"2MiB"}}`, `limits.upload: want a whole number, got a string`},
		{"POST", "/join", `{"ticket":["a"]}`, `ticket: want a string, got a list`},
		{"POST", "/join", `{"ticket":"nonsense"}`, `ticket`},
		{"POST", "/join", `{"tickets":"x"}`, `unknown key "tickets"`},
		{"POST", one + "/invite", `{"acces":"read"}`, `unknown key "acces"`},
		{"POST", one + "/invite", `{"access":1}`, `access: want a string`},
		{"POST", one + "/invite", `{"expires_in_secs":1.5}`, `expires_in_secs: want a whole number`},
		{"POST", one + "/invite", `{"expires_in_secs":"60"}`, `expires_in_secs: want a whole number, got a string`},
		{"POST", one + "/invite", `{"can_invite":"yes"}`, `can_invite: want true or false, got a string`},
		{"POST", one + "/invite", `{"expires_in_secs":1e99}`, `expires_in_secs`},
		{"PATCH", one, ``, `JSON object is required`},
		{"PATCH", one, `{}`, `nothing to change`},
		{"PATCH", one, `{"delete_policy":"burn"}`, `delete_policy`},
		{"PATCH", one, `{"name":"y"}`, `unknown key "name"`},
		{"PATCH", one, `{"delete_policy":"trash","mode":"idle"}`, `mode: want one of sync`},
		{"PATCH", one, `{"mode":""}`, `mode: want one of sync`},
		{"PATCH", one, `{"mode":7}`, `mode: want a string, got a number`},
		{"PATCH", one, `{"mode":"paused","publish":"never"}`, `publish: want "auto" or "approve"`},
		{"PATCH", one, `{"mode":"paused","view":{"mime":"a"}}`, `unknown key "view.mime"`},
		{"PATCH", one, `{"mode":"paused","view":{"tags":[""]}}`, `an empty tag`},
		{"PATCH", one, `{"mode":"paused","view":{"hashes":["cansync1qqqqqqqq"]}}`, `view.hashes: a ticket is no hash`},
		{"PATCH", one, `{"mode":"paused","mode":"sync"}`, `key "mode" is given twice`},
		{"PATCH", one, `{"limits":{}}`, `nothing to change: give limits.upload or limits.download`},
		{"PATCH", one, `{"limits":7}`, `limits: want an object, got a number`},
		{"PATCH", one, `{"limits":{"up":1}}`, `unknown key "limits.up"; known keys are download, upload`},
		{"PATCH", one, `{"limits":{"upload":"2MiB"}}`, `limits.upload: want a whole number, got a string`},
		{"PATCH", one, `{"mode":"paused","limits":{"upload":1,"download":-1}}`, `limits.download: want a whole number of bytes per second`},
		{"PATCH", one, `{"limits":{"upload":1.5}}`, `limits.upload: want a whole number, got the number`},
		{"PATCH", one, `{"limits":{"upload":9223372036854775808}}`, `limits.upload: want a whole number`},
		{"PATCH", one, `{"mode":"paused","quota":-1}`, `quota: want a whole number of bytes`},
		{"PATCH", one, `{"quota":"1"}`, `quota: want a whole number, got a string`},
		{"POST", "/libraries", `{"name":"x","mode":"idle"}`, `mode: want one of sync`},
		{"POST", "/libraries", `{"name":"x","publish":"never"}`, `publish: want "auto" or "approve"`},
		{"POST", "/libraries", `{"name":"x","view":{"mime":"a"}}`, `unknown key "view.mime"`},
		{"POST", "/libraries", `{"name":"x","view":{"tags":[""]}}`, `an empty tag`},
		{"POST", "/libraries", `{"name":"x","limits":{"upload":-1}}`, `limits.upload: want a whole number`},
		{"POST", "/libraries", `{"name":"x","limits":{"uploads":1}}`, `unknown key "limits.uploads"`},
		{"POST", "/libraries", `{"name":"x","quota":-1}`, `quota: want a whole number`},
		{"POST", "/libraries", `{"name":"x","quota":true}`, `quota: want a whole number, got true or false`},
		{"POST", "/libraries", `{"name":"x","localChange":{}}`, `unknown key "localChange"`},
		{"POST", "/join", `{"ticket":"x","mode":"idle"}`, `mode: want one of sync`},
		{"POST", "/join", `{"ticket":"x","publish":7}`, `publish: want a string, got a number`},
		{"POST", "/join", `{"ticket":"x","quota":-1}`, `quota: want a whole number`},
		{"POST", "/join", `{"ticket":"x","limit":{}}`, `unknown key "limit"; known keys are limits, mode, publish, quota, ticket, view`},
		{"PATCH", "/limits", ``, `JSON object is required`},
		{"PATCH", "/limits", `{}`, `nothing to change: give upload or download`},
		{"PATCH", "/limits", `{"upload":null}`, `nothing to change`},
		{"PATCH", "/limits", `{"upload":-1}`, `upload: want a whole number of bytes per second`},
		{"PATCH", "/limits", `{"uploads":1}`, `unknown key "uploads"; known keys are download, upload`},
		{"PATCH", "/limits", `{"download":"1MiB"}`, `download: want a whole number, got a string`},
		{"PATCH", "/limits", `{"peers":[]}`, `unknown key "peers"`},
		{"GET", "/limits", `{"upload":1}`, `no body`},
		{"PATCH", "/peers/" + somePeer + "/limits", `{"download":-1}`, `download: want a whole number`},
		{"PATCH", "/peers/" + somePeer + "/limits", `{"rate":1}`, `unknown key "rate"`},
		{"POST", one + "/fetch", ``, `JSON object is required`},
		{"POST", one + "/fetch", `{"digests":[]}`, `digests: want 1 to 1000`},
		{"POST", one + "/fetch", `{"digests":["` + absentID + `","x"]}`, `digests: number 2 is no digest`},
		{"POST", one + "/fetch", `{"hashes":["x"]}`, `unknown key "hashes"; known keys are digests`},
		{"POST", one + "/prioritize", `{"digests":{}}`, `digests: want a list of strings, got an object`},
		{"GET", one + "/progress", `{"x":1}`, `no body`},
		{"POST", one + "/approve", ``, `JSON object is required`},
		{"POST", one + "/approve", `{}`, `digests: want 1 to 1000`},
		{"POST", one + "/approve", `{"digests":[]}`, `digests: want 1 to 1000`},
		{"POST", one + "/approve", `{"digests":["` + absentID + `","x"]}`, `digests: number 2 is no digest`},
		{"POST", one + "/decline", `{"digests":"` + absentID + `"}`, `digests: want a list of strings, got a string`},
		{"POST", one + "/decline", `{"digests":[` + strings.Repeat(`"a",`, 1000) + `"a"]}`, `digests: want 1 to 1000`},
		{"POST", one + "/decline", `{"digest":["` + absentID + `"]}`, `unknown key "digest"`},
		{"GET", one + "/assets/" + absentID + "/holders", `{"x":1}`, `no body`},
		{"POST", one + "/pause", `{"x":1}`, `no body`},
		{"DELETE", one, `{"purge":true}`, `no body`},
		{"GET", "/status", `{"x":1}`, `no body`},
	}
	for _, path := range []string{"/libraries", "/join", one + "/invite"} {
		for body, says := range map[string]string{
			`{`: "malformed", `{"name":"x"`: "malformed", `{"name":"x"}}`: "malformed", `{"name":"x"} {}`: "malformed", `{"name":"x"}x`: "malformed",
			`[]`: "object", `null`: "object", `"x"`: "object", `7`: "object", `nonsense`: "malformed", "\xff{}": "UTF-8",
			`{"name":"` + "\xff" + `"}`: "UTF-8", `{'name':'x'}`: "malformed", `{"name":NaN}`: "malformed", "{\"name\":\"a\nb\"}": "malformed",
			deep: "", " \n": "required", "\x00": "malformed",
		} {
			cases = append(cases, bad{"POST", path, body, says})
		}
	}
	same(t, r, func() {
		for _, c := range cases {
			a := r.call(t, c.method, c.path, c.body)
			short := c.body[:min(len(c.body), 80)]
			require.Equal(t, http.StatusBadRequest, a.code, "%s %s %s: %s", c.method, c.path, short, a.error)
			require.Contains(t, a.error, c.says, "%s %s %s", c.method, c.path, short)
			require.Less(t, len(a.error), 600)
		}
		for _, path := range []string{"/libraries", "/join"} {
			require.Equal(t, http.StatusBadRequest, r.call(t, "POST", path, "").code)
		}
	})
}

func TestBodiesTooLargeAndNotJSON(t *testing.T) {
	r := single(t)
	lib := r.create(t, "good", `{}`)
	big := `{"name":"` + strings.Repeat("x", MaxBody) + `"}`
	same(t, r, func() {
		for _, c := range everyRoute(lib.ID) {
			if c[1] == "/events" {
				continue // reads no body at all
			}
			require.Equal(t, http.StatusRequestEntityTooLarge, r.call(t, c[0], c[1], big).code, c)
			req := request(c[0], c[1], big)
			req.ContentLength = -1 // a length that is not told in advance
			require.Equal(t, http.StatusRequestEntityTooLarge, r.do(t, req).code, c)
			for _, kind := range []string{"", "text/plain", "application/xml", "application/jsonx", "x", "application/json, text/plain"} {
				req := request(c[0], c[1], `{"name":"x"}`)
				req.Header.Set("Content-Type", kind)
				require.Equal(t, http.StatusUnsupportedMediaType, r.do(t, req).code, "%s %q", c, kind)
			}
		}
	})
	req := request("POST", "/libraries", `{"name":"x"}`)
	req.Header.Set("Content-Type", "Application/JSON; charset=utf-8")
	require.Equal(t, http.StatusOK, r.do(t, req).code)
}

func TestUnknownPathsMethodsAndIDs(t *testing.T) {
	r := single(t)
	lib := r.create(t, "good", `{}`)
	same(t, r, func() {
		for _, path := range []string{
			"/", "//", "/x", "/status/", "/libraries/", "//libraries", "/libraries//", "/libraries/" + lib.ID + "/", "/libraries/" + lib.ID + "/x",
			"/./status", "/libraries/../status", "/libraries/%2e%2e/status", "/libraries%2f" + lib.ID, "/api/v1", "/favicon.ico", "/STATUS",
		} {
			for _, method := range []string{"GET", "POST", "DELETE", "PATCH", "PUT", "OPTIONS", "HEAD"} {
				require.Equal(t, http.StatusNotFound, r.call(t, method, path, "").code, "%s %s", method, path)
			}
		}
		for path, allow := range map[string]string{
			"/status": "GET, HEAD", "/peers": "GET, HEAD", "/join": "POST", "/libraries": "GET, HEAD, POST",
			"/libraries/" + lib.ID: "GET, HEAD, PATCH, DELETE", "/libraries/" + lib.ID + "/invite": "POST",
			"/libraries/" + lib.ID + "/assets/" + absentID: "GET, HEAD, DELETE",

			"/libraries/" + lib.ID + "/assets/" + absentID + "/holders": "GET, HEAD",

			"/libraries/" + lib.ID + "/approvals": "GET, HEAD", "/libraries/" + lib.ID + "/approve": "POST",
			"/libraries/" + lib.ID + "/progress": "GET, HEAD", "/libraries/" + lib.ID + "/fetch": "POST",
			"/limits": "GET, HEAD, PATCH", "/peers/" + somePeer + "/limits": "GET, HEAD, PATCH",
		} {
			for _, method := range []string{"PUT", "OPTIONS", "TRACE", "BREW"} {
				a := r.call(t, method, path, "")
				require.Equal(t, http.StatusMethodNotAllowed, a.code)
				require.Equal(t, allow, a.header.Get("Allow"))
			}
		}
		star := request("OPTIONS", "/", "")
		star.URL.Path, star.RequestURI = "*", "*"
		require.Equal(t, http.StatusNotFound, r.do(t, star).code)
		for _, id := range []string{absentID, "x", strings.ToUpper(lib.ID), lib.ID[:63], lib.ID + "0", "%20", "good", strings.Repeat("a", 5000)} {
			for _, c := range everyRoute(id) {
				if strings.HasPrefix(c[1], "/libraries/") {
					require.Equal(t, http.StatusNotFound, r.call(t, c[0], c[1], c[2]).code, c)
				}
			}
		}
		for _, id := range []string{"x", absentID, somePeer[1:], somePeer + "a", strings.Repeat("a", 5000)} {
			require.Equal(t, http.StatusNotFound, r.call(t, "GET", "/peers/"+id+"/limits", "").code)
			require.Equal(t, http.StatusNotFound, r.call(t, "PATCH", "/peers/"+id+"/limits", `{"upload":1}`).code)
		}
		for _, path := range []string{
			"/limits?x=1", "/libraries/" + lib.ID + "/progress?x=1",
			"/status?x=1", "/libraries?limit=1", "/libraries/" + lib.ID + "/assets?limit=0", "/libraries/" + lib.ID + "/assets?limit=1001",
			"/libraries/" + lib.ID + "/assets?limit=x", "/libraries/" + lib.ID + "/assets?after=x", "/libraries/" + lib.ID + "/assets?state=x",
			"/libraries/" + lib.ID + "/assets?limit=1&limit=2", "/libraries/" + lib.ID + "?a=%zz", "/libraries/" + lib.ID + "/approvals?limit=0",
			"/libraries/" + lib.ID + "/approvals?after=x", "/libraries/" + lib.ID + "/approvals?state=have", "/events?library=x", "/events?x=1",
		} {
			require.Equal(t, http.StatusBadRequest, r.call(t, "GET", path, "").code, path)
		}
		require.Equal(t, http.StatusBadRequest, r.call(t, "DELETE", "/libraries/"+lib.ID+"?purge=yes", "").code)
		require.Equal(t, http.StatusBadRequest, r.call(t, "DELETE", "/libraries/"+lib.ID+"?purges=true", "").code)
	})
}

// TestTamperedTickets changes a ticket at every position, to another character of
// its alphabet and to one outside of it, and cuts and extends it.
func TestTamperedTickets(t *testing.T) {
	a, b := single(t), single(t)
	lib := a.create(t, "x", `{"application":"paste"}`)
	ticket := get[inviteView](t, a, "POST", "/libraries/"+lib.ID+"/invite", "").Ticket
	const alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
	tried := 0
	same(t, b, func() {
		try := func(changed string) {
			tried++
			ans := b.call(t, "POST", "/join", `{"ticket":"`+changed+`"}`)
			require.Equal(t, http.StatusBadRequest, ans.code, "change %d", tried)
			require.Contains(t, ans.error, "ticket")
			require.NotContains(t, ans.error, ticket[20:60])
		}
		for i := range ticket {
			other := alphabet[(strings.IndexByte(alphabet, ticket[i])+1+i%30)%32]
			if other == ticket[i] {
				other = alphabet[(strings.IndexByte(alphabet, ticket[i])+1)%32]
			}
			for _, c := range []byte{other, 'b', '!'} {
				if c != ticket[i] {
					try(ticket[:i] + string(c) + ticket[i+1:])
				}
			}
		}
		for _, i := range []int{0, 1, 8, len(ticket) / 2, len(ticket) - 1} {
			try(ticket[:i] + ticket[i+1:])
			try(ticket[:i] + "q" + ticket[i:])
			try(ticket[i+1:])
		}
		try(ticket + ticket)
	})
	require.Greater(t, tried, 2*len(ticket))
	require.NotContains(t, b.log.String(), ticket[:40])
}

// TestExpiredTicket joins after the ticket's end.
func TestExpiredTicket(t *testing.T) {
	a, b := single(t), single(t)
	lib := a.create(t, "x", `{}`)
	ticket := get[inviteView](t, a, "POST", "/libraries/"+lib.ID+"/invite", `{"expires_in_secs":1}`).Ticket
	a.eventually(t, "the ticket expires", func() bool {
		ans := b.call(t, "POST", "/join", `{"ticket":"`+ticket+`"}`)
		if ans.code == http.StatusOK { // not yet
			require.Equal(t, http.StatusOK, b.call(t, "DELETE", "/libraries/"+lib.ID, "").code)
			return false
		}
		require.Equal(t, http.StatusBadRequest, ans.code)
		require.Contains(t, ans.error, "expired")
		return true
	})
	require.Equal(t, "[]", string(b.call(t, "GET", "/libraries", "").data))
}

// TestErrorsReadWell makes errors of all parts readable.
func TestErrorsReadWell(t *testing.T) {
	for text, want := range map[string]string{
		"control: not allowed: description: capability: right not granted: admin needed, read,write granted": "not allowed: it takes the right to admin, and this node's membership gives read,write",
		"can: list: can: service unavailable: dial tcp 127.0.0.1:1: connect: connection refused":             "list: service unavailable: dial tcp 127.0.0.1:1: connect: connection refused",
		"transfer: no connected peer has the content; abc: transfer: not served":                             "no connected peer has the content; abc: not served",
		"cansync: invalid configuration: libp2p: invalid configuration: listen address":                      "invalid configuration: listen address",
		"a: cansync1qqqqqqqq: can: b":        "a: (a ticket): b",
		"one\ncan: two":                      "one; two",
		"open /data/store: /x: no such file": "open /data/store: /x: no such file",
		"":                                   "",
	} {
		require.Equal(t, want, plain(text))
	}
	network := tmem.NewNetwork(tmem.Options{Directory: true})
	a, b := newRig(t, network, nil), newRig(t, network, nil)
	path := "/libraries/" + a.create(t, "x", `{}`).ID
	ticket := get[inviteView](t, a, "POST", path+"/invite", `{"access":"read"}`).Ticket
	get[libraryView](t, b, "POST", "/join", `{"ticket":"`+ticket+`"}`)
	b.eventually(t, "b is a member", func() bool { return get[libraryView](t, b, "GET", path, "").State == "synced" })
	require.Equal(t, "not allowed: it takes the right to admin, and this node's membership gives read; ask a member with more rights",
		b.call(t, "PATCH", path, `{"delete_policy":"trash"}`).error)
	require.Equal(t, "not allowed: it takes the right to invite, and this node's membership gives read; ask a member with more rights",
		b.call(t, "POST", path+"/invite", "").error)
}
