package transfer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/wire"
)

// workWants answers small wants, as many at once as the peer has buffers.
func (v *serving) workWants() {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		v.mu.Lock()
		var q wantReq
		ok := len(v.wants) > 0
		if ok {
			q = v.wants[0]
			if v.wants = v.wants[1:]; len(v.wants) == 0 {
				v.wants = nil
			}
		}
		v.mu.Unlock()
		if !ok {
			select {
			case <-v.wantsC:
				continue
			case <-v.ctx.Done():
				return
			}
		}
		if v.s.buffers.enter(v.ctx, v.peer, flowSmall, requestCost, nil) != nil {
			v.s.dequeue(v.c, 1)
			return
		}
		wg.Go(func() {
			a := v.small(q)
			v.s.dequeue(v.c, 1)
			done := func() { v.s.buffers.leave(v.peer) }
			select {
			case v.smalls <- small{a, done}:
			case <-v.ctx.Done():
				done()
			}
		})
	}
}

// small reads a small content whole and holds it against its digest.
func (v *serving) small(q wantReq) answer {
	a := answer{seq: q.seq}
	it, st := v.s.resolve(v.ctx, v.sv.Library, q.record)
	if st == statusOK && it.Size > SmallLimit {
		st = statusConflict
	}
	if a.status = st; st != statusOK {
		return a
	}
	v.s.buffers.charge(v.peer, flowSmall, int(it.Size))
	done, err := v.s.read(v.ctx, v.peer, flowSmall, int(it.Size))
	if err == nil {
		a.data, err = whole(v.ctx, v.s.service, it.Handle, it.Size)
		done()
	}
	if err == nil && can.Digest(sha256.Sum256(a.data)) != it.Digest {
		err = errRotten
	}
	if err != nil {
		a.data, a.status = nil, v.s.failed(v.ctx, it, err)
	}
	return a
}

// workRuns answers runs, one after the other.
func (v *serving) workRuns() {
	for {
		v.mu.Lock()
		ok := len(v.runs) > 0
		var q runReq
		var ctx context.Context
		skip := false
		if ok {
			q = v.runs[0]
			if v.runs = v.runs[1:]; len(v.runs) == 0 {
				v.runs = nil
			}
			skip = v.cancelled[q.seq]
			delete(v.cancelled, q.seq)
			ctx, v.abort = context.WithCancel(v.ctx)
			v.current = q.seq
		}
		v.mu.Unlock()
		if !ok {
			select {
			case <-v.runsC:
				continue
			case <-v.ctx.Done():
				return
			}
		}
		st := statusCancelled
		if !skip {
			st = v.run(ctx, q)
		}
		v.mu.Lock()
		v.abort()
		v.abort = nil
		v.mu.Unlock()
		v.s.dequeue(v.c, 1)
		if st != statusOK && !v.send(v.ctx, piece{b: endFrame(q.seq, st), done: func() {}}) {
			return
		}
	}
}

// send hands a piece to the writer; it reports false, and throws it away, when ctx
// has ended.
func (v *serving) send(ctx context.Context, p piece) bool {
	select {
	case v.out <- p:
		return true
	case <-ctx.Done():
		p.done()
		return false
	}
}

// beat returns a function that tells the peer every few seconds that its run is
// being worked on.
func (v *serving) beat(ctx context.Context, seq uint32) func() {
	last := time.Now()
	return func() {
		if now := time.Now(); now.Sub(last) >= 3*time.Second {
			last = now
			v.send(ctx, piece{b: seqFrame(frameWorking, seq), done: func() {}})
		}
	}
}

// run sends a run of groups and its proof. It returns statusOK when all was sent.
func (v *serving) run(ctx context.Context, q runReq) status {
	it, st := v.s.resolve(ctx, v.sv.Library, q.record)
	switch {
	case st != statusOK:
		return st
	case it.Root != q.root || uint64(it.Size) != q.size:
		return statusConflict
	}
	beat := v.beat(ctx, q.seq)
	proof, check, err := v.prove(ctx, it, q.run, beat)
	if err != nil {
		return v.s.failed(ctx, it, err)
	}
	frame := appendHead(make([]byte, 0, frameHead+4+len(proof)), frameProof, 4+len(proof))
	frame = append(wire.AppendU32(frame, q.seq), proof...)
	if !v.send(ctx, piece{b: frame, done: func() {}}) {
		return statusCancelled
	}
	if err := v.content(ctx, q, it, check, beat); err != nil {
		return v.s.failed(ctx, it, err)
	}
	return statusOK
}

