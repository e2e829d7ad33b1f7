package cantest

import (
	"slices"
	"time"
)

// ActionKind says what a fault does.
type ActionKind uint8

// The actions. "Before" means that the service did nothing, "after" that it did
// everything it was asked.
const (
	// ActStatus answers Status with an error envelope, before. An ingest is read
	// first, unless Early is set.
	ActStatus ActionKind = iota
	// ActHTML answers Status (0: 200) with an HTML page, before.
	ActHTML
	// ActErrorEnvelope answers 200 with an error envelope, before.
	ActErrorEnvelope
	// ActBadJSON answers 200 with JSON that breaks off, before.
	ActBadJSON
	// ActEmptyList answers a listing with nothing.
	ActEmptyList
	// ActRedirect answers Status (0: 307) with Location, before.
	ActRedirect
	// ActReset breaks the connection before.
	ActReset
	// ActHangBefore never answers, before.
	ActHangBefore
	// ActHangMid sends At bytes of the answer and then nothing more.
	ActHangMid
	// ActHangAfter never answers, after. A read gets all bytes and no end.
	ActHangAfter
	// ActSlow sends N bytes (0: 1) at a time, one Every (0: 1 s) each.
	ActSlow
	// ActCut breaks the connection after At bytes of the answer.
	ActCut
	// ActWrongLength announces N bytes more than there are; N may be negative.
	ActWrongLength
	// ActExtra sends N bytes (0: 1) more than there are, without a length.
	ActExtra
	// ActWrongBytes flips the byte At of the answer's body.
	ActWrongBytes
	// ActEndless answers with a body without end, under the content encoding gzip
	// if Gzip is set.
	ActEndless
	// ActWrongRange answers a ranged read with a shifted Content-Range.
	ActWrongRange
	// ActNoRange answers a ranged read with the whole asset.
	ActNoRange
	// ActRangeRefused answers a ranged read with 416.
	ActRangeRefused
	// ActAnswerLost breaks the connection after.
	ActAnswerLost
	// ActStatusAfter answers Status (0: 500) after.
	ActStatusAfter
	// ActWrongHash answers an ingest with another handle, after.
	ActWrongHash
	// ActForget confirms an ingest and stores nothing.
	ActForget
	// ActEventLost drops an event. It and the four below work on [RouteEvent].
	ActEventLost
	// ActEventTwice delivers an event twice.
	ActEventTwice
	// ActEventUnknown delivers an event of an unknown type in its place.
	ActEventUnknown
	// ActEventEndless sends a line without end in its place.
	ActEventEndless
	// ActEventLate keeps an event back until one that is newer was delivered; the
	// last that were kept back come first then.
	ActEventLate
)

// Action is what a fault does; which fields matter depends on Kind.
type Action struct {
	Kind ActionKind
	// Status is an HTTP status.
	Status int
	// RetryAfter is sent as it is, or not at all when empty.
	RetryAfter string
	// Early answers an ingest without reading it.
	Early bool
	// Location is the target of a redirect.
	Location string
	// At is an offset in the answer's body; 0 is its middle.
	At int64
	// N is a number of bytes.
	N int64
	// Every is an interval.
	Every time.Duration
	Gzip  bool
}

// Call is what a fault can match.
type Call struct {
	Route  Route
	Handle string
}

// Fault is an action and when it happens. All conditions must hold.
type Fault struct {
	// Route is the call concerned; empty is any call.
	Route Route
	// Handle is the asset concerned; empty is any.
	Handle string
	// Match is a further condition, or nil. It must not call the Service.
	Match func(Call) bool
	// Nth lets the fault fire from the n-th call that meets the conditions above;
	// 0 is the first.
	Nth int
	// Times is how often it fires; 0 is always.
	Times int
	// Probability of firing, from the service's seed; 0 is certain.
	Probability float64
	Action      Action
}

// Injected is a fault in force.
type Injected struct {
	s     *Service
	f     Fault
	seen  int
	fired int
}

// Fired returns how often the fault happened.
func (i *Injected) Fired() int {
	i.s.mu.Lock()
	defer i.s.mu.Unlock()
	return i.fired
}

// Remove takes the fault out of force; its count stays.
func (i *Injected) Remove() {
	i.s.mu.Lock()
	defer i.s.mu.Unlock()
	i.s.faults = slices.DeleteFunc(i.s.faults, func(x *Injected) bool { return x == i })
}

// Inject puts a fault into force. Of several that apply to a call, the first
// injected fires.
func (s *Service) Inject(f Fault) *Injected {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := &Injected{s: s, f: f}
	s.faults = append(s.faults, i)
	return i
}

// Faults returns the faults in force, those of Options.Faults first.
func (s *Service) Faults() []*Injected {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.faults)
}

// enter counts a call and returns the fault that happens to it, or nil.
func (s *Service) enter(c Call) *Action {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ledger.calls[c.Route]++
	if c.Route == RouteAsset {
		s.ledger.assets[c.Handle]++
	}
	var act *Action
	for _, i := range s.faults {
		f := &i.f
		switch {
		case f.Route == "" && c.Route == RouteEvent, f.Route != "" && f.Route != c.Route,
			f.Handle != "" && f.Handle != c.Handle, f.Match != nil && !f.Match(c):
			continue
		}
		i.seen++
		if act != nil || i.seen < f.Nth || f.Times > 0 && i.fired >= f.Times ||
			f.Probability > 0 && s.rng.Float64() >= f.Probability {
			continue
		}
		i.fired++
		act = &f.Action
	}
	return act
}
