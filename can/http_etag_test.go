package can_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/tier"
)

// changing is a service whose assets get another ETag, and another content if there is
// one, while they are being read.
type changing struct {
	rt  http.RoundTripper
	tag func(read int) int // of the n-th read of the asset, from 0

	from, to string // handles; to has the content behind all tags above 0
	reads    int
	changes  int
	last     string
}

func (c *changing) become(from, to string) {
	c.from, c.to, c.reads, c.changes, c.last = from, to, 0, 0, ""
}

func (c *changing) RoundTrip(req *http.Request) (*http.Response, error) {
	if !strings.HasSuffix(req.URL.Path, "/asset/"+c.from) {
		return c.rt.RoundTrip(req)
	}
	n := c.tag(c.reads)
	c.reads++
	if n > 0 {
		req = req.Clone(req.Context())
		req.URL.Path = strings.TrimSuffix(req.URL.Path, c.from) + c.to
	}
	resp, err := c.rt.RoundTrip(req)
	if err == nil {
		tag := fmt.Sprintf("%q", fmt.Sprint(n))
		if c.last != "" && tag != c.last {
			c.changes++
		}
		c.last = tag
		resp.Header.Set("ETag", tag)
	}
	return resp, err
}

// C-05: an asset whose ETag changes while it is read range by range. Each reading has
// the bytes of one version, whole again takes one read.
func TestETagsThatChangeMidWay(t *testing.T) {
	const quarters = 4
	size, assets := int64(tier.Of(4, 64))<<20, tier.Of(10, 200)
	each := func(n int) int { return n }
	third := func(n int) int { return n / 2 }
	for name, tc := range map[string]struct {
		tag     func(int) int
		content bool // changes too
		fault   cantest.ActionKind
		reads   int
		changes int
	}{
		"only the tag":                {each, false, 0, quarters, 3},
		"content too":                 {third, true, 0, quarters, 1},
		"behind a range not heeded":   {third, true, cantest.ActNoRange, quarters, 1},
		"between refusal and whole":   {each, true, cantest.ActRangeRefused, 2 * quarters, 7},
		"between wrong one and whole": {each, true, cantest.ActWrongRange, 2 * quarters, 7},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := cantest.New(cantest.Options{DiscardContent: true})
				ch := &changing{rt: s.RoundTripper(), tag: tc.tag}
				c := client(t, ch, can.HTTPOptions{})
				part := func(seed uint64, at, n int64) (d can.Digest) {
					r := cantest.Generated(seed, size)
					_, err := r.Seek(at, io.SeekStart)
					require.NoError(t, err)
					d, _, err = cantest.DigestOf(io.LimitReader(r, n))
					require.NoError(t, err)
					return d
				}
				read := func(handle string, at, n int64) can.Digest {
					rc, err := c.Open(t.Context(), handle, at, n)
					require.NoError(t, err)
					d, got, err := cantest.DigestOf(rc)
					require.NoError(t, err)
					require.Equal(t, n, got)
					require.NoError(t, rc.Close())
					return d
				}
				for i := range assets {
					before, after := uint64(2*i), uint64(2*i)
					if tc.content {
						after++
					}
					a := s.AddFunc(func() io.ReadSeeker { return cantest.Generated(before, size) }, can.Metadata{}, 0)
					b := a
					if tc.content {
						b = s.AddFunc(func() io.ReadSeeker { return cantest.Generated(after, size) }, can.Metadata{}, 0)
					}
					ch.become(a.Handle, b.Handle)
					var f *cantest.Injected
					if tc.fault != 0 {
						f = s.Inject(cantest.Fault{Route: cantest.RouteAsset, Action: cantest.Action{Kind: tc.fault}})
					}
					n := size / quarters
					for q := range int64(quarters) {
						got := read(a.Handle, 1+q*n, n-1)
						version := before
						if tc.tag(ch.reads-1) > 0 {
							version = after
						}
						require.Equal(t, part(version, 1+q*n, n-1), got, "the bytes of one version")
					}
					require.Equal(t, tc.reads, ch.reads, "one whole read instead at most")
					require.Equal(t, tc.changes, ch.changes)
					if f != nil {
						require.Equal(t, tc.reads, f.Fired())
						f.Remove()
					}
					require.Equal(t, part(after, 0, size), read(a.Handle, 0, size))
				}
				t.Logf("%d assets of %d MiB", assets, size>>20)
				require.NoError(t, s.Close())
			})
		})
	}
}