// prove makes the proof of a run and its verifier.
func (v *serving) prove(ctx context.Context, it inventory.Item, run blob.Run, beat func()) ([]byte, *blob.Verifier, error) {
	tree, err := v.s.trees.get(ctx, it)
	if err != nil {
		return nil, nil, err
	}
	proof, err := tree.AppendProof(nil, run)
	for tries := 0; errors.Is(err, blob.ErrOutboard) && tries < 2; tries++ {
		if err := v.s.trees.renew(ctx, it, beat); err != nil {
			return nil, nil, err
		}
		proof, err = tree.AppendProof(nil, run)
	}
	if err != nil {
		return nil, nil, err
	}
	check, err := blob.NewVerifier(it.Root, uint64(it.Size), run, proof)
	return proof, check, err
}

// content reads the run and sends each piece after holding it against the proof.
func (v *serving) content(ctx context.Context, q runReq, it inventory.Item, check *blob.Verifier, beat func()) (err error) {
	done, err := v.s.read(ctx, v.peer, flowLarge, 0)
	if err != nil {
		return err
	}
	r, err := v.s.readers.at(ctx, v.ctx, v.s.ctx, it, v.peer, q.run.Offset(), q.run.Len(q.size), beat)
	done()
	if err != nil {
		return err
	}
	good := true
	defer func() {
		if good {
			v.s.readers.put(r)
		} else {
			r.close()
		}
	}()
	for at, end := q.run.First, q.run.End(); at < end; {
		groups := uint64(v.s.cfg.Limit.piece(v.sv.Library, v.peer) / blob.GroupSize)
		part := blob.Run{First: at, Count: min(groups, end-at)}
		if err := v.s.buffers.enter(ctx, v.peer, flowLarge, int(part.Len(q.size)), beat); err != nil {
			return err
		}
		p := v.newPiece(q.seq, int(part.Len(q.size)))
		if err := v.fill(ctx, r, p.b[frameHead+4:]); err != nil {
			p.done()
			good = false
			return err
		}
		if err := check.Check(at, p.b[frameHead+4:]); err != nil {
			p.done()
			good = false
			return fmt.Errorf("%w: %w", errRotten, err)
		}
		if err := v.s.cfg.Limit.wait(ctx, v.sv.Library, v.peer, flowLarge, p.sent, beat); err != nil {
			p.done()
			return err
		}
		if !v.send(ctx, p) {
			return ctx.Err()
		}
		at = part.End()
	}
	return nil
}

// newPiece returns a data frame with room for n bytes of content; its place among
// the peer's buffers is given back with it.
func (v *serving) newPiece(seq uint32, n int) piece {
	store := v.s.pieces.Get().(*[]byte)
	b := wire.AppendU32(appendHead((*store)[:0], frameData, 4+n), seq)
	return piece{b: b[:len(b)+n], sent: n, done: func() {
		v.s.pieces.Put(store)
		v.s.buffers.leave(v.peer)
	}}
}

// fill reads exactly len(b) bytes from the service. The end of the run stops the
// read, except that a reading which is to serve later runs is only given up with the
// stream.
func (v *serving) fill(ctx context.Context, r *reading, b []byte) error {
	done, err := v.s.read(ctx, v.peer, flowLarge, len(b))
	if err != nil {
		return err
	}
	defer done()
	if r.whole {
		ctx = v.ctx
	}
	defer context.AfterFunc(ctx, r.cancel)()
	if _, err := io.ReadFull(r, b); err != nil {
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: %w", errRotten, can.ErrTruncated)
		}
		return err
	}
	return nil
}
