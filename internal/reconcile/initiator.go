package reconcile

import (
	"fmt"
	"io"
	"slices"
)

// puller is the initiator's side of an attempt: it receives the peer's symbols and decodes.
type puller struct {
	attempt int
	nonce   [16]byte // of the second attempt
	local   []symbol
	dec     *decoder
	pending []symbol // received, but our own are not there yet
	have    int      // received
	left    int      // of the run still to come
	stale   int      // of a run that no longer matters
	size    int64    // what the peer says its set has
	bytes   int
	work    int // operations of the attempts before
	made    int // symbols that our own scan of the second attempt makes
}

func (s *Session) onSymbols(m symbolsMsg, size int) error {
	p := &s.pull
	total := len(m.symbols) + m.left
	if len(m.symbols) == 0 || len(m.symbols) != min(total, chunkSymbols) {
		return fmt.Errorf("%w: symbols not in full messages", ErrProtocol)
	}
	if p.stale > 0 {
		if total != p.stale {
			return fmt.Errorf("%w: symbols out of sequence", ErrProtocol)
		}
		p.stale = m.left
		if p.stale == 0 && s.state == requested {
			s.done()
		}
		return nil
	}
	switch s.state {
	case awaitAnswer:
		s.state = pulling
		*p = puller{local: s.snap.symbols, dec: newDecoder(s.snap.h, s.limits.Work), left: total, size: m.size}
	case pulling:
	default:
		return fmt.Errorf("%w: symbols out of turn", ErrProtocol)
	}
	if p.have == 0 {
		p.size = m.size
	}
	if m.attempt != p.attempt || m.from != p.have || total != p.left || m.size != p.size ||
		total > maxRun || m.from == 0 && m.symbols[0].count != m.size {
		return fmt.Errorf("%w: symbols out of sequence", ErrProtocol)
	}
	p.bytes += size
	p.have += len(m.symbols)
	p.left = m.left
	p.pending = append(p.pending, m.symbols...)
	s.stats.Symbols += len(m.symbols)
	return s.absorb()
}

// absorb decodes with what is there, and goes on as that turns out.
func (s *Session) absorb() error {
	p := &s.pull
	if s.scan != nil {
		return nil
	}
	if p.bytes > s.limits.Bytes || p.have+p.left > s.limits.Symbols {
		return s.attemptFailed()
	}
	if p.have > len(p.local) {
		if p.attempt > 0 {
			return s.attemptFailed()
		}
		return s.lengthen(max(p.have+p.left, 2*int(min(p.dec.estimate(), MaxPrefix))))
	}
	old := len(p.dec.cells)
	err := p.dec.add(p.pending, p.local[old:p.have])
	p.pending = nil
	ok := false
	if err == nil {
		ok, err = p.dec.done()
	}
	switch {
	case err != nil:
		return s.attemptFailed()
	case ok:
		s.decoded()
		return nil
	case p.left > 0:
		return nil
	}
	estimate := p.dec.estimate()
	most := symbolCap(estimate, s.limits.Symbols)
	if p.attempt > 0 {
		most = min(most, len(p.local))
	}
	n := min(nextTotal(estimate, p.have), most) - p.have
	if n <= 0 {
		return s.attemptFailed()
	}
	s.ask(n, estimate)
	return nil
}

func (s *Session) ask(n int, estimate float64) {
	p := &s.pull
	p.left = min(n, maxRun)
	s.send(moreMsg{attempt: p.attempt, from: p.have, n: p.left, estimate: int(min(estimate, MaxPrefix))})
	s.stats.Rounds++
}

// lengthen makes our own symbols up to n and beyond, at least four times as many as before.
func (s *Session) lengthen(n int) error {
	p := &s.pull
	n = min(max(n, 4*len(p.local)), s.limits.Symbols)
	if n < p.have {
		return s.attemptFailed()
	}
	s.scanSymbols(s.snap.h, n, s.snap.symbols, func(symbols []symbol, err error) error {
		if err != nil {
			return s.attemptFailed()
		}
		s.pull.local = symbols
		return s.absorb()
	})
	return nil
}

// decoded tells the host what differs, and the peer what we lack.
func (s *Session) decoded() {
	p := &s.pull
	missing, surplus := p.dec.differences()
	missing = slices.DeleteFunc(missing, s.refuse)
	slices.SortFunc(missing, compare)
	slices.SortFunc(surplus, compare)
	s.step.Missing, s.step.Surplus = missing, surplus
	rest := missing
	for len(rest) > pageIDs {
		s.send(requestMsg{ids: rest[:pageIDs]})
		rest = rest[pageIDs:]
	}
	s.send(requestMsg{ids: rest, last: true, pushed: uint64(len(surplus))})
	p.stale = p.left
	s.state = requested
	if p.stale == 0 {
		s.done()
	}
}

// onAbort: the responder cannot or will not serve the run we asked for.
func (s *Session) onAbort(m abortMsg) error {
	p := &s.pull
	if m.attempt != p.attempt || p.left == 0 {
		return fmt.Errorf("%w: abort out of turn", ErrProtocol)
	}
	if s.scan != nil {
		s.after = func() error { return s.onAbort(m) }
		return nil
	}
	p.left = 0
	return s.attemptFailed()
}

// attemptFailed goes on to the next of the three ways.
func (s *Session) attemptFailed() error {
	p := &s.pull
	s.after = nil
	p.stale = p.left
	p.work += p.dec.ops
	s.stats.Work = p.work
	if p.attempt > 0 {
		return s.fallBack()
	}
	estimate := int(min(p.dec.estimate(), MaxPrefix))
	if _, err := io.ReadFull(s.rand, p.nonce[:]); err != nil {
		return fmt.Errorf("reconcile: no randomness for a session key: %w", err)
	}
	*p = puller{attempt: 1, nonce: p.nonce, stale: p.stale, size: p.size, work: p.work,
		made: symbolCap(float64(estimate), s.limits.Symbols)}
	s.send(rekeyMsg{nonce: p.nonce, estimate: estimate})
	s.stats.Rounds++
	s.stats.Rekeyed = true
	s.state = awaitRekeyed
	return nil
}

func (s *Session) onRekeyed(m rekeyedMsg) error {
	p := &s.pull
	h := newHasher(sessionKey(s.snap.key, p.nonce, m.nonce))
	p.dec = newDecoder(h, s.limits.Work)
	s.state = pulling
	s.scanSymbols(h, p.made, nil, func(symbols []symbol, _ error) error {
		s.pull.local = symbols
		if s.pull.have == 0 {
			return nil
		}
		return s.absorb()
	})
	estimate := float64(p.made-256) / 8
	s.ask(min(symbolsFor(1.2*estimate)+16, p.made), estimate)
	return nil
}

// fallBack has the smaller set listed.
func (s *Session) fallBack() error {
	if int64(s.snap.Len()) <= s.pull.size {
		return s.startListing()
	}
	s.send(listMsg{})
	s.stats.Rounds++
	s.startMerge(int(s.pull.size))
	return nil
}
