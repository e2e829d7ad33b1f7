package api

import (
	"net/http"
	"testing"

	"github.com/cansync/cansync/can"
	tmem "github.com/cansync/cansync/transport/memory"
	"github.com/stretchr/testify/require"
)

func TestStatusAndPeers(t *testing.T) {
	r := single(t)
	s := get[statusView](t, r, "GET", "/status", "")
	require.Equal(t, r.node.PeerID().String(), s.PeerID)
	require.Equal(t, "http://127.0.0.1:3210/api/v1/can/0", s.Service.URL)
	require.True(t, s.Service.Healthy)
	require.Nil(t, s.Service.Error)
	require.Equal(t, "lan", s.Network)
	require.NotEmpty(t, s.Version)
	require.Zero(t, s.Libraries)
	require.Equal(t, clockView{}, s.Clock)
	require.Equal(t, "[]", string(r.call(t, "GET", "/peers", "").data))
	r.create(t, "x", `{}`)
	require.Equal(t, 1, get[statusView](t, r, "GET", "/status", "").Libraries)
}

func TestCreateCountsAndNamesUnknownHashes(t *testing.T) {
	r := single(t)
	one := r.can.Add([]byte("one"), can.Metadata{Application: "paste", Tags: []string{"a"}})
	r.can.Add([]byte("two"), can.Metadata{Application: "paste", Tags: []string{"b"}})
	r.can.Add([]byte("three"), can.Metadata{Application: "other", MIMEType: "image/png"})
	for filter, want := range map[string]int{
		`{}`: 3, `{"application":"paste"}`: 2, `{"application":"paste","tags":["b","c"]}`: 1,
		`{"mime_prefix":"image/"}`: 1, `{"application":"none"}`: 0, `{"application":"","tags":[],"user":"","mime_prefix":"","hashes":[]}`: 3,
		`{"hashes":["` + one.Handle + `"]}`: 1,
	} {
		v := r.create(t, "n", filter)
		require.NotNil(t, v.Matches, filter)
		require.Equal(t, want, *v.Matches, filter)
		require.Empty(t, v.UnknownHashes)
		require.Equal(t, "owner", v.Access)
	}
	v := r.create(t, "n", `{"hashes":["`+absentID+`"]}`)
	require.Equal(t, []string{absentID}, v.UnknownHashes)
	require.Equal(t, []string{absentID}, v.Filter.Hashes)
	require.Zero(t, *v.Matches)
	// A body without a filter selects everything, as one with an empty filter does.
	require.True(t, get[createdView](t, r, "POST", "/libraries", `{"name":"all"}`).Filter.IsZero())
}

func TestLibraryLifecycle(t *testing.T) {
	r := single(t)
	v := r.create(t, "my-pastes", `{"application":"paste"}`)
	require.Equal(t, v.libraryView, get[libraryView](t, r, "GET", "/libraries/"+v.ID, ""))
	require.Equal(t, []libraryView{v.libraryView}, get[[]libraryView](t, r, "GET", "/libraries", ""))
	members := get[[]memberView](t, r, "GET", "/libraries/"+v.ID+"/members", "")
	require.Len(t, members, 1)
	require.True(t, members[0].Self)

	require.Equal(t, "paused", get[libraryView](t, r, "POST", "/libraries/"+v.ID+"/pause", "").State)
	require.Equal(t, "synced", get[libraryView](t, r, "POST", "/libraries/"+v.ID+"/resume", "").State)

	changed := get[changedView](t, r, "PATCH", "/libraries/"+v.ID, `{"filter":{"user":"u"},"delete_policy":"trash"}`)
	require.Equal(t, "u", changed.Filter.User)
	require.Empty(t, changed.Filter.Application)

	// Purging the owner's keys takes the name; leaving keeps them.
	require.Equal(t, http.StatusConflict, r.call(t, "DELETE", "/libraries/"+v.ID+"?purge=true", "").code)
	require.Equal(t, http.StatusConflict, r.call(t, "DELETE", "/libraries/"+v.ID+"?purge=true&confirm=other", "").code)
	require.Len(t, get[[]libraryView](t, r, "GET", "/libraries", ""), 1)
	require.Equal(t, leftView{ID: v.ID, Name: "my-pastes", Purged: true},
		get[leftView](t, r, "DELETE", "/libraries/"+v.ID+"?purge=true&confirm=my-pastes", ""))
	require.Equal(t, http.StatusNotFound, r.call(t, "GET", "/libraries/"+v.ID, "").code)
	require.Equal(t, http.StatusNotFound, r.call(t, "DELETE", "/libraries/"+v.ID, "").code)

	w := r.create(t, "other", `{}`)
	require.False(t, get[leftView](t, r, "DELETE", "/libraries/"+w.ID, "").Purged)
	require.Equal(t, "[]", string(r.call(t, "GET", "/libraries", "").data))
}

