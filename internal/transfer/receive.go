package transfer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/wire"
)

// maxNote bounds the frames that are neither proof nor data.
const maxNote = 64

// read takes frames off the stream, checks them, and hands what is good to who
// stores it. Its errors match ErrWrong or ErrProtocol where the peer is at fault.
func (s *source) read() error {
	for {
		_ = s.st.SetReadDeadline(time.Time{}) // stalls are the scheduler's matter
		if s.stop.Load() {
			_ = s.st.SetReadDeadline(time.Unix(1, 0))
		}
		if err := s.f.await(); err != nil {
			if s.stop.Load() && isTimeout(err) {
				return errHalted
			}
			return err
		}
		typ, n, err := s.f.head()
		if err == nil {
			switch typ {
			case frameProof, frameData:
				err = s.readPart(typ, n)
			case frameEnd, frameWorking:
				err = s.readNote(typ, n)
			default:
				err = fmt.Errorf("%w: frame of type %d", ErrProtocol, typ)
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, wire.ErrMalformed):
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		default:
			return lie(err)
		}
	}
}

// lie tells the errors that only a peer that lies can bring about.
func lie(err error) error {
	for _, lie := range [...]error{blob.ErrGroup, blob.ErrProof, blob.ErrSize, blob.ErrRange} {
		if errors.Is(err, lie) {
			return fmt.Errorf("%w: %w", ErrWrong, err)
		}
	}
	return err
}

// readNote reads that a run ended early, or is being worked on.
func (s *source) readNote(typ uint8, n int) error {
	if n > maxNote {
		return fmt.Errorf("%w: frame of %d bytes", wire.ErrMalformed, n)
	}
	body := make([]byte, n)
	if err := s.f.body(body); err != nil {
		return err
	}
	if typ == frameEnd {
		seq, st, err := decodeEnd(body)
		if err != nil {
			return err
		}
		if r := s.coming(seq, true); r != nil {
			return s.pass(part{r: r, end: st.err()})
		}
		return nil // the run may have been over already when it was cancelled
	}
	seq, err := decodeSeq(body)
	if err != nil {
		return err
	}
	if r := s.coming(seq, false); r != nil && r.patience > 0 {
		r.patience--
		return s.pass(part{r: r})
	}
	return nil
}

// readPart reads a proof or data.
func (s *source) readPart(typ uint8, n int) error {
	var head [4]byte
	if n < len(head) {
		return fmt.Errorf("%w: frame of %d bytes", wire.ErrMalformed, n)
	}
	if err := s.f.body(head[:]); err != nil {
		return err
	}
	r := s.coming(binary.BigEndian.Uint32(head[:]), false)
	switch n -= len(head); {
	case r == nil:
		return fmt.Errorf("%w: answer to nothing", ErrProtocol)
	case typ == frameProof:
		return s.readProof(r, n)
	case r.v == nil:
		return fmt.Errorf("%w: data before its proof", ErrProtocol)
	case n == 0:
		return fmt.Errorf("%w: empty data", ErrProtocol)
	}
	return s.readData(r, binary.BigEndian.Uint32(head[:]), n)
}

// readProof reads the proof of a run. It is checked before anything under it is read:
// one false node costs the proof, 18 KiB at most, and no content.
func (s *source) readProof(r *coming, n int) error {
	if r.v != nil {
		return fmt.Errorf("%w: second proof", ErrProtocol)
	}
	w := s.d.want
	if n != blob.ProofSize(w.Size, r.run) {
		return fmt.Errorf("%w: of %d bytes for %v", blob.ErrProof, n, r.run)
	}
	proof := make([]byte, n)
	if err := s.f.body(proof); err != nil {
		return err
	}
	v, err := blob.NewVerifier(w.Root, w.Size, r.run, proof)
	if err != nil {
		return err
	}
	r.v = v
	return s.pass(part{r: r, v: v})
}

// readData reads groups of a run. Each is checked before the next one is read, so
// that a false one is all that came in vain. Those before it are good, as are the
// whole ones of a frame that breaks off.
func (s *source) readData(r *coming, seq uint32, n int) (err error) {
	run, err := blob.RunAt(s.d.want.Size, r.next, n)
	if err != nil {
		return err
	}
	if run.End() > r.run.End() {
		return fmt.Errorf("%w: %v is not in %v", blob.ErrRange, run, r.run)
	}
	p := part{r: r, first: r.next, store: partStore.Get().(*[]byte)}
	body, came := (*p.store)[:n], 0
	for good := 0; good < n; r.next++ {
		group := body[good:min(good+blob.GroupSize, n)]
		if err = s.f.body(group); err != nil {
			break
		}
		came += len(group)
		if err = r.v.Check(r.next, group); err != nil {
			break
		}
		good += len(group)
		p.data = body[:good]
	}
	s.d.c.received(s.d.want.Library, s.peer, came)
	if r.next == r.run.End() {
		s.coming(seq, true)
	}
	if len(p.data) == 0 {
		p.free()
		return err
	}
	r.patience = maxPatience
	return errors.Join(err, s.pass(p))
}

// pass hands a part to who stores it.
func (s *source) pass(p part) error {
	select {
	case s.parts <- p:
		return nil
	case <-s.ctx.Done():
		p.free()
		return s.ctx.Err()
	}
}

func (p part) free() {
	if p.store != nil {
		partStore.Put(p.store)
	}
}

// coming finds a run that was asked for; last takes it out.
func (s *source) coming(seq uint32, last bool) *coming {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.runs[seq]
	if last {
		delete(s.runs, seq)
	}
	return r
}

// storeAll stores what comes and reports it. Its errors are the sink's, which end the
// download.
func (s *source) storeAll() error {
	defer func() {
		for p := range s.parts {
			p.free()
		}
	}()
	for p := range s.parts {
		err := s.store(p)
		p.free()
		if err != nil {
			s.d.tell(s.d.ctx, event{src: s, fatal: err})
			return err
		}
	}
	return nil
}

func (s *source) store(p part) (err error) {
	switch r := p.r; {
	case p.end != nil:
		s.d.tell(s.ctx, event{src: s, run: r.run, failed: true, cause: p.end})
	case p.v != nil:
		r.in, err = s.d.sink.begin(p.v)
	case p.data != nil:
		if _, err := r.in.PutProven(p.first, p.data); err != nil {
			return err
		}
		s.gave.Store(true)
		got := blob.Run{First: p.first, Count: blob.Groups(uint64(len(p.data)))}
		// Also from a source that was given up: what is stored is not asked for again.
		s.d.tell(s.d.ctx, event{src: s, run: r.run, got: got})
	default:
		s.d.tell(s.ctx, event{src: s})
	}
	return err
}
