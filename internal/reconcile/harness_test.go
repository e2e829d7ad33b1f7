package reconcile

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/stretchr/testify/require"
)

var testKey = Key{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

func source(seed uint64) *rand.ChaCha8 {
	var b [32]byte
	binary.LittleEndian.PutUint64(b[:], seed)
	return rand.NewChaCha8(b)
}

func randomIDs(src *rand.ChaCha8, n int) []ID {
	ids := make([]ID, n)
	for i := range ids {
		_, _ = src.Read(ids[i][:])
	}
	return ids
}

// replica is a host: its records, their symbols, and what sessions told it.
type replica struct {
	ids    map[ID]bool
	sorted []ID
	set    *Set
	cfg    Config
	page   int // ids per page of a scan

	missing, surplus map[ID]bool
}

func newReplica(key Key, prefix int, ids ...[]ID) *replica {
	r := &replica{ids: map[ID]bool{}, set: NewSet(key, prefix), page: ScanPage,
		missing: map[ID]bool{}, surplus: map[ID]bool{}}
	for _, some := range ids {
		for _, id := range some {
			r.insert(id)
		}
	}
	return r
}

func (r *replica) insert(id ID) {
	if !r.ids[id] {
		r.ids[id] = true
		r.sorted = nil
		r.set.Insert(id)
	}
}

func (r *replica) scan(sc *Scan) ([]ID, bool) {
	if r.sorted == nil {
		r.sorted = slices.SortedFunc(maps.Keys(r.ids), compare)
	}
	at, _ := slices.BinarySearchFunc(r.sorted, sc.From, compare)
	rest := r.sorted[at:]
	n := min(r.page, sc.Limit)
	if len(rest) <= n {
		return rest, true
	}
	return rest[:n], false
}

// meeting runs one session between two hosts, every message through the codec.
type meeting struct {
	t        require.TestingT
	a, b     *replica // initiator, responder
	sa, sb   *Session
	messages int
	bytes    int
	bulkA    *Bulk
	bulkB    *Bulk
	listed   *replica // who listed its ids
	tamper   func(toInitiator bool, msg []byte) []byte
	between  func() // called before each page of a scan
}

func (m *meeting) run() error {
	t := m.t
	var first []byte
	var err error
	m.sa, first, err = NewInitiator(m.a.set.Snapshot(), m.a.cfg)
	require.NoError(t, err)
	m.sb, err = NewResponder(m.b.set.Snapshot(), m.b.cfg)
	require.NoError(t, err)
	toB, toA := [][]byte{first}, [][]byte(nil)
	doneA, doneB := false, false
	apply := func(r *replica, s *Session, step Step, out *[][]byte, bulk **Bulk) (bool, error) {
		for {
			*out = append(*out, step.Send...)
			for _, id := range step.Missing {
				require.False(t, r.missing[id], "id told twice")
				r.missing[id] = true
			}
			for _, id := range step.Surplus {
				require.False(t, r.surplus[id], "id told twice")
				r.surplus[id] = true
			}
			if step.Bulk != nil {
				*bulk = step.Bulk
				require.True(t, step.Done)
			}
			if step.Scan == nil {
				return step.Done, nil
			}
			require.False(t, step.Done)
			if m.between != nil {
				m.between()
			}
			ids, end := r.scan(step.Scan)
			var err error
			if step, err = s.Supply(ids, end); err != nil {
				return false, err
			}
		}
	}
	for len(toA)+len(toB) > 0 {
		require.Less(t, m.messages, 100_000, "the session does not end")
		queue, s, r, out, done, bulk := &toB, m.sb, m.b, &toA, &doneB, &m.bulkB
		if len(toB) == 0 {
			queue, s, r, out, done, bulk = &toA, m.sa, m.a, &toB, &doneA, &m.bulkA
		}
		msg := (*queue)[0]
		*queue = (*queue)[1:]
		if m.tamper != nil {
			if msg = m.tamper(s == m.sa, msg); msg == nil {
				continue
			}
		}
		m.messages++
		m.bytes += len(msg)
		require.LessOrEqual(t, len(msg), MaxMessage)
		if decoded, err := decode(msg); err == nil {
			require.Equal(t, msg, decoded.encode(), "decode and encode again")
		}
		if len(msg) > 1 && msg[1] == kindPage {
			m.listed = m.a
			if s == m.sa {
				m.listed = m.b
			}
		}
		step, err := s.Handle(msg)
		if err != nil {
			return err
		}
		d, err := apply(r, s, step, out, bulk)
		if err != nil {
			return err
		}
		*done = *done || d
	}
	require.True(t, doneA, "initiator is not done")
	require.True(t, doneB, "responder is not done")
	return nil
}

// push has both hosts push what the session told them to.
func (m *meeting) push() {
	move := func(from, to *replica, bulk *Bulk) {
		for id := range from.surplus {
			if from.ids[id] {
				to.insert(id)
			}
		}
		if bulk != nil && bulk.Push {
			for id := range from.ids {
				if compare(id, bulk.PushFrom) >= 0 {
					to.insert(id)
				}
			}
		}
		from.surplus, from.missing = map[ID]bool{}, map[ID]bool{}
	}
	move(m.a, m.b, m.bulkA)
	move(m.b, m.a, m.bulkB)
	m.a.missing = map[ID]bool{}
}
