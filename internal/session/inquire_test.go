package session_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
)

func nobody(context.Context, can.Digest) (bool, error) { return false, nil }

// waitHeld turns an inquiry as its host does, until each content has enough holders. It
// returns how long that took.
func waitHeld(t *testing.T, n *node, need int, ds []can.Digest, most time.Duration) time.Duration {
	t.Helper()
	q, err := n.m.Inquire(n.lib.ID(), need, ds)
	require.NoError(t, err)
	defer q.Close()
	for began := time.Now(); ; {
		lacking, err := q.Turn(t.Context(), nobody)
		require.NoError(t, err)
		took := time.Since(began)
		if lacking == 0 {
			return took
		}
		require.Less(t, took, most, "%d of %d contents lack holders", lacking, len(ds))
		select {
		case <-time.After(time.Second):
		case <-q.News():
		}
	}
}

func (n *node) hold(held bool, names ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range names {
		n.has[digest(name)] = held
	}
}

// repeat returns a list of one content, which its holder has to look up as often.
func repeat(name string, n int) []can.Digest {
	ds := make([]can.Digest, n)
	for i := range ds {
		ds[i] = digest(name)
	}
	return ds
}

func TestAnInquiryAboutManyContentsEnds(t *testing.T) {
	most := 40000
	if testing.Short() {
		most /= 5
	}
	for _, n := range []int{1, 5000, most} {
		synctest.Test(t, func(t *testing.T) {
			net := memory.NewNetwork(memory.Options{Link: memory.Link{Latency: 20 * time.Millisecond}})
			opener, other, _, _ := couple(t, net)
			defer closeAll(opener, other)
			opener.say("here")
			time.Sleep(time.Second)
			ds := repeat("here", n)
			held := make(chan struct{})
			go func() {
				defer close(held)
				time.Sleep(2 * time.Minute)
				other.hold(true, "here")
			}()
			took := waitHeld(t, opener, 1, ds, 4*time.Minute)
			<-held
			require.GreaterOrEqual(t, took, 2*time.Minute, "nobody said so before")
			t.Logf("%d contents: all after %v", n, took)

			// One question after the other gets its answer, none is answered no.
			who, err := opener.m.Have(t.Context(), opener.lib.ID(), ds)
			require.NoError(t, err)
			for i := range who {
				require.Equal(t, []transport.PeerID{other.tr.ID()}, who[i])
			}
			require.Equal(t, 1, opener.links())
		})
	}
}

func TestSeveralInquiriesShareALink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		opener, other, _, _ := couple(t, net)
		defer closeAll(opener, other)
		opener.say("here")
		other.hold(true, "here")
		time.Sleep(time.Second)
		const inquiries, n = 4, 20000
		done := make(chan time.Duration, inquiries)
		for range inquiries {
			go func() { done <- waitHeld(t, opener, 1, repeat("here", n), 3*time.Minute) }()
		}
		for range inquiries {
			t.Logf("%d contents: %v", n, <-done)
		}
	})
}

// A yes ends with a no, and no answer is neither.
func TestWhatIsGoneIsLacking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		opener, other, _, _ := couple(t, net)
		opener.say("here")
		other.hold(true, "here")
		time.Sleep(time.Second)
		q, err := opener.m.Inquire(opener.lib.ID(), 1, []can.Digest{digest("here")})
		require.NoError(t, err)
		lacking := func() int {
			n, err := q.Turn(t.Context(), nobody)
			require.NoError(t, err)
			return n
		}
		await(t, 5*time.Second, "held", func() bool { return lacking() == 0 })
		other.hold(false, "here")
		await(t, 5*time.Second, "gone", func() bool { return lacking() == 1 })
		other.hold(true, "here")
		await(t, 5*time.Second, "held again", func() bool { return lacking() == 0 })

		// What was said counts for 10 minutes after the member is gone.
		other.close()
		time.Sleep(9 * time.Minute)
		require.Zero(t, lacking())
		time.Sleep(2 * time.Minute)
		require.Equal(t, 1, lacking())
		q.Close()
		opener.close()
	})
}

func TestWhoNeverAnswersOnlyDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		nodes := crowd(t, net, 3, 0)
		defer closeAll(nodes...)
		a, b, c := nodes[0], nodes[1], nodes[2]
		await(t, time.Minute, "all are linked", func() bool { return all(nodes, func(n *node) bool { return n.links() == 2 }) })
		c.mute.Store(true)
		a.say("here")
		for _, n := range []*node{b, c} {
			n.hold(true, "here")
		}
		time.Sleep(time.Second)
		took := waitHeld(t, a, 1, repeat("here", 4000), time.Minute)
		require.Less(t, took, 10*time.Second, "of the other's answer")
		before := c.muted.Load()
		require.Positive(t, before)

		q, err := a.m.Inquire(a.lib.ID(), 2, repeat("here", 200))
		require.NoError(t, err)
		defer q.Close()
		for began := time.Now(); time.Since(began) < 10*time.Minute; time.Sleep(time.Second) {
			lacking, err := q.Turn(t.Context(), nobody)
			require.NoError(t, err)
			require.Positive(t, lacking)
		}
		questions := c.muted.Load() - before
		t.Logf("%d questions in 10 minutes", questions)
		require.Positive(t, questions)
		require.Less(t, questions, int64(30), "who does not answer is asked ever more seldom")

		started := time.Now()
		who, err := a.m.Have(t.Context(), a.lib.ID(), repeat("here", 4000))
		require.NoError(t, err)
		require.Less(t, time.Since(started), 20*time.Second)
		require.Equal(t, []transport.PeerID{b.tr.ID()}, who[3999])
	})
}

// A flood of questions costs one that waits, and the last is answered.
func TestTheLastOfTooManyQuestionsIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		opener, other, open, _ := couple(t, net)
		defer closeAll(opener, other)
		opener.say("here")
		other.hold(true, "here")
		time.Sleep(time.Second)
		question := wire.AppendU16(wire.AppendU32(nil, 1<<30), 1024)
		for _, d := range repeat("nowhere", 1024) {
			question = append(question, d[:]...)
		}
		for range 100 {
			open(wire.AppendFrame(nil, 8, question))
		}
		who, err := opener.m.Have(t.Context(), opener.lib.ID(), []can.Digest{digest("here")})
		require.NoError(t, err)
		require.Len(t, who[0], 1)
		require.Equal(t, 1, opener.links())
	})
}

// A member is not told what lies outside the view that it asked for, but what it
// announced itself it knows.
func TestANarrowMemberIsAskedAboutItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memory.NewNetwork(memory.Options{})
		opener, other, _, _ := couple(t, net)
		defer closeAll(opener, other)
		opener.say("theirs")
		other.say("own")
		time.Sleep(time.Second)
		f := filter.Filter{MIMEPrefix: "image/"} // what is said is text
		require.NoError(t, other.lib.SetOwnView(t.Context(), f))
		other.m.SetView(other.lib.ID(), filter.View{f})
		time.Sleep(10 * time.Second)
		other.hold(true, "own", "theirs")
		who, err := opener.m.Have(t.Context(), opener.lib.ID(), []can.Digest{digest("own"), digest("theirs")})
		require.NoError(t, err)
		require.Equal(t, []transport.PeerID{other.tr.ID()}, who[0])
		require.Empty(t, who[1], "it is not asked")

		// Its own view does not keep it from asking who sees everything.
		opener.hold(true, "theirs")
		who, err = other.m.Have(t.Context(), other.lib.ID(), []can.Digest{digest("theirs")})
		require.NoError(t, err)
		require.Equal(t, []transport.PeerID{opener.tr.ID()}, who[0])
	})
}
