package session

import (
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/transport"
)

// In a library of more members than a node has neighbours, a content may be held by
// others alone: by one who announced it and has no room, while the neighbours keep
// records only, or want another part of the library. Then the node visits members
// that are no neighbours, one small batch after another, and asks what they hold.
//
// What limits the cost: contents spread from neighbour to neighbour first, so a
// search begins late, and later the more members there are; so whoever announced
// something in a crowd is not visited by all at once. The batches of a fruitless
// search come ever more seldom, and a member that was asked in vain is left alone
// for longer each time. A node that lacks nothing visits nobody.
const (
	maxSought     = maxAsk                 // contents sought in one library
	seekFirst     = 5 * time.Second        // until the first batch at least
	seekEach      = 100 * time.Millisecond // and for each member so much more, by chance
	seekLatest    = 10 * time.Minute       // but no more than that
	seekBatch     = 4                      // members visited at once
	seekGapEach   = time.Second            // between batches at most, for each member
	seekGapLeast  = 30 * time.Second       // but at least
	seekGapMost   = 10 * time.Minute       // and at most
	soughtFor     = 15 * time.Minute       // unless asked for again
	askFresh      = time.Minute            // before a member is asked about something new
	askAgainFirst = 10 * time.Minute       // before it is asked about the same
	askAgainMost  = 6 * time.Hour
)

// seek is the search for contents in one library: whom to visit when. It knows no
// clock. The zero value seeks nothing.
type seek struct {
	wants map[can.Digest]*sought
	asked map[transport.PeerID]asked
}

// sought is a content that no neighbour has.
type sought struct {
	since time.Time
	told  time.Time // when it was last said that it is lacking
	next  time.Time // when to visit somebody about it
	gap   time.Duration
}

// asked is what came of the visits to a member.
type asked struct {
	at, again time.Time
	vain      int // visits in a row of which nothing came
}

// want takes note that a content is lacking; draw returns a random duration below
// the one given. It reports whether the search is new.
func (s *seek) want(d can.Digest, now time.Time, members int, draw func(time.Duration) time.Duration) bool {
	if w := s.wants[d]; w != nil {
		w.told = now
		return false
	}
	if s.wants == nil {
		s.wants = make(map[can.Digest]*sought)
	}
	if len(s.wants) >= maxSought {
		return false // it is told of again when others are through
	}
	window := min(max(time.Duration(members)*seekEach, seekFirst), seekLatest)
	s.wants[d] = &sought{since: now, told: now, next: now.Add(seekFirst + draw(window)), gap: seekFirst}
	return true
}

// drop ends the search for a content.
func (s *seek) drop(d can.Digest) { delete(s.wants, d) }

// first returns the content that a visit is due for next, and forgets those of which
// nothing was heard for long.
func (s *seek) first(now time.Time) (d can.Digest, w sought, ok bool) {
	for id, one := range s.wants {
		switch {
		case now.Sub(one.told) > soughtFor:
			delete(s.wants, id)
		case !ok || one.next.Before(w.next):
			d, w, ok = id, *one, true
		}
	}
	return d, w, ok
}

// all returns what is sought.
func (s *seek) all() []can.Digest {
	out := make([]can.Digest, 0, len(s.wants))
	for d := range s.wants {
		out = append(out, d)
	}
	return out
}

// batch takes note that members were chosen to be visited, who are asked about
// everything that is sought.
func (s *seek) batch(now time.Time, members int) {
	most := min(max(time.Duration(members)*seekGapEach, seekGapLeast), seekGapMost)
	for _, w := range s.wants {
		if next := now.Add(w.gap); next.After(w.next) {
			w.next = next
		}
		w.gap = min(2*w.gap, most)
	}
}

// may reports whether to ask a member about something sought since a time.
func (s *seek) may(id transport.PeerID, since, now time.Time) bool {
	a, ok := s.asked[id]
	switch {
	case !ok:
		return true
	case a.at.Before(since):
		return now.Sub(a.at) >= askFresh
	}
	return !now.Before(a.again)
}

// went takes note of a visit, and whether something came of it.
func (s *seek) went(id transport.PeerID, now time.Time, fruit bool) {
	if s.asked == nil {
		s.asked = make(map[transport.PeerID]asked)
	}
	a, known := s.asked[id]
	if !known && len(s.asked) >= maxTries {
		for old := range s.asked {
			delete(s.asked, old)
			break
		}
	}
	if fruit {
		s.asked[id] = asked{at: now, again: now}
		return
	}
	a.at, a.again = now, now.Add(min(askAgainFirst<<min(a.vain, 16), askAgainMost))
	a.vain++
	s.asked[id] = a
}
