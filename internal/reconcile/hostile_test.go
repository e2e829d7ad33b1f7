package reconcile

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func pair(seed uint64, prefix, both, onlyA, onlyB int) (a, b *replica, idsA, idsB []ID) {
	src := source(seed)
	common := randomIDs(src, both)
	idsA, idsB = randomIDs(src, onlyA), randomIDs(src, onlyB)
	return newReplica(testKey, prefix, common, idsA), newReplica(testKey, prefix, common, idsB), idsA, idsB
}

// spoil damages the sums of symbols of the attempts given.
func spoil(count *int, attempts ...byte) func(bool, []byte) []byte {
	return func(_ bool, msg []byte) []byte {
		if msg[1] == kindSymbols && slices.Contains(attempts, msg[2]) {
			*count++
			msg = slices.Clone(msg)
			msg[len(msg)-fixedSize/2] ^= 0x40
			msg[30] ^= 0x40
		}
		return msg
	}
}

// A first attempt that cannot be decoded is repeated under a fresh key, and that
// one by listing; the result is exact either way.
func TestFallsBackToFreshKeyThenListing(t *testing.T) {
	for _, c := range []struct {
		name           string
		attempts       []byte
		onlyA, onlyB   int
		listed, aLists bool
	}{
		{"library key spoiled", []byte{0}, 30, 40, false, false},
		{"both keys spoiled, responder smaller", []byte{0, 1}, 40, 30, true, false},
		{"both keys spoiled, initiator smaller", []byte{0, 1}, 30, 40, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b, idsA, idsB := pair(11, 256, 3000, c.onlyA, c.onlyB)
			spoiled := 0
			m := &meeting{t: t, a: a, b: b, tamper: spoil(&spoiled, c.attempts...)}
			require.NoError(t, m.run())
			require.Positive(t, spoiled)
			st := m.sa.Stats()
			require.True(t, st.Rekeyed)
			require.Equal(t, c.listed, st.Listed)
			require.LessOrEqual(t, st.Symbols, 2*(8*200+256))
			know, other := a, b
			wantMissing, wantSurplus := idsB, idsA
			if c.aLists {
				know, other = b, a
				wantMissing, wantSurplus = idsA, idsB
			}
			require.Equal(t, setOf(wantMissing), know.missing)
			require.Equal(t, setOf(wantSurplus), know.surplus)
			require.Equal(t, setOf(wantMissing), other.surplus)
		})
	}
}

// Symbols that do not match the ids they stand for (the host forgot one, or told it
// twice) make no session wrong: the scan is right.
func TestDamagedSetIsSeenThrough(t *testing.T) {
	a, b, idsA, idsB := pair(12, 0, 2000, 50, 50)
	a.set.symbols[0].sum[0] ^= 1 << 40
	a.set.symbols[17].count++
	m := &meeting{t: t, a: a, b: b}
	require.NoError(t, m.run())
	require.True(t, m.sa.Stats().Rekeyed)
	require.Equal(t, setOf(idsB), a.missing)
	require.Equal(t, setOf(idsA), a.surplus)
}

// The set may change while a session scans it: what is found is what the snapshots differ in.
func TestSetChangesDuringSession(t *testing.T) {
	for _, changes := range []int{3, 400} {
		a, b, idsA, idsB := pair(13, 64, 4000, 600, 700)
		a.page, b.page = 500, 700
		if changes > 100 { // more than the prefix can make good
			a.page, b.page = 4096, 4096
		}
		src := source(14)
		scans, fresh := 0, map[ID]bool{}
		m := &meeting{t: t, a: a, b: b, between: func() {
			scans++
			if scans > 20 || changes > 100 && scans > 2 {
				return
			}
			for _, id := range randomIDs(src, changes) {
				fresh[id] = true
				a.insert(id)
				b.insert(id)
			}
		}}
		require.NoError(t, m.run())
		require.NotEmpty(t, fresh)
		require.Equal(t, changes > 100, m.sa.Stats().Rekeyed)
		for id := range fresh { // only a fresh start may see them, on one side
			delete(a.missing, id)
			delete(a.surplus, id)
		}
		require.Equal(t, setOf(idsB), a.missing)
		require.Equal(t, setOf(idsA), a.surplus)
	}
}

