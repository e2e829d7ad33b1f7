package session

import (
	"math/bits"
	"time"

	"github.com/cansync/cansync/transport"
)

const (
	answerFor  = 10 * time.Minute // that an answer counts, and before a visit is repeated
	askSlow    = 256              // contents a second that a member is asked about without learning of holders
	lookSlow   = 4096             // and those that the node itself looks for
	askEvery   = time.Second      // before a member is asked about the same again
	askPassAll = time.Minute      // before a member that came back is asked about everything at once again
	silentMost = time.Minute      // pause after questions without answers
)

// tally is what an inquiry knows: who said when to hold what, and so of how many
// contents there are too few holders, and what to ask whom next. It knows no clock.
//
// Everybody is asked once about everything that still has too few holders, as fast
// as the answers come. From then on each yes that is new is free, of which
// there are few in 10 minutes, and what else is asked is paced: first what the
// member does not hold, then what it said to hold, whether it still does. So an
// inquiry about many contents that wait for a slow member costs some kilobytes a
// second, and is through soon after that member has everything.
type tally struct {
	need    int // holders of each content
	self    transport.PeerID
	count   []int32
	lacking int // contents with fewer holders
	voices  map[transport.PeerID]*voice
}

// voice is what one member said.
type voice struct {
	yes    []uint64
	at     []time.Time // of each word in yes: since when it counts
	cursor int         // the next content to ask about
	left   int         // contents that are yet to be asked about for the first time
	sure   int         // the next word to ask about again
	began  time.Time   // when everything was asked about last
	due    time.Time   // not asked before
	silent int         // questions in a row without an answer
}

func newTally(self transport.PeerID, contents, need int) *tally {
	t := &tally{self: self, need: need, count: make([]int32, contents), voices: make(map[transport.PeerID]*voice)}
	if need > 0 {
		t.lacking = contents
	}
	return t
}

// meet begins to ask a member, at some content: several members share the work when
// each begins at another.
func (t *tally) meet(id transport.PeerID, first int, now time.Time) {
	v := t.voices[id]
	if v == nil {
		words := (len(t.count) + 63) / 64
		v = &voice{yes: make([]uint64, words), at: make([]time.Time, words), cursor: first}
		t.voices[id] = v
	}
	if v.began.IsZero() || now.Sub(v.began) >= askPassAll {
		v.began, v.left, v.due, v.silent = now, len(t.count), now, 0
	}
}

// through reports whether the member was asked about everything.
func (t *tally) through(id transport.PeerID) bool {
	v := t.voices[id]
	return v == nil || v.left == 0
}

// silent reports whether the member left the last question without an answer.
func (t *tally) silent(id transport.PeerID) bool {
	v := t.voices[id]
	return v != nil && v.silent > 0
}

func (v *voice) has(i int) bool { return v.yes[i/64]&(1<<(i%64)) != 0 }

// part is what to ask a member in one question.
type part struct {
	at    []int // the contents
	first bool  // of the first pass
	all   bool  // all that the member does not hold is among them
}

// next returns what to ask a member now, or after how long to look again.
func (t *tally) next(id transport.PeerID, now time.Time) (p part, wait time.Duration) {
	v := t.voices[id]
	if v == nil { // the node itself, or forgotten since nothing was asked for long
		t.meet(id, 0, now)
		v = t.voices[id]
	}
	if wait := v.due.Sub(now); wait > 0 {
		return p, wait
	}
	p.first = v.left > 0
	n := v.left
	if !p.first {
		n = len(t.count)
	}
	for ; n > 0 && len(p.at) < maxAsk; n-- {
		if i := v.cursor; int(t.count[i]) < t.need && !v.has(i) {
			p.at = append(p.at, i)
		}
		v.cursor = (v.cursor + 1) % len(t.count)
	}
	if p.first {
		v.left = n
	} else {
		p.all = n == 0
		p.at = v.again(p.at, now)
	}
	if len(p.at) == 0 {
		return p, askEvery
	}
	return p, 0
}

// again adds some of what the member said to hold.
func (v *voice) again(at []int, now time.Time) []int {
	for n := len(v.yes); n > 0 && len(at)+64 <= askSlow; n-- {
		w := v.sure
		v.sure = (w + 1) % len(v.yes)
		if v.yes[w] == 0 || now.Sub(v.at[w]) < askEvery {
			continue
		}
		for rest := v.yes[w]; rest != 0; rest &= rest - 1 {
			at = append(at, 64*w+bits.TrailingZeros64(rest))
		}
	}
	return at
}

// learn takes note of what a member said; answered tells whether it answered at all.
func (t *tally) learn(id transport.PeerID, p part, have []said, answered bool, now time.Time) {
	v := t.voices[id]
	if v == nil || len(p.at) == 0 {
		return
	}
	fresh := 0
	again := make(map[int]uint64) // what was said again, by word
	for k, i := range p.at {
		w, bit := i/64, uint64(1)<<(i%64)
		switch held := v.has(i); {
		case have[k] == saidYes && held:
			again[w] |= bit
		case have[k] == saidYes:
			if v.yes[w] == 0 {
				v.at[w] = now
			}
			v.yes[w] |= bit
			fresh++
			t.add(i, 1)
		case have[k] == saidNo && held:
			v.yes[w] &^= bit
			t.add(i, -1)
		}
	}
	for w, said := range again {
		if said == v.yes[w] {
			v.at[w] = now
		}
	}
	if !answered {
		v.silent++
		v.due = now.Add(min(askEvery<<min(v.silent, 10), silentMost))
		return
	}
	v.silent = 0
	if p.first {
		return
	}
	each := time.Second / askSlow
	if id == t.self {
		each = time.Second / lookSlow
	}
	wait := time.Duration(len(p.at)-fresh) * each
	if p.all {
		wait = max(wait, askEvery)
	}
	v.due = now.Add(wait)
}

func (t *tally) add(i, n int) {
	was := int(t.count[i]) < t.need
	t.count[i] += int32(n)
	switch is := int(t.count[i]) < t.need; {
	case is && !was:
		t.lacking++
	case was && !is:
		t.lacking--
	}
}

// expire forgets what was said too long ago, and those who said nothing since.
func (t *tally) expire(now time.Time) {
	for id, v := range t.voices {
		holds := false
		for w, yes := range v.yes {
			if yes != 0 && now.Sub(v.at[w]) > answerFor {
				for rest := yes; rest != 0; rest &= rest - 1 {
					t.add(64*w+bits.TrailingZeros64(rest), -1)
				}
				v.yes[w] = 0
			}
			holds = holds || v.yes[w] != 0
		}
		if !holds && v.left == 0 && now.Sub(v.due) > answerFor {
			delete(t.voices, id)
		}
	}
}
