package announce

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
)

// An asset that can't be read is left alone for longer and longer when it is the only
// one, and tried again soon as long as the service may be to blame.
func TestWaitsForUnreadableAssets(t *testing.T) {
	waits := func(r *resting, handle string, n int, between func()) (d time.Duration) {
		for range n {
			as := can.Asset{Handle: handle}
			r.unread(as, false)
			d = time.Until(r.m[handle].due)
			time.Sleep(d)
			between()
		}
		return d
	}
	test := func(name string, f func(t *testing.T, r *resting)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &resting{}
				r.init()
				f(t, r)
			})
		})
	}
	test("nothing else is read", func(t *testing.T, r *resting) {
		require.Equal(t, maxDoubtful, waits(r, "a", 20, func() {}))
	})
	test("others are read", func(t *testing.T, r *resting) {
		require.Equal(t, maxReread, waits(r, "a", 20, func() { r.hasRead("b") }))
	})
	test("others come back", func(t *testing.T, r *resting) {
		n := 0
		require.Equal(t, maxDoubtful, waits(r, "a", 20, func() {
			if n++; n == 3 {
				r.unread(can.Asset{Handle: "b"}, false)
				r.hasRead("b")
				r.drop("b")
			}
			r.hasRead("c")
		}))
		require.Equal(t, maxReread, waits(r, "a", 100, func() { r.hasRead("c") }), "long ago")
	})
	test("one comes back while another rests", func(t *testing.T, r *resting) {
		waits(r, "a", 20, func() { r.hasRead("b") })
		r.unread(can.Asset{Handle: "a"}, false)
		require.Equal(t, maxReread, time.Until(r.m["a"].due))
		r.unread(can.Asset{Handle: "b"}, false)
		r.hasRead("b")
		require.Equal(t, maxDoubtful, time.Until(r.m["a"].due))
	})
	test("the service itself calls it corrupted", func(t *testing.T, r *resting) {
		for range 20 {
			r.unread(can.Asset{Handle: "a"}, true)
		}
		require.Equal(t, maxReread, time.Until(r.m["a"].due))
	})
}