func TestInvite(t *testing.T) {
	r := single(t)
	v := r.create(t, "x", `{}`)
	path := "/libraries/" + v.ID + "/invite"
	for body, want := range map[string][]string{
		``:                                     {"read", "write", "invite"},
		`{}`:                                   {"read", "write", "invite"},
		`{"access":"read"}`:                    {"read"},
		`{"access":"write"}`:                   {"read", "write"},
		`{"access":"write","can_invite":true}`: {"read", "write", "invite"},
		`{"can_invite":false}`:                 {"read", "write"},
	} {
		i := get[inviteView](t, r, "POST", path, body)
		require.Equal(t, want, i.Rights, body)
		require.InDelta(t, 7*24*3600, i.ExpiresInSecs, 5)
		require.Equal(t, "x", i.Name)
		require.Contains(t, i.Ticket, "cansync1")
	}
	i := get[inviteView](t, r, "POST", path, `{"expires_in_secs":60,"member_for_secs":3600}`)
	require.InDelta(t, 60, i.ExpiresInSecs, 5)
	require.NotNil(t, i.MemberUntil)
	for _, body := range []string{
		`{"access":"owner"}`, `{"access":""}`, `{"expires_in_secs":0}`, `{"expires_in_secs":-1}`,
		`{"expires_in_secs":9223372036854775807}`, `{"member_for_secs":0}`,
	} {
		require.Equal(t, http.StatusBadRequest, r.call(t, "POST", path, body).code, body)
	}
	// A request without a body needs no content type, but may have one.
	req := request("POST", path, "")
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	require.Equal(t, http.StatusOK, r.do(t, req).code)
}

func TestJoinAndSync(t *testing.T) {
	network := tmem.NewNetwork(tmem.Options{Directory: true})
	a, b := newRig(t, network, nil), newRig(t, network, nil)
	a.can.Add([]byte("hello"), can.Metadata{MIMEType: "image/png", Tags: []string{"t"}, Filename: "h.png"})
	lib := a.create(t, "shared-images", `{"mime_prefix":"image/"}`)
	ticket := get[inviteView](t, a, "POST", "/libraries/"+lib.ID+"/invite", "").Ticket

	joined := get[libraryView](t, b, "POST", "/join", `{"ticket":"`+ticket+`"}`)
	require.Equal(t, lib.ID, joined.ID)
	require.Equal(t, "shared-images", joined.Name)
	require.Equal(t, "image/", joined.Filter.MIMEPrefix)

	library := func(r *rig) libraryView { return get[libraryView](t, r, "GET", "/libraries/"+lib.ID, "") }
	b.eventually(t, "the asset arrives", func() bool {
		v := library(b)
		return v.State == "synced" && v.Synced == 1 && v.Access == "write"
	})
	b.can.Add([]byte("back"), can.Metadata{MIMEType: "image/gif"})
	b.node.Poll()
	a.eventually(t, "the other way", func() bool { v := library(a); return v.Synced == 2 && v.Peers == 1 })
	require.Equal(t, http.StatusConflict, b.call(t, "POST", "/join", `{"ticket":"`+ticket+`"}`).code)

	peers := get[[]peerView](t, a, "GET", "/peers", "")
	require.Len(t, peers, 1)
	require.Equal(t, b.node.PeerID().String(), peers[0].ID)
	require.Equal(t, []string{lib.ID}, peers[0].Libraries)
	require.Equal(t, "direct", peers[0].Connection)
	require.Len(t, get[[]memberView](t, b, "GET", "/libraries/"+lib.ID+"/members", ""), 2)

	// Pages of one, and the states.
	path := "/libraries/" + lib.ID + "/assets"
	first := get[assetsView](t, b, "GET", path+"?limit=1", "")
	require.Len(t, first.Items, 1)
	require.NotNil(t, first.Next)
	second := get[assetsView](t, b, "GET", path+"?limit=1&after="+*first.Next, "")
	require.Len(t, second.Items, 1)
	require.Nil(t, second.Next)
	require.NotEqual(t, first.Items[0].Digest, second.Items[0].Digest)
	require.Len(t, get[assetsView](t, b, "GET", path+"?state=have", "").Items, 2)
	require.Empty(t, get[assetsView](t, b, "GET", path+"?state=wanted", "").Items)

	one := first.Items[0]
	require.Equal(t, one, get[assetView](t, b, "GET", path+"/"+one.Digest, ""))
	require.NotNil(t, one.Hash)
	require.Equal(t, removedView{lib.ID, one.Digest}, get[removedView](t, b, "DELETE", path+"/"+one.Digest, ""))
	require.Equal(t, http.StatusNotFound, b.call(t, "DELETE", path+"/"+one.Digest, "").code)
	a.eventually(t, "the removal arrives", func() bool { return library(a).Assets == 1 })
	require.Equal(t, 2, a.can.Len(), "a removal keeps the copies")
}

