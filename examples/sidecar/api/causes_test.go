package api

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/inventory"
	tmem "github.com/cansync/cansync/transport/memory"
)

// pair is a library that two sidecars share, in virtual time.
type pair struct {
	*testing.T
	a, b *rig
	id   string
}

func (p pair) path() string { return "/libraries/" + p.id }

// add ingests a content at a.
func (p pair) add(seed uint64, size int64) string {
	b, err := io.ReadAll(cantest.Generated(seed, size))
	require.NoError(p, err)
	p.a.can.Add(b, can.Metadata{MIMEType: "image/png"})
	p.a.node.Poll()
	return digestOf(b).String()
}

// asset is what b says of an asset.
func (p pair) asset(digest string) assetView {
	return get[assetView](p.T, p.b, "GET", p.path()+"/assets/"+digest, "")
}

// shows waits until b shows a state and a cause, "" for none; the list says the same.
func (p pair) shows(digest, state, cause string) (v assetView) {
	p.Helper()
	for range 1200 {
		synctest.Wait()
		if got := p.b.call(p.T, "GET", p.path()+"/assets/"+digest, ""); got.code == http.StatusOK {
			v = p.asset(digest)
			if v.State == state && (v.Cause == nil && cause == "" || v.Cause != nil && *v.Cause == cause) {
				for _, one := range get[assetsView](p.T, p.b, "GET", p.path()+"/assets?state="+state, "").Items {
					if one.Digest == digest {
						require.Equal(p, v, one)
					}
				}
				return v
			}
		}
		time.Sleep(500 * time.Millisecond)
	}
	require.FailNow(p, "never "+state+" "+cause, "last %+v\n%s", v, p.b.log)
	return v
}

// set changes something at b.
func (p pair) set(body string) { get[changedView](p.T, p.b, "PATCH", p.path(), body) }

func (p pair) library() libraryView { return get[libraryView](p.T, p.b, "GET", p.path(), "") }

func (p pair) handle(r *rig, digest string) string {
	page, err := r.can.List(p.Context(), can.ListOptions{})
	require.NoError(p, err)
	for _, a := range page.Assets {
		if b, _ := r.can.Content(a.Handle); digestOf(b).String() == digest {
			return a.Handle
		}
	}
	require.FailNow(p, "content not there")
	return ""
}

// lie has a announce a content whose digest and BLAKE3 hash are of different bytes,
// as an altered node could.
func (p pair) lie() string {
	get[changedView](p.T, p.a, "PATCH", p.path(), `{"publish":"approve"}`)
	d := p.add(1, 200_000)
	digest, err := can.ParseDigest(d)
	require.NoError(p, err)
	p.a.eventually(p.T, "it waits", func() bool { return len(get[approvalsView](p.T, p.a, "GET", p.path()+"/approvals", "").Items) == 1 })
	other, err := io.ReadAll(cantest.Generated(2, 200_000))
	require.NoError(p, err)
	inv, sum := inventory.New(p.a.db), blob.Sum(other)
	items, err := inv.ByDigest(p.Context(), digest)
	require.NoError(p, err)
	require.Len(p, items, 1)
	items[0].Root = sum.Root
	require.NoError(p, inv.PutOutboard(p.Context(), digest, bytes.NewReader(sum.Outboard)))
	require.NoError(p, inv.Put(p.Context(), items[0]))
	require.True(p, p.a.can.Corrupt(items[0].Handle, other))
	get[decidedView](p.T, p.a, "POST", p.path()+"/approve", `{"digests":["`+d+`"]}`)
	return d
}

