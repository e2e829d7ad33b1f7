package api

import (
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	tmem "github.com/cansync/cansync/transport/memory"
)

// two returns two nodes with a library that both are members of.
func two(t *testing.T) (a, b *rig, path string) {
	t.Helper()
	network := tmem.NewNetwork(tmem.Options{Directory: true})
	a, b = newRig(t, network, nil), newRig(t, network, nil)
	lib := a.create(t, "x", `{}`)
	path = "/libraries/" + lib.ID
	ticket := get[inviteView](t, a, "POST", path+"/invite", "").Ticket
	get[libraryView](t, b, "POST", "/join", `{"ticket":"`+ticket+`"}`)
	b.eventually(t, "b is a member", func() bool { return get[libraryView](t, b, "GET", path, "").Access == "write" })
	return a, b, path
}

func digestOf(b []byte) can.Digest { return sha256.Sum256(b) }

func TestDefaultsOfALibrary(t *testing.T) {
	v := single(t).create(t, "x", `{}`)
	require.Equal(t, []string{"sync", "auto", "keep"}, []string{v.Mode, v.Publish, v.DeletePolicy})
	require.True(t, v.View.IsZero())
}

func TestModes(t *testing.T) {
	a, b, path := two(t)
	change := func(r *rig, body string) changedView { return get[changedView](t, r, "PATCH", path, body) }
	for _, mode := range []string{"announce-only", "records-only", "paused", "sync", "receive-only"} {
		require.Equal(t, mode, change(b, `{"mode":"`+mode+`"}`).Mode)
		require.Equal(t, mode, get[libraryView](t, b, "GET", path, "").Mode)
	}
	require.Equal(t, "paused", get[libraryView](t, b, "POST", path+"/pause", "").Mode)
	require.Equal(t, "receive-only", get[libraryView](t, b, "POST", path+"/resume", "").Mode, "as before the pause")
	require.Equal(t, "sync", get[libraryView](t, a, "GET", path, "").Mode, "a mode is the node's own")

	// A node that only announces learns of assets and fetches none.
	change(b, `{"mode":"announce-only"}`)
	a.can.Add([]byte("from a"), can.Metadata{})
	a.node.Poll()
	b.eventually(t, "b learns of it", func() bool { return get[libraryView](t, b, "GET", path, "").Assets == 1 })
	b.can.Add([]byte("from b"), can.Metadata{})
	b.node.Poll()
	a.eventually(t, "a fetches b's", func() bool { return a.can.Len() == 2 })
	require.Equal(t, 1, b.can.Len())
	change(b, `{"mode":"sync"}`)
	b.eventually(t, "b fetches a's", func() bool { return b.can.Len() == 2 })
}

func TestView(t *testing.T) {
	a, b, path := two(t)
	v := get[changedView](t, b, "PATCH", path, `{"view":{"mime_prefix":"image/"}}`)
	require.Equal(t, "image/", v.View.MIMEPrefix)
	require.True(t, v.Filter.IsZero())
	a.can.Add([]byte("text"), can.Metadata{MIMEType: "text/plain"})
	a.can.Add([]byte("picture"), can.Metadata{MIMEType: "image/png"})
	a.node.Poll()
	synced := func(n int64) func() bool {
		return func() bool {
			v := get[libraryView](t, b, "GET", path, "")
			return v.Synced == n && v.Assets == n && v.State == "synced"
		}
	}
	b.eventually(t, "the picture arrives", synced(1))
	a.eventually(t, "a has both", func() bool { return get[libraryView](t, a, "GET", path, "").Assets == 2 })
	require.Equal(t, "image/png", get[assetsView](t, b, "GET", path+"/assets", "").Items[0].MIMEType)
	require.True(t, get[libraryView](t, a, "GET", path, "").View.IsZero(), "a view is the node's own")
	require.True(t, get[changedView](t, b, "PATCH", path, `{"view":{}}`).View.IsZero())
	b.eventually(t, "the text arrives", synced(2))
}