// forger answers an initiator with whatever a test makes up.
type forger struct {
	t      *testing.T
	r      *replica
	s      *Session
	step   Step
	out    [][]byte // sent since last taken
	err    error
	sent   int
	symbol func(i int, attempt int) symbol
}

func newForger(t *testing.T, n int) *forger {
	r := newReplica(testKey, 0, randomIDs(source(20), n))
	f := &forger{t: t, r: r}
	var err error
	f.s, _, err = NewInitiator(r.set.Snapshot(), r.cfg)
	require.NoError(t, err)
	return f
}

func (f *forger) give(m message) {
	f.t.Helper()
	f.step, f.err = f.s.Handle(m.encode())
	for f.err == nil {
		f.out = append(f.out, f.step.Send...)
		if f.step.Scan == nil {
			break
		}
		ids, end := f.r.scan(f.step.Scan)
		f.step, f.err = f.s.Supply(ids, end)
	}
}

// take returns the last message sent since it was called before.
func (f *forger) take() message {
	f.t.Helper()
	require.NotEmpty(f.t, f.out)
	m, err := decode(f.out[len(f.out)-1])
	require.NoError(f.t, err)
	f.out = nil
	return m
}

func (f *forger) run(attempt, from, n int) {
	for n > 0 && f.err == nil {
		m := symbolsMsg{attempt: attempt, from: from, size: 1 << 39}
		for range min(n, chunkSymbols) {
			m.symbols = append(m.symbols, f.symbol(from, attempt))
			from++
			n--
			f.sent++
		}
		if m.from == 0 {
			m.symbols[0].count = m.size
		}
		m.left = n
		f.give(m)
	}
}

// D-05: a peer that never lets decoding end is cut at the caps, and its listing too.
func TestEndlessGarbageIsBounded(t *testing.T) {
	src := source(21)
	h := newHasher(testKey)
	for name, make := range map[string]func(i int, attempt int) symbol{
		"random": func(i, _ int) symbol {
			id := randomIDs(src, 1)[0]
			return symbol{sum: words(&id), check: src.Uint64(), count: int64(src.Uint64() >> 26)}
		},
		"pure": func(i, _ int) symbol { // every symbol claims to hold a single id
			id := randomIDs(src, 1)[0]
			check, _ := h.hash(&id)
			return symbol{sum: words(&id), check: check, count: 1}
		},
		"zero": func(int, int) symbol { return symbol{} },
		"same": func(int, int) symbol {
			id := ID{9}
			check, _ := h.hash(&id)
			return symbol{sum: words(&id), check: check, count: 1}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newForger(t, 500)
			f.symbol = make
			f.run(0, 0, maxRun)
			rounds := 0
			for f.err == nil {
				rounds++
				require.Less(t, rounds, 1000)
				switch m := f.take().(type) {
				case moreMsg:
					f.run(m.attempt, m.from, m.n)
				case rekeyMsg:
					f.give(rekeyedMsg{})
				case pageMsg: // it lists: want everything, then let it end
					f.give(wantMsg{n: len(m.ids), bits: slices.Repeat([]byte{0}, (len(m.ids)+7)/8)})
					require.NoError(t, f.err)
					require.True(t, f.step.Done)
				default:
					t.Fatalf("unexpected %T", m)
				}
				if f.step.Done {
					break
				}
			}
			require.NoError(t, f.err)
			st := f.s.Stats()
			require.True(t, st.Rekeyed)
			require.True(t, st.Listed)
			require.LessOrEqual(t, f.sent, 2*MaxPrefix)
			require.LessOrEqual(t, st.Work, 2*(32<<20))
			require.Nil(t, f.s.pull.dec, "memory is let go")
		})
	}
}