// Each cause is told for what it is, and goes when it has gone.
func TestCauses(t *testing.T) {
	for cause, story := range map[string]func(pair){
		"no_peer": func(p pair) {
			p.set(`{"mode":"records-only"}`)
			d := p.add(1, 1000)
			p.shows(d, "not_wanted", "mode")
			require.True(p, p.a.can.Delete(p.handle(p.a, d)))
			p.set(`{"mode":"sync"}`)
			require.Contains(p, *p.shows(d, "wanted", "no_peer").Detail, "no connected peer")
			require.Equal(p, "waiting", p.library().State)
			p.add(1, 1000)
			p.shows(d, "have", "")
		},
		"source_offline": func(p pair) {
			p.set(`{"mode":"records-only"}`)
			d := p.add(1, 1000)
			p.shows(d, "not_wanted", "mode")
			require.NoError(p, p.a.node.Close())
			left := time.Now()
			p.set(`{"mode":"sync"}`)
			v := p.shows(d, "wanted", "source_offline")
			require.NotNil(p, v.OfflineSince)
			since, err := time.Parse(time.RFC3339, *v.OfflineSince)
			require.NoError(p, err)
			require.WithinDuration(p, left, since, time.Minute)
			require.Equal(p, map[cansync.Cause]int64{cansync.NoPeer: 1}, p.library().Causes)
		},
		"service_down": func(p pair) {
			p.b.can.SetDown(true)
			d := p.add(1, 1000)
			p.shows(d, "wanted", "service_down")
			p.b.can.SetDown(false)
			p.shows(d, "have", "")
		},
		"rejected": func(p pair) {
			no := p.b.can.Inject(cantest.Fault{Route: cantest.RouteIngest, Probability: 1, Action: cantest.Action{Kind: cantest.ActStatus, Status: http.StatusUnprocessableEntity}})
			d := p.add(1, 1000)
			require.NotEmpty(p, *p.shows(d, "ingesting", "rejected").Detail)
			require.Positive(p, no.Fired())
			no.Remove()
			time.Sleep(30 * time.Minute)
			p.shows(d, "have", "")
		},
		"no_space": func(p pair) {
			p.set(`{"quota":999}`)
			d := p.add(1, 1000)
			require.Contains(p, *p.shows(d, "wanted", "no_space").Detail, "quota")
			p.set(`{"quota":0}`)
			p.shows(d, "have", "")
		},
		"bad_content": func(p pair) {
			d := p.lie()
			v := p.shows(d, "wanted", "bad_content")
			require.NotEmpty(p, *v.Detail)
			require.Zero(p, p.b.can.Len())
			l := p.library()
			require.Equal(p, map[cansync.Cause]int64{cansync.BadContent: 1}, l.Causes)
			require.Equal(p, "waiting", l.State)
		},
		"held": func(p pair) {
			var all []string
			for i := range 20 {
				all = append(all, p.add(uint64(i), 1000))
			}
			for _, d := range all {
				p.shows(d, "have", "")
			}
			for _, d := range all {
				require.NoError(p, p.b.can.Trash(p.Context(), p.handle(p.b, d)))
			}
			held := ""
			p.b.eventually(p.T, "some are held", func() bool {
				for _, a := range get[assetsView](p.T, p.b, "GET", p.path()+"/assets?state=trashed_here", "").Items {
					if a.Cause != nil && *a.Cause == "held" {
						held = a.Digest
					}
				}
				return held != ""
			})
			require.Equal(p, "held", p.library().State)
			l := p.library()
			require.EqualValues(p, l.Held, l.Trashed)
			require.EqualValues(p, l.Held, get[progressView](p.T, p.b, "GET", p.path()+"/progress", "").AssetsTrashed)
			get[libraryView](p.T, p.b, "POST", p.path()+"/removals/dismiss", "")
			p.shows(held, "trashed_here", "")
		},
		"outside_view": func(p pair) {
			here, beside := p.add(1, 1000), p.add(2, 1000)
			p.shows(here, "have", "")
			p.shows(beside, "have", "")
			p.set(`{"view":{"user":"nobody"}}`)
			p.shows(here, "have", "outside_view")
			require.True(p, p.b.can.Delete(p.handle(p.b, here)))
			time.Sleep(10 * time.Minute) // a full listing
			p.shows(here, "not_wanted", "outside_view")
			require.Empty(p, get[assetsView](p.T, p.b, "GET", p.path()+"/assets", "").Items)
			p.set(`{"view":{}}`)
			p.shows(here, "have", "")
		},
		"mode": func(p pair) {
			p.set(`{"mode":"announce-only"}`)
			d := p.add(1, 1000)
			require.Contains(p, *p.shows(d, "not_wanted", "mode").Detail, "announce-only")
			require.Equal(p, map[cansync.Cause]int64{cansync.ByMode: 1}, p.library().Causes)
			get[askedView](p.T, p.b, "POST", p.path()+"/fetch", fmt.Sprintf(`{"digests":[%q]}`, d))
			p.shows(d, "have", "")
		},
	} {
		t.Run(cause, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := tmem.NewNetwork(tmem.Options{Directory: true})
				p := pair{T: t, a: newRig(t, network, nil), b: newRig(t, network, nil)}
				p.id = p.a.create(t, "x", `{}`).ID
				ticket := get[inviteView](t, p.a, "POST", p.path()+"/invite", "").Ticket
				get[libraryView](t, p.b, "POST", "/join", `{"ticket":"`+ticket+`"}`)
				p.b.eventually(t, "b is a member", func() bool { return p.library().Access == "write" && p.library().Peers == 1 })
				story(p)
			})
		})
	}
}