func TestApprovals(t *testing.T) {
	a, b, path := two(t)
	require.Equal(t, "approve", get[changedView](t, a, "PATCH", path, `{"publish":"approve"}`).Publish)
	var all []string
	for _, s := range []string{"one", "two", "three"} {
		d := digestOf([]byte(s))
		all = append(all, d.String())
		a.can.Add([]byte(s), can.Metadata{})
	}
	slices.Sort(all)
	a.node.Poll()
	pending := func() (out []string) {
		for next := ""; ; {
			page := get[approvalsView](t, a, "GET", path+"/approvals?limit=1"+next, "")
			require.LessOrEqual(t, len(page.Items), 1)
			for _, i := range page.Items {
				out = append(out, i.Digest)
			}
			if page.Next == nil {
				return out
			}
			next = "&after=" + *page.Next
		}
	}
	a.eventually(t, "three wait", func() bool { return slices.Equal(all, pending()) })
	require.Zero(t, get[libraryView](t, a, "GET", path, "").Assets)

	done := get[decidedView](t, a, "POST", path+"/approve", `{"digests":["`+all[0]+`"]}`)
	require.Equal(t, []string{all[0]}, done.Digests)
	get[decidedView](t, a, "POST", path+"/decline", `{"digests":["`+all[1]+`"]}`)
	require.Equal(t, all[2:], pending())
	b.eventually(t, "the approved one arrives", func() bool { return b.can.Len() == 1 })
	items := get[assetsView](t, a, "GET", path+"/assets", "").Items
	require.Len(t, items, 1)
	require.Equal(t, all[0], items[0].Digest)
	require.Empty(t, get[approvalsView](t, b, "GET", path+"/approvals", "").Items)
	require.Equal(t, "auto", get[libraryView](t, b, "GET", path, "").Publish)
}

func TestHolders(t *testing.T) {
	a, b, path := two(t)
	d := digestOf([]byte("hello")).String()
	require.Equal(t, http.StatusNotFound, a.call(t, "GET", path+"/assets/"+d+"/holders", "").code)
	require.Equal(t, http.StatusNotFound, a.call(t, "GET", path+"/assets/x/holders", "").code)
	get[changedView](t, b, "PATCH", path, `{"mode":"announce-only"}`)
	a.can.Add([]byte("hello"), can.Metadata{})
	a.node.Poll()
	b.eventually(t, "b knows of it", func() bool { return get[libraryView](t, b, "GET", path, "").Assets == 1 })
	holders := func(r *rig) []holderView { return get[[]holderView](t, r, "GET", path+"/assets/"+d+"/holders", "") }
	idA, idB := a.node.PeerID().String(), b.node.PeerID().String()
	require.Equal(t, []holderView{{ID: idA, Self: true}}, holders(a))
	require.Equal(t, []holderView{{ID: idA}}, holders(b))
	get[changedView](t, b, "PATCH", path, `{"mode":"sync"}`)
	a.eventually(t, "b holds it too", func() bool {
		return slices.Equal(holders(a), []holderView{{ID: idB}, {ID: idA, Self: true}})
	})
}

// TestChoicesWhileJoining sets what may be set before the node is a member.
func TestChoicesWhileJoining(t *testing.T) {
	a, b := single(t), single(t) // two networks: they never meet
	lib := a.create(t, "far", `{}`)
	path := "/libraries/" + lib.ID
	ticket := get[inviteView](t, a, "POST", path+"/invite", "").Ticket
	get[libraryView](t, b, "POST", "/join", `{"ticket":"`+ticket+`"}`)
	v := get[changedView](t, b, "PATCH", path, `{"mode":"receive-only","publish":"approve","view":{"user":"u"}}`)
	require.Equal(t, "joining", v.State)
	require.Equal(t, []string{"receive-only", "approve", "u"}, []string{v.Mode, v.Publish, v.View.User})
	// With something that takes a member, nothing is changed.
	require.Equal(t, http.StatusConflict, b.call(t, "PATCH", path, `{"mode":"sync","delete_policy":"keep"}`).code)
	require.Equal(t, "receive-only", get[libraryView](t, b, "GET", path, "").Mode)
	for _, c := range [][3]string{
		{"GET", "/approvals", ""}, {"POST", "/approve", `{"digests":["` + absentID + `"]}`}, {"GET", "/assets/" + absentID + "/holders", ""},
	} {
		require.Equal(t, http.StatusConflict, b.call(t, c[0], path+c[1], c[2]).code, c)
	}
}

