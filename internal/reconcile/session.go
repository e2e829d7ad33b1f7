package reconcile

import (
	"crypto/rand"
	"fmt"
	"io"
)

// Config says how a session goes about its work. The zero value is usable.
type Config struct {
	Limits Limits
	// Rand yields the nonce of a session key, should one be needed; nil means crypto/rand.
	Rand io.Reader
	// Resume, when set, asks for the peer's records in bulk from this id on: where an
	// earlier bulk stream was cut. It is ignored if the sets turn out to be equal.
	Resume *ID
	// Refused, when set, says of a record that the host would not take it; what the peer
	// has of such it is not asked for.
	Refused func(ID) bool
}

// Step is what the host has to do after an event. Its slices belong to the host.
type Step struct {
	// Send holds messages for the peer, in order, each of at most MaxMessage bytes.
	Send [][]byte
	// Missing are ids the peer has and we lack; its host pushes the records.
	Missing []ID
	// Surplus are ids we should have and the peer lacks; push the records, skipping
	// those that do not exist. Missing and Surplus may come in several steps, never
	// with an id twice.
	Surplus []ID
	// Scan, when set, asks for a page of ids; answer by Supply.
	Scan *Scan
	// Bulk, when set, asks for whole sets to be pushed instead. Done is then true.
	Bulk *Bulk
	// Done ends the session. Handle and Supply must not be called again.
	Done bool
}

// Scan asks for ids of the current set in ascending order.
type Scan struct {
	From  ID  // the first id that may come
	Limit int // how many to supply at most; fewer are allowed, but at least one unless the set ends
}

// Bulk says who pushes records in ascending order of ids without naming them first.
type Bulk struct {
	Push     bool // push all our records to the peer
	PushFrom ID   // from this id on
	Want     bool // the peer pushes all its records to us
	WantFrom ID   // from this id on; keep the last id received as the cursor for Config.Resume
	PeerSize int  // how many records the peer claimed to have, or 0 if it did not say
}

// Stats counts what a session did so far.
type Stats struct {
	Rounds        int  // times the initiator waited for an answer; 0 on a responder
	BytesSent     int  // message bytes, without the channel's framing
	BytesReceived int  //
	Symbols       int  // coded symbols received or served
	Scans         int  // scans of the set begun
	Work          int  // operations of decoding
	Equal         bool // the sets were equal
	Rekeyed       bool // a second attempt with a session key was made
	Listed        bool // ids were listed
	Pushed        int  // records the initiator said it would push; on a responder only
}

type state int

const (
	awaitHello   state = iota // responder
	serving                   // responder: of symbols
	requesting                // responder: ids are being requested
	awaitAnswer               // initiator: to the hello
	pulling                   // initiator: symbols
	awaitRekeyed              // initiator
	requested                 // initiator: decoded, the rest of a run is still to come
	listing                   // our ids, for the peer to merge
	merging                   // the peer's ids
	finished
)

// Session is one reconciliation with one peer. It is not safe for concurrent use.
// Its memory is bounded by the limits: about 10 MiB at the very worst, 400 KiB
// for a thousand differences.
type Session struct {
	snap   *Snapshot
	limits Limits
	rand   io.Reader
	resume *ID
	refuse func(ID) bool

	state state
	err   error
	step  Step
	stats Stats
	scan  *scan
	after func() error // what a message asked for that has to wait for the scan

	pull   puller
	server server
	list   lister
	merge  merger
}

func newSession(snap *Snapshot, cfg Config, st state) (*Session, error) {
	limits, err := cfg.Limits.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("%w: limits", err)
	}
	if n := snap.Len(); n < 0 || n > maxSet {
		return nil, fmt.Errorf("%w: a set of %d ids", ErrConfig, n)
	}
	s := &Session{snap: snap, limits: limits, rand: cfg.Rand, refuse: cfg.Refused, state: st}
	if s.rand == nil {
		s.rand = rand.Reader
	}
	if s.refuse == nil {
		s.refuse = func(ID) bool { return false }
	}
	if cfg.Resume != nil {
		id := *cfg.Resume
		s.resume = &id
	}
	return s, nil
}

// NewInitiator begins a session and returns the message to send first. It
// fails, with ErrConfig, only if limits are out of range or the snapshot is not of a set.
func NewInitiator(snap *Snapshot, cfg Config) (*Session, []byte, error) {
	s, err := newSession(snap, cfg, awaitAnswer)
	if err != nil {
		return nil, nil, err
	}
	s.send(hello{digest: snap.digest, counts: snap.counts(), resume: s.resume})
	s.stats.Rounds++
	return s, s.step.Send[0], nil
}

// NewResponder waits for an initiator's first message. It fails like NewInitiator.
func NewResponder(snap *Snapshot, cfg Config) (*Session, error) {
	return newSession(snap, cfg, awaitHello)
}

// Stats returns what the session did so far.
func (s *Session) Stats() Stats { return s.stats }