// A membership that has ended is why nothing comes any more, and is marked as ended
// everywhere.
func TestTheCauseNotAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := tmem.NewNetwork(tmem.Options{Directory: true})
		p := pair{T: t, a: newRig(t, network, nil), b: newRig(t, network, nil)}
		p.id = p.a.create(t, "x", `{}`).ID
		ticket := get[inviteView](t, p.a, "POST", p.path()+"/invite", `{"access":"read","member_for_secs":3600}`).Ticket
		get[libraryView](t, p.b, "POST", "/join", `{"ticket":"`+ticket+`","mode":"records-only"}`)
		d := p.add(1, 1000)
		p.shows(d, "not_wanted", "mode")
		list := func(r *rig) (owner, reader memberView) {
			all := get[[]memberView](t, r, "GET", p.path()+"/members", "")
			require.Len(t, all, 2)
			return all[0], all[1]
		}
		for _, r := range []*rig{p.a, p.b} {
			owner, reader := list(r)
			require.Equal(t, []string{"owner", "read"}, []string{owner.Access, reader.Access})
			require.Equal(t, []bool{true, true, false, false}, []bool{owner.Connected, reader.Connected, owner.Ended, reader.Ended})
			require.Equal(t, []bool{r == p.a, r == p.b}, []bool{owner.Self, reader.Self})
		}
		require.Equal(t, "owner", get[libraryView](t, p.a, "GET", p.path(), "").Access)
		time.Sleep(2 * time.Hour)
		p.set(`{"mode":"sync"}`)
		require.Contains(t, *p.shows(d, "wanted", "not_allowed").Detail, "the membership ended on")
		l := p.library()
		require.Equal(t, "ended", l.State)
		require.NotNil(t, l.ExpiresAt)
		for _, r := range []*rig{p.a, p.b} {
			owner, reader := list(r)
			require.Equal(t, []bool{false, true}, []bool{owner.Ended, reader.Ended})
			require.Equal(t, l.ExpiresAt, reader.ExpiresAt)
		}
		require.Zero(t, p.b.can.Len())
	})
}

// What a reader trashed is told as that, counts as neither here nor on its way, and
// is fetched again when asked for.
func TestFetchOfWhatWasTrashedHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := tmem.NewNetwork(tmem.Options{Directory: true})
		p := pair{T: t, a: newRig(t, network, nil), b: newRig(t, network, nil)}
		p.id = p.a.create(t, "x", `{}`).ID
		ticket := get[inviteView](t, p.a, "POST", p.path()+"/invite", `{"access":"read"}`).Ticket
		get[libraryView](t, p.b, "POST", "/join", `{"ticket":"`+ticket+`"}`)
		d, other := p.add(1, 1000), p.add(2, 500)
		p.shows(d, "have", "")
		p.shows(other, "have", "")
		require.NoError(t, p.b.can.Trash(t.Context(), p.handle(p.b, d)))
		require.Nil(t, p.shows(d, "trashed_here", "").Hash)
		v := get[progressView](t, p.b, "GET", p.path()+"/progress", "")
		require.Equal(t, []int64{2, 1, 1, 1500, 500, 1000}, []int64{v.Assets, v.AssetsHere, v.AssetsTrashed, v.Bytes, v.BytesHere, v.BytesTrashed})
		l := p.library()
		require.Equal(t, []int64{2, 1, 1, 0}, []int64{l.Assets, l.Synced, l.Trashed, l.Pending})
		get[askedView](t, p.b, "POST", p.path()+"/fetch", fmt.Sprintf(`{"digests":[%q]}`, d))
		require.NotNil(t, p.shows(d, "have", "").Hash)
		v = get[progressView](t, p.b, "GET", p.path()+"/progress", "")
		require.Equal(t, []int64{2, 0, 1500}, []int64{v.AssetsHere, v.AssetsTrashed, v.BytesHere})
	})
}