// TestLocalChoicesTakeNoRight lets a reader choose for its own node, and nothing
// for the others.
func TestLocalChoicesTakeNoRight(t *testing.T) {
	network := tmem.NewNetwork(tmem.Options{Directory: true})
	a, b := newRig(t, network, nil), newRig(t, network, nil)
	path := "/libraries/" + a.create(t, "x", `{}`).ID
	ticket := get[inviteView](t, a, "POST", path+"/invite", `{"access":"read"}`).Ticket
	get[libraryView](t, b, "POST", "/join", `{"ticket":"`+ticket+`"}`)
	a.can.Add([]byte("hello"), can.Metadata{})
	b.eventually(t, "b is a member", func() bool { return get[libraryView](t, b, "GET", path, "").Synced == 1 })
	require.Equal(t, "receive-only", get[changedView](t, b, "PATCH", path, `{"mode":"receive-only"}`).Mode)
	require.Equal(t, http.StatusForbidden, b.call(t, "PATCH", path, `{"mode":"paused","delete_policy":"trash"}`).code)
	require.Equal(t, "receive-only", get[libraryView](t, b, "GET", path, "").Mode)
}

// TestWhyAnAssetHasNotCome shows states and causes as the library tells them.
func TestWhyAnAssetHasNotCome(t *testing.T) {
	a, b, path := two(t)
	add := func(content, user string) string {
		a.can.Add([]byte(content), can.Metadata{User: user})
		a.node.Poll()
		return path + "/assets/" + digestOf([]byte(content)).String()
	}
	shows := func(asset, state, cause string) (v assetView) {
		t.Helper()
		b.eventually(t, state+" "+cause, func() bool {
			ans := b.call(t, "GET", asset, "")
			if ans.code == http.StatusNotFound {
				return false
			}
			require.Equal(t, http.StatusOK, ans.code, ans.error)
			v = assetView{}
			require.NoError(t, json.Unmarshal(ans.data, &v))
			return v.State == state && (v.Cause == nil) == (cause == "") && (cause == "" || *v.Cause == cause)
		})
		return v
	}
	here := add("here", "u")
	require.Nil(t, shows(here, "have", "").Detail)

	get[changedView](t, b, "PATCH", path, `{"quota":5}`)
	large := add("too large", "u")
	require.Contains(t, *shows(large, "wanted", "no_space").Detail, "quota")
	get[changedView](t, b, "PATCH", path, `{"mode":"records-only"}`)
	get[changedView](t, b, "PATCH", path, `{"quota":0}`)
	require.Equal(t, "the mode is records-only", *shows(large, "not_wanted", "mode").Detail)
	require.Len(t, get[assetsView](t, b, "GET", path+"/assets?state=not_wanted", "").Items, 1)
	v := get[libraryView](t, b, "GET", path, "")
	require.Equal(t, "waiting", v.State)
	require.Equal(t, map[cansync.Cause]int64{cansync.ByMode: 1}, v.Causes)

	get[changedView](t, b, "PATCH", path, `{"view":{"user":"nobody"}}`)
	shows(here, "have", "outside_view")
	shows(large, "not_wanted", "outside_view")
	require.Empty(t, get[assetsView](t, b, "GET", path+"/assets", "").Items)
	get[changedView](t, b, "PATCH", path, `{"view":{}}`)

	refuse := b.can.Inject(cantest.Fault{Route: cantest.RouteIngest, Probability: 1, Action: cantest.Action{Kind: cantest.ActStatus, Status: http.StatusUnprocessableEntity}})
	get[changedView](t, b, "PATCH", path, `{"mode":"sync"}`)
	require.NotContains(t, *shows(large, "ingesting", "rejected").Detail, "can: ")
	require.Positive(t, refuse.Fired())
	refuse.Remove()

	get[changedView](t, b, "PATCH", path, `{"mode":"records-only"}`)
	gone := add("gone", "u")
	shows(gone, "not_wanted", "mode")
	require.NoError(t, a.node.Close())
	get[changedView](t, b, "PATCH", path, `{"mode":"sync"}`)
	require.NotNil(t, shows(gone, "wanted", "source_offline").OfflineSince)
}