func TestReaderMayNotWrite(t *testing.T) {
	network := tmem.NewNetwork(tmem.Options{Directory: true})
	a, b := newRig(t, network, nil), newRig(t, network, nil)
	a.can.Add([]byte("hello"), can.Metadata{})
	lib := a.create(t, "x", `{}`)
	ticket := get[inviteView](t, a, "POST", "/libraries/"+lib.ID+"/invite", `{"access":"read"}`).Ticket
	get[libraryView](t, b, "POST", "/join", `{"ticket":"`+ticket+`"}`)
	var digest string
	b.eventually(t, "the asset arrives", func() bool {
		v := get[libraryView](t, b, "GET", "/libraries/"+lib.ID, "")
		return v.Synced == 1 && v.Access == "read"
	})
	digest = get[assetsView](t, b, "GET", "/libraries/"+lib.ID+"/assets", "").Items[0].Digest
	for _, c := range [][3]string{
		{"POST", "/invite", ""}, {"PATCH", "", `{"filter":{}}`}, {"PATCH", "", `{"delete_policy":"trash"}`},
		{"DELETE", "/assets/" + digest, ""},
	} {
		require.Equal(t, http.StatusForbidden, b.call(t, c[0], "/libraries/"+lib.ID+c[1], c[2]).code, c)
	}
}

func TestWhileJoining(t *testing.T) {
	// Two networks: the joiner reaches nobody.
	a, b := single(t), single(t)
	lib := a.create(t, "far", `{"user":"u"}`)
	ticket := get[inviteView](t, a, "POST", "/libraries/"+lib.ID+"/invite", "").Ticket
	v := get[libraryView](t, b, "POST", "/join", `{"ticket":"  `+ticket+`\n"}`)
	require.Equal(t, "joining", v.State)
	require.Equal(t, "far", v.Name)
	require.Equal(t, "u", v.Filter.User)
	require.Equal(t, "none", v.Access)
	require.Equal(t, []libraryView{v}, get[[]libraryView](t, b, "GET", "/libraries", ""))
	require.Equal(t, v, get[libraryView](t, b, "POST", "/join", `{"ticket":"`+ticket+`"}`), "joining again changes nothing")
	for _, c := range [][3]string{
		{"POST", "/invite", ""}, {"GET", "/members", ""}, {"GET", "/assets", ""}, {"PATCH", "", `{"filter":{}}`},
	} {
		require.Equal(t, http.StatusConflict, b.call(t, c[0], "/libraries/"+lib.ID+c[1], c[2]).code, c)
	}
	require.Equal(t, "far", get[leftView](t, b, "DELETE", "/libraries/"+lib.ID, "").Name)
}
