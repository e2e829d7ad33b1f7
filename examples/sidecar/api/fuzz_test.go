package api

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync"
)

func seeds(f *testing.F, more ...string) {
	for _, s := range append(more, ``, `{}`, `null`, `[]`, `{"a":{}}`, `{"name":"x"} {}`, `{"name":1,"name":2}`, "\xff", `{"filter":{"tags":[null]}}`,
		`{"expires_in_secs":1e400}`, strings.Repeat(`{"filter":`, 100), `{"\u0000":1}`) {
		f.Add([]byte(s))
	}
}

// fuzzDecode checks what holds for each request: nothing panics, errors are
// failures with code 400 and a bounded text, and what decodes survives a round
// trip.
func fuzzDecode[T any](f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		var v T
		if err := decode(body, &v); err != nil {
			code, text := classify(err)
			require.Equal(t, http.StatusBadRequest, code)
			require.NotEmpty(t, text)
			require.Less(t, len(text), 1000)
			return
		}
		b, err := json.Marshal(v)
		require.NoError(t, err)
		var again T
		require.NoError(t, decode(b, &again))
		c, err := json.Marshal(again)
		require.NoError(t, err)
		require.Equal(t, b, c)
	})
}

func FuzzCreateRequest(f *testing.F) {
	seeds(f, `{"name":"my-pastes","filter":{"application":"paste","tags":["a"],"user":"u","mime_prefix":"image/","hashes":["00"]}}`)
	fuzzDecode[createRequest](f)
}

func FuzzChangeRequest(f *testing.F) {
	seeds(f, `{"filter":{"user":"x"},"delete_policy":"keep"}`, `{"mode":"receive-only","view":{"tags":["a"],"hashes":["00"]},"publish":"approve"}`, `{"view":{},"mode":null}`, `{"limits":{"upload":1},"quota":7}`)
	fuzzDecode[changeRequest](f)
}

func FuzzLimitsRequest(f *testing.F) {
	seeds(f, `{"upload":1048576,"download":0}`, `{"upload":null}`, `{"upload":-1}`, `{"download":1e400}`)
	fuzzDecode[limitsChange](f)
}

func FuzzNamedRequest(f *testing.F) {
	seeds(f, `{"digests":["`+absentID+`","`+absentID+`"]}`, `{"digests":[null,"x"]}`, `{"digests":[[]]}`)
	fuzzDecode[namedRequest](f)
}

func FuzzInviteRequest(f *testing.F) {
	seeds(f, `{"access":"read","expires_in_secs":60,"can_invite":false,"member_for_secs":1}`)
	fuzzDecode[inviteRequest](f)
}

func FuzzJoinRequest(f *testing.F) {
	seeds(f, `{"ticket":"cansync1qqqq"}`)
	fuzzDecode[joinRequest](f)
}

// FuzzRequest sends anything to the whole handler: every answer is an envelope,
// and a request that does not name this sidecar has no effect.
func FuzzRequest(f *testing.F) {
	for _, c := range everyRoute(absentID) {
		if c[1] != "/events" {
			f.Add(c[0], c[1], testAddr, "", "application/json", []byte(c[2]))
		}
	}
	f.Add("GET", "//a/../b", "evil.example", "null", "", []byte{0xff})
	f.Add("OPTIONS", "*", "", "http://x", "text/plain", []byte("{}"))
	r := single(f)
	lib := r.create(f, "good", `{}`)
	f.Add("POST", "/libraries/"+lib.ID+"/invite", testAddr, "", "application/json", []byte(`{"access":"read"}`))
	f.Fuzz(func(t *testing.T, method, target, host, origin, kind string, body []byte) {
		req, err := http.NewRequest(method, "http://x"+target, strings.NewReader(string(body)))
		if err != nil || strings.HasPrefix(req.URL.Path, "/events") {
			return // no request at all, or an answer that is a stream
		}
		req.Host, req.RequestURI = host, target
		if origin != "" {
			req.Header["Origin"] = []string{origin}
		}
		req.Header["Content-Type"] = []string{kind}
		before := len(r.node.Libraries())
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		if method != http.MethodHead {
			check(t, w)
		}
		if host != testAddr && !strings.EqualFold(host, "localhost:3213") && w.Code < 400 {
			_, ok := map[string]bool{"[::1]:3213": true}[host]
			require.True(t, ok || strings.HasPrefix(host, "[::"), host)
		}
		if w.Code >= 400 {
			require.Len(t, r.node.Libraries(), before)
		}
		require.Zero(t, r.Panics())
		for _, l := range r.node.Libraries() { // keep it small
			if l.ID().String() != lib.ID {
				require.NoError(t, l.Leave(t.Context(), cansync.LeaveOptions{Purge: true, Confirm: l.Name()}))
			}
		}
	})
}