// Decoding crafted symbols takes a number of operations in proportion to them.
func TestDecoderWorkIsBounded(t *testing.T) {
	src := source(22)
	h := newHasher(testKey)
	cells := make([]symbol, MaxPrefix)
	for i := range cells {
		id := randomIDs(src, 1)[0]
		check, _ := h.hash(&id)
		cells[i] = symbol{sum: words(&id), check: check, count: 1 - 2*int64(i%2)}
	}
	d := newDecoder(h, 32<<20)
	require.ErrorIs(t, d.add(cells, make([]symbol, len(cells))), errCorrupt)
	require.Less(t, d.ops, 64*MaxPrefix)

	d = newDecoder(h, 1000)
	all := make([]symbol, MaxPrefix)
	for _, id := range randomIDs(src, 5000) {
		h.addAll(all, &id, 1)
	}
	require.ErrorIs(t, d.add(all, make([]symbol, len(all))), errWork)
	require.Less(t, d.ops, 70_000)

	// First cell empty, others not: no two sets differ so.
	d = newDecoder(h, 1000)
	require.NoError(t, d.add([]symbol{{}, {check: 1}}, make([]symbol, 2)))
	_, err := d.done()
	require.ErrorIs(t, err, errCorrupt)
}

func TestEndlessListingIsCut(t *testing.T) {
	f := newForger(t, 500)
	next := uint64(0)
	for range 100 {
		p := pageMsg{}
		for range pageIDs {
			next++
			p.ids = append(p.ids, ID{byte(next >> 24), byte(next >> 16), byte(next >> 8), byte(next)})
		}
		if f.give(p); f.err != nil {
			break
		}
	}
	require.ErrorIs(t, f.err, ErrBudget)
	require.LessOrEqual(t, next, uint64(2*500+ScanPage+pageIDs))
	_, err := f.s.Handle(equalMsg{}.encode())
	require.ErrorIs(t, err, ErrBudget, "and stays so")
}

