package session

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/transport"
)

// outgoing returns a library of so many members, with a content that a visit is due for.
func outgoing(members int) (*Manager, *entry) {
	m := &Manager{book: newBook(), libs: make(map[[32]byte]*entry), tries: make(map[transport.PeerID]*try), poke: make(chan struct{}, 1)}
	e := newEntry(&Library{})
	for i := range members {
		e.members = append(e.members, transport.PeerID{byte(i + 1)})
	}
	e.fetched = time.Now()
	e.seek.want([32]byte{1}, time.Now(), members, func(time.Duration) time.Duration { return 0 })
	m.libs[e.lib.ID] = e
	return m, e
}

// The end of a visit makes room and wakes the dialler; until then there is nothing to
// look at.
func TestNobodyLooksForMembersWhileAllVisitsAreUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := outgoing(20)
		e.inquiries[&Inquiry{reach: true}] = true
		for i := range seekBatch {
			e.visits[transport.PeerID{byte(i + 1)}] = true
		}
		time.Sleep(time.Minute)
		ids, wait := m.outing(e)
		require.Empty(t, ids)
		require.Equal(t, planEvery, wait)
	})
}

// A member that greeted the node just before it was visited takes no visit's place.
func TestWhoIsLinkedIsNotVisited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := outgoing(20)
		w := &want{id: transport.PeerID{1}, visits: []*entry{e}}
		e.links[w.id] = &place{}
		m.begin(w)
		m.mu.Lock()
		m.stayedLocked(w)
		m.mu.Unlock()
		require.Empty(t, e.visits)
	})
}