// Handle takes a message from the peer. Errors match ErrVersion, ErrProtocol or
// ErrBudget; after an error the session is of no more use.
func (s *Session) Handle(msg []byte) (Step, error) {
	if s.err != nil {
		return Step{}, s.err
	}
	s.step = Step{}
	s.stats.BytesReceived += len(msg)
	m, err := decode(msg)
	if err == nil {
		err = s.dispatch(m, len(msg))
	}
	return s.conclude(err)
}

func (s *Session) conclude(err error) (Step, error) {
	if err != nil {
		s.err, s.state = err, finished
		s.step = Step{}
		s.release()
		return Step{}, err
	}
	step := s.step
	s.step = Step{}
	if step.Done {
		s.release()
	}
	return step, nil
}

// release lets go of what took memory.
func (s *Session) release() {
	if s.pull.dec != nil {
		s.stats.Work = s.pull.work + s.pull.dec.ops
	}
	s.pull, s.server, s.list, s.merge, s.scan, s.after = puller{}, server{}, lister{}, merger{}, nil, nil
}

func (s *Session) send(m message) {
	b := m.encode()
	s.stats.BytesSent += len(b)
	s.step.Send = append(s.step.Send, b)
}

func (s *Session) done() {
	s.state = finished
	s.step.Done = true
}

func (s *Session) dispatch(m message, size int) error {
	switch m := m.(type) {
	case hello:
		if s.state == awaitHello {
			return s.onHello(m)
		}
	case equalMsg:
		if s.state == awaitAnswer {
			s.stats.Equal = true
			s.done()
			return nil
		}
	case bulk:
		if s.state == awaitAnswer {
			return s.onBulk(m)
		}
	case symbolsMsg:
		return s.onSymbols(m, size)
	case rekeyedMsg:
		if s.state == awaitRekeyed && s.pull.stale == 0 {
			return s.onRekeyed(m)
		}
	case abortMsg:
		if s.state == pulling {
			return s.onAbort(m)
		}
	case moreMsg:
		if s.state == serving {
			return s.onMore(m)
		}
	case requestMsg:
		if s.state == requesting || s.state == serving && s.scan == nil {
			return s.onRequest(m)
		}
	case rekeyMsg:
		if s.state == serving && s.scan == nil {
			return s.onRekey(m)
		}
	case listMsg:
		if s.state == awaitAnswer || s.state == serving && s.scan == nil {
			return s.startListing()
		}
	case pageMsg:
		switch {
		case s.state == awaitAnswer: // only a smaller set is listed unasked
			s.startMerge(s.snap.Len())
		case s.state == serving && s.scan == nil:
			s.startMerge(int(s.server.peer))
		}
		if s.state == merging && s.pull.stale == 0 {
			return s.onPage(m)
		}
	case wantMsg:
		if s.state == listing {
			return s.onWant(m)
		}
	}
	return fmt.Errorf("%w: message out of turn", ErrProtocol)
}

// onHello chooses the way.
func (s *Session) onHello(m hello) error {
	theirs, ours := m.counts[0], int64(s.snap.Len())
	if m.digest == s.snap.digest {
		s.stats.Equal = true
		s.send(equalMsg{})
		s.done()
		return nil
	}
	push, want := m.resume, s.resume
	if push == nil && want == nil {
		switch {
		case muchSmaller(theirs, ours):
			push = new(ID)
		case muchSmaller(ours, theirs):
			want = new(ID)
		}
	}
	if push != nil || want != nil {
		s.send(bulk{size: uint64(ours), push: push != nil, want: want})
		s.startBulk(push, want, theirs)
		return nil
	}
	d := estimateCounts(m.counts, s.snap.counts())
	need := symbolsFor(d)
	if need > s.limits.Symbols || 32*float64(min(theirs, ours)) < 45*float64(need)+16*d {
		if theirs <= ours {
			s.send(listMsg{})
			s.startMerge(int(theirs))
			return nil
		}
		return s.startListing()
	}
	s.state = serving
	s.server = server{symbols: s.snap.symbols, size: ours, peer: theirs, limit: symbolCap(d, s.limits.Symbols)}
	s.run(min(firstRun(d, float64(ours-theirs)), maxRun, s.server.limit, len(s.snap.symbols)))
	return nil
}

func muchSmaller(a, b int64) bool {
	return b > 0 && (a == 0 || b >= bulkMin && a <= b/farSmaller)
}

func (s *Session) onBulk(m bulk) error {
	if s.resume != nil && !m.push {
		return fmt.Errorf("%w: bulk stream refused", ErrProtocol)
	}
	var want *ID
	if m.push {
		want = new(ID)
		if s.resume != nil {
			want = s.resume
		}
	}
	s.startBulk(m.want, want, int64(m.size))
	return nil
}

func (s *Session) startBulk(push, want *ID, peer int64) {
	b := &Bulk{PeerSize: int(peer)}
	if push != nil {
		b.Push, b.PushFrom = true, *push
	}
	if want != nil {
		b.Want, b.WantFrom = true, *want
	}
	s.step.Bulk = b
	s.done()
}

// counts returns the counts that a hello carries.
func (s *Snapshot) counts() []int64 {
	c := make([]int64, helloCounts)
	for i := range c {
		c[i] = s.symbols[i].count
	}
	return c
}
