package cansync_test

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/tier"
	"github.com/cansync/cansync/transport/memory"
)

// C-10: what others put into the CAN Service is announced as the publish mode says,
// and never what lay outside the filters in force so far, however they change
// meanwhile.
func TestForeignIngestsUnderChangingFilters(t *testing.T) {
	types := []string{"image/png", "image/gif", "text/plain", "audio/ogg"}
	phases := []string{"image/", "image/png", "text/", "image/"}
	for _, c := range []struct {
		name    string
		mode    cansync.PublishMode
		hurried bool // the filter changes while what came before is still being looked at and fetched
	}{
		{"auto", cansync.PublishAuto, false}, {"auto during sync", cansync.PublishAuto, true},
		{"approve", cansync.PublishApprove, false}, {"approve during sync", cansync.PublishApprove, true},
	} {
		mode := c.mode
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := memory.NewNetwork(memory.Options{})
				a := newMachine(t, net, "a", cantest.Options{})
				b := newMachine(t, net, "b", cantest.Options{Rule: cantest.HashTimestamp})
				id := a.share(cansync.Filter{MIMEPrefix: phases[0]}, b)
				require.NoError(t, a.lib(id).SetPublishMode(mode))
				allowed, kind := map[can.Digest]bool{}, map[can.Digest]string{}
				n, each := 0, tier.Of(500, 5000)/len(phases)
				for _, prefix := range phases {
					require.NoError(t, a.lib(id).SetFilter(t.Context(), cansync.Filter{MIMEPrefix: prefix}))
					ingest := func() {
						b := fmt.Appendf(nil, "foreign %d", n)
						kind[digestOf(b)] = types[n%len(types)]
						a.svc.Add(b, can.Metadata{MIMEType: types[n%len(types)]})
						n++
					}
					for range each {
						ingest()
						if n%50 == 0 {
							time.Sleep(200 * time.Millisecond) // the next come while these are looked at
						}
					}
					for d, typ := range kind {
						if (cansync.Filter{MIMEPrefix: prefix}).Match(d, can.Metadata{MIMEType: typ}) {
							allowed[d] = true
						}
					}
					if !c.hurried {
						time.Sleep(time.Duration(1+n%3) * 2 * time.Minute)
					}
					synctest.Wait()
					for d := range b.svc.Digests() {
						require.True(t, mode == cansync.PublishAuto && allowed[d], "%s came under %s", kind[d], prefix)
					}
				}
				want := 0 // what matches the last filter
				var pending []can.Digest
				for d, typ := range kind {
					if (cansync.Filter{MIMEPrefix: "image/"}).Match(d, can.Metadata{MIMEType: typ}) {
						want++
					}
				}
				if mode == cansync.PublishApprove {
					eventually(t, "they wait", func() bool {
						pending = nil
						for d, err := range a.lib(id).Pending(t.Context()) {
							require.NoError(t, err)
							if allowed[d] && kind[d] != "text/plain" {
								pending = append(pending, d)
							}
							require.True(t, allowed[d], "%s was never asked for", kind[d])
						}
						return len(pending) == want
					})
					time.Sleep(time.Hour)
					synctest.Wait()
					require.Zero(t, b.svc.Len(), "nothing without consent")
					require.NoError(t, a.lib(id).Approve(t.Context(), pending[:want/10]...))
					want /= 10
				}
				images := func() (n int) {
					for d := range b.svc.Digests() {
						if kind[d] != "text/plain" {
							n++
						}
					}
					return n
				}
				eventually(t, "what may be there is there", func() bool { return images() == want })
				atRest(t, net, a, b)
				require.Equal(t, want, images())
				for d := range b.svc.Digests() {
					require.True(t, allowed[d])
				}
				a.close()
				b.close()
			})
		})
	}
}

// C-07: a CAN Service that changes behind the node's back, without an event, is
// understood within one full listing, also where the node or the service was down
// meanwhile or writes fail for some seconds.
func TestChangesBehindOurBack(t *testing.T) {
	n := tier.Of(200, 2000)
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		deaf := cantest.FeatureEvents | cantest.FeatureChangeEvents | cantest.FeatureChanges
		a := newMachine(t, net, "a", cantest.Options{Lacks: deaf})
		b := newMachine(t, net, "b", cantest.Options{Lacks: deaf})
		fill(a, "one", n)
		id := a.share(cansync.Filter{}, b)
		eventually(t, "b has all", func() bool { return b.svc.Len() == n })
		interval := 5*time.Minute + 30*time.Second
		for i, during := range []func(change func()){
			func(change func()) { change() },
			func(change func()) { a.stop(); change(); a.start() },
			func(change func()) {
				a.svc.SetDown(true)
				time.Sleep(time.Minute)
				change()
				a.svc.SetDown(false)
			},
			func(change func()) {
				change()
				fired := 0
				for range 40 { // 5 s each, until past the listing that finds the changes
					busy := b.svc.Inject(cantest.Fault{Probability: 1, Action: cantest.Action{Kind: cantest.ActStatus, Status: http.StatusServiceUnavailable}})
					time.Sleep(5 * time.Second)
					fired += busy.Fired()
					busy.Remove()
					time.Sleep(5 * time.Second)
				}
				require.Positive(t, fired)
			},
		} {
			text := fmt.Sprintf("changed in round %d", i)
			var edited, gone []can.Digest
			for k := range n / 20 {
				edited = append(edited, digestOf(fmt.Appendf(nil, "one %d", k)))
				gone = append(gone, digestOf(fmt.Appendf(nil, "one %d", n/2+k)))
			}
			handles := a.svc.Holdings()
			during(func() {
				for k := range edited {
					require.True(t, a.svc.Edit(handles[edited[k]][0].Handle, can.Update{Description: &text}))
					require.True(t, a.svc.Delete(handles[gone[k]][0].Handle))
				}
				a.svc.Add([]byte(text), can.Metadata{MIMEType: "image/png"})
			})
			time.Sleep(interval)
			synctest.Wait()
			at := b.metadata()
			for _, d := range edited {
				require.Equal(t, text, at[d].Description)
			}
			require.Contains(t, at, digestOf([]byte(text)))
			held := a.svc.Digests()
			for _, d := range gone {
				require.Equal(t, 1, held[d], "what was lost in round %d is fetched again, and removed nowhere", i)
				require.Contains(t, at, d)
				x, err := a.lib(id).Asset(t.Context(), d)
				require.NoError(t, err)
				require.Equal(t, cansync.Have, x.State)
			}
		}
		require.Equal(t, a.metadata(), b.metadata())
		a.close()
		b.close()
	})
}