// What breaks the protocol is an error, and no more.
func TestProtocolViolations(t *testing.T) {
	ids := randomIDs(source(23), pageIDs+10)
	slices.SortFunc(ids, compare)
	reversed := slices.Clone(ids[:3])
	slices.Reverse(reversed)
	some, sized := make([]symbol, 8), make([]symbol, 8)
	sized[0].count = 9
	initiator := map[string][]message{
		"reversed page":        {pageMsg{ids: reversed, last: true}},
		"duplicate ids":        {pageMsg{ids: []ID{ids[1], ids[1]}, last: true}},
		"page goes back":       {pageMsg{ids: ids[10:]}, pageMsg{ids: ids[:5], last: true}},
		"short page":           {pageMsg{ids: ids[:5]}},
		"hello":                {hello{counts: make([]int64, helloCounts)}},
		"more":                 {moreMsg{n: 1}},
		"rekeyed":              {rekeyedMsg{}},
		"abort":                {abortMsg{}},
		"abort of another":     {symbolsMsg{symbols: sized, size: 9}, abortMsg{attempt: 1}},
		"no symbols":           {symbolsMsg{}},
		"thin run":             {symbolsMsg{symbols: some, left: 8}},
		"size contradicted":    {symbolsMsg{symbols: some, size: 9}},
		"symbols ahead":        {symbolsMsg{symbols: some, from: 1}},
		"wrong attempt":        {symbolsMsg{symbols: some, attempt: 1}},
		"answer without page":  {wantMsg{}},
		"more than asked":      {symbolsMsg{symbols: sized, size: 9}, symbolsMsg{symbols: make([]symbol, chunkSymbols), left: maxRun, from: 8, size: 9}},
		"bulk refused":         {bulk{want: new(ID)}},
		"answer of wrong size": {listMsg{}, wantMsg{n: 3, bits: []byte{0}}},
	}
	for name, messages := range initiator {
		t.Run("initiator/"+name, func(t *testing.T) {
			f := newForger(t, 500)
			if name == "bulk refused" {
				f.s.resume = new(ID)
			}
			for i, m := range messages {
				require.NoError(t, f.err, "before message %d", i)
				f.give(m)
			}
			require.ErrorIs(t, f.err, ErrProtocol)
		})
	}
	hi := func(r *replica) message {
		other := newReplica(testKey, 0, ids[:450])
		for id := range r.ids {
			other.insert(id)
		}
		snap := other.set.Snapshot()
		return hello{digest: snap.digest, counts: snap.counts()}
	}
	for name, messages := range map[string][]message{
		"run skipped":       {moreMsg{from: 9999, n: 5}},
		"empty run":         {moreMsg{from: 1, n: 0}},
		"wrong attempt":     {moreMsg{attempt: 1, n: 5}},
		"equal":             {equalMsg{}},
		"hello again":       {hello{counts: make([]int64, helloCounts)}},
		"too many requests": {requestMsg{ids: ids[:pageIDs]}},
		"thin requests":     {requestMsg{ids: ids[:5]}},
		"two rekeys":        {rekeyMsg{}, rekeyMsg{}},
	} {
		t.Run("responder/"+name, func(t *testing.T) {
			r := newReplica(testKey, 0, randomIDs(source(20), 5000))
			f := &forger{t: t, r: r}
			var err error
			f.s, err = NewResponder(r.set.Snapshot(), r.cfg)
			require.NoError(t, err)
			f.give(hi(r))
			for i, m := range messages {
				require.NoError(t, f.err, "before message %d", i)
				f.give(m)
			}
			require.ErrorIs(t, f.err, ErrProtocol)
		})
	}
	// A run beyond the cap is declined, not an error: the initiator may think otherwise.
	r := newReplica(testKey, 0, randomIDs(source(20), 5000))
	f := &forger{t: t, r: r}
	var err error
	f.s, err = NewResponder(r.set.Snapshot(), r.cfg)
	require.NoError(t, err)
	f.give(hi(r))
	for f.err == nil {
		if _, ok := f.take().(symbolsMsg); !ok {
			break
		}
		f.give(moreMsg{from: f.s.server.sent, n: maxRun})
	}
	require.NoError(t, f.err)
	require.Equal(t, abortMsg{}.encode(), f.step.Send[0])
	require.LessOrEqual(t, f.s.server.sent, MaxPrefix)
}

func TestScanErrors(t *testing.T) {
	start := func() (*Session, []ID) {
		r := newReplica(testKey, 0, randomIDs(source(24), 50))
		s, _, err := NewInitiator(r.set.Snapshot(), Config{})
		require.NoError(t, err)
		step, err := s.Handle(listMsg{}.encode())
		require.NoError(t, err)
		ids, end := r.scan(step.Scan)
		require.True(t, end)
		return s, slices.Clone(ids)
	}
	s, ids := start()
	slices.Reverse(ids)
	_, err := s.Supply(ids, true)
	require.ErrorIs(t, err, ErrScan)
	s, _ = start()
	_, err = s.Supply(nil, false)
	require.ErrorIs(t, err, ErrScan)
	s, ids = start()
	_, err = s.Supply(ids[:10], false)
	require.NoError(t, err)
	_, err = s.Supply(ids[9:], true)
	require.ErrorIs(t, err, ErrScan)
	s, ids = start()
	_, err = s.Supply(append(ids, ID(slices.Repeat([]byte{255}, 32))), false)
	require.NoError(t, err, "nothing comes after the greatest id")
	_, err = s.Supply(ids, true)
	require.ErrorIs(t, err, ErrScan, "none asked for")
}
