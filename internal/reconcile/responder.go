package reconcile

import (
	"crypto/sha256"
	"fmt"
	"io"
)

// server is the responder's side of an attempt: it serves its symbols.
type server struct {
	attempt   int
	symbols   []symbol
	size      int64 // of the set the symbols are of
	peer      int64 // what the initiator says its set has
	sent      int
	limit     int // symbols served in this attempt at most
	requested int // ids requested
	last      *ID // the last of them
}

// run sends the next n symbols.
func (s *Session) run(n int) {
	v := &s.server
	for n > 0 {
		k := min(n, chunkSymbols)
		n -= k
		s.send(symbolsMsg{attempt: v.attempt, from: v.sent, left: n, size: v.size, symbols: v.symbols[v.sent : v.sent+k]})
		v.sent += k
		s.stats.Symbols += k
	}
}

func (s *Session) onMore(m moreMsg) error {
	v := &s.server
	if m.attempt != v.attempt || m.from != v.sent || m.n == 0 || s.after != nil {
		return fmt.Errorf("%w: run out of sequence", ErrProtocol)
	}
	if s.scan != nil { // of the second attempt
		s.after = func() error { return s.onMore(m) }
		return nil
	}
	to := m.from + m.n
	switch {
	case to > v.limit || to > len(v.symbols) && v.attempt > 0:
		s.send(abortMsg{attempt: v.attempt})
	case to > len(v.symbols):
		n := min(max(to, 2*m.estimate, 4*len(v.symbols)), s.limits.Symbols)
		s.scanSymbols(s.snap.h, n, s.snap.symbols, func(symbols []symbol, err error) error {
			if err != nil {
				s.send(abortMsg{attempt: s.server.attempt})
				return nil
			}
			s.server.symbols = symbols
			s.run(m.n)
			return nil
		})
	default:
		s.run(m.n)
	}
	return nil
}

func (s *Session) onRequest(m requestMsg) error {
	v := &s.server
	if !m.last && len(m.ids) != pageIDs {
		return fmt.Errorf("%w: request not in full messages", ErrProtocol)
	}
	if len(m.ids) > 0 {
		if v.last != nil && compare(*v.last, m.ids[0]) >= 0 {
			return fmt.Errorf("%w: ids out of order", ErrProtocol)
		}
		last := m.ids[len(m.ids)-1]
		v.last = &last
	}
	// No decoder finds more ids than it has symbols.
	if v.requested += len(m.ids); v.requested > v.sent {
		return fmt.Errorf("%w: more ids requested than symbols tell", ErrProtocol)
	}
	s.state = requesting
	s.step.Surplus = m.ids
	if m.last {
		s.stats.Pushed = int(m.pushed)
		s.done()
	}
	return nil
}

// onRekey begins the second attempt.
func (s *Session) onRekey(m rekeyMsg) error {
	v := &s.server
	if v.attempt > 0 {
		return fmt.Errorf("%w: key changed out of turn", ErrProtocol)
	}
	var nonce [16]byte
	if _, err := io.ReadFull(s.rand, nonce[:]); err != nil {
		return fmt.Errorf("reconcile: no randomness for a session key: %w", err)
	}
	s.send(rekeyedMsg{nonce: nonce})
	s.stats.Rekeyed = true
	n := symbolCap(float64(m.estimate), s.limits.Symbols)
	*v = server{attempt: 1, peer: v.peer, limit: n}
	h := newHasher(sessionKey(s.snap.key, m.nonce, nonce))
	s.scanSymbols(h, n, nil, func(symbols []symbol, _ error) error {
		s.server.symbols, s.server.size = symbols, symbols[0].count
		return nil
	})
	return nil
}

// sessionKey depends on the library's key and on what each side contributed, so
// that nobody can have chosen ids for it beforehand.
func sessionKey(library Key, initiator, responder [16]byte) (k Key) {
	b := append([]byte("cansync reconcile session key 1\n"), library[:]...)
	b = append(append(b, initiator[:]...), responder[:]...)
	sum := sha256.Sum256(b)
	copy(k[:], sum[:])
	return k
}
