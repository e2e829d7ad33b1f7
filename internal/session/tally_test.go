package session

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cansync/cansync/transport"
)

func say(p part, holds func(i int) bool) []said {
	out := make([]said, len(p.at))
	for k, i := range p.at {
		out[k] = saidNo
		if holds(i) {
			out[k] = saidYes
		}
	}
	return out
}

// Whatever members say, the count of each content is that of the members who are
// noted as its holders, none of them for longer than an answer counts.
func TestTallyIsWhatMembersSaid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size, need := rapid.IntRange(1, 130).Draw(t, "size"), rapid.IntRange(0, 4).Draw(t, "need")
		tl := newTally(transport.PeerID{9}, size, need)
		now := time.Unix(1000, 0)
		holds := make(map[transport.PeerID][]bool)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			id := transport.PeerID{rapid.Byte().Draw(t, "id") % 4}
			if holds[id] == nil {
				holds[id] = make([]bool, size)
			}
			for range rapid.IntRange(0, 5).Draw(t, "changes") {
				i := rapid.IntRange(0, size-1).Draw(t, "i")
				holds[id][i] = !holds[id][i]
			}
			tl.meet(id, rapid.IntRange(0, size-1).Draw(t, "first"), now)
			p, wait := tl.next(id, now)
			require.LessOrEqual(t, len(p.at), maxAsk)
			require.Equal(t, len(p.at) == 0, wait > 0)
			once := make(map[int]bool)
			for _, i := range p.at {
				require.False(t, once[i], "asked twice in one question")
				once[i] = true
			}
			answered := rapid.IntRange(0, 9).Draw(t, "answered") > 0
			have := make([]said, len(p.at))
			if answered {
				have = say(p, func(i int) bool { return holds[id][i] })
			}
			tl.learn(id, p, have, answered, now)
			now = now.Add(time.Duration(rapid.IntRange(0, 200).Draw(t, "pause")) * time.Second)
			tl.expire(now)
			count, lacking := make([]int32, size), 0
			for _, v := range tl.voices {
				for i := range size {
					if v.has(i) {
						count[i]++
						require.LessOrEqual(t, now.Sub(v.at[i/64]), answerFor)
					}
				}
			}
			for _, n := range count {
				if int(n) < need {
					lacking++
				}
			}
			require.Equal(t, count, tl.count)
			require.Equal(t, lacking, tl.lacking)
		}
	})
}

// An inquiry ends with the truth: some time after members hold enough and while they
// do, and never before.
func TestTallyEndsWithTheTruth(t *testing.T) {
	const size, peers, need = 20000, 5, 2
	rng := rand.New(rand.NewPCG(1, 2))
	tl := newTally(transport.PeerID{9}, size, need)
	began := time.Unix(1000, 0)
	now := began
	var holds [peers][]bool
	for i := range holds {
		holds[i] = make([]bool, size)
	}
	for c := range size { // one holder each, the other comes later
		holds[rng.IntN(peers)][c] = true
	}
	asked := 0
	step := func() {
		for i := range peers {
			id := transport.PeerID{byte(i)}
			if tl.voices[id] == nil {
				tl.meet(id, rng.IntN(size), now)
			}
			for range 4 { // the pace of who answers
				p, _ := tl.next(id, now)
				asked += len(p.at)
				tl.learn(id, p, say(p, func(c int) bool { return holds[i][c] }), true, now)
			}
		}
		now = now.Add(time.Second)
		tl.expire(now)
	}
	for range 60 {
		step()
	}
	require.Equal(t, size, tl.lacking)
	asked = 0
	for range 540 {
		step()
	}
	require.Positive(t, tl.lacking)
	require.LessOrEqual(t, asked, peers*(540+60)*askSlow+2*size, "questions of an inquiry that waits")
	for c := range size {
		i := rng.IntN(peers)
		for holds[i][c] {
			i = (i + 1) % peers
		}
		holds[i][c] = true
	}
	since := now
	for tl.lacking > 0 {
		step()
		require.Less(t, now.Sub(since), 5*time.Minute)
	}
	t.Logf("all found after %v", now.Sub(since))
}

func TestTallyForgetsWhoHasNothingToSay(t *testing.T) {
	tl := newTally(transport.PeerID{9}, 10, 1)
	now := time.Unix(1000, 0)
	for i := range 200 {
		id := transport.PeerID{byte(i)}
		tl.meet(id, 0, now)
		p, _ := tl.next(id, now)
		tl.learn(id, p, say(p, func(int) bool { return i == 0 }), true, now)
		now = now.Add(30 * time.Second)
		tl.expire(now)
	}
	require.Less(t, len(tl.voices), 30)
	require.Equal(t, 10, tl.lacking)
}
