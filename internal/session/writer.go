package session

import (
	"context"
	"errors"
	"time"

	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
)

// write sends what the outbox holds until the stream fails or ctx ends.
func (l *link) write(ctx context.Context) error {
	for {
		if err := l.writeUrgent(); err != nil {
			return err
		}
		if w, ok := l.out.next(); ok {
			if err := l.serve(ctx, w); err != nil {
				return err
			}
			continue
		}
		if !l.out.idle() {
			continue
		}
		select {
		case <-l.out.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// writeUrgent sends protocol frames and live records, which never wait for an
// order to be through.
func (l *link) writeUrgent() error {
	for {
		frames, recs := l.out.urgent()
		if len(frames) == 0 && len(recs) == 0 {
			return nil
		}
		for _, f := range frames {
			if isPing(f) {
				l.onWay.ping(false)
			}
			if err := l.put(f); err != nil {
				return err
			}
		}
		if err := l.putRecords(l.unseen(recs)); err != nil {
			return err
		}
	}
}

// saw remembers what the peer has pushed whole.
func (l *link) saw(recs []record.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range recs {
		if !bare(recs[i]) {
			l.seen.Add(recs[i].ID())
		}
	}
}

// unseen leaves out the live records that the peer has already. They are looked up
// as late as that, since the peer may push the same meanwhile.
func (l *link) unseen(push []pushed) []record.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]record.Record, 0, len(push))
	for i := range push {
		if bare(push[i].Record) || l.seen.Add(push[i].ID()) || push[i].sure {
			out = append(out, push[i].Record)
		}
	}
	return out
}

// bare reports whether the record lacks its body, which may yet have to come.
func bare(r record.Record) bool { return !r.HasBody() && r.Kind != record.Tombstone }

func (l *link) put(b []byte) error {
	if err := l.stream.SetWriteDeadline(time.Now().Add(writeWait)); err != nil {
		return err
	}
	_, err := l.stream.Write(b)
	return err
}

func (l *link) putRecords(recs []record.Record) error {
	for len(recs) > 0 {
		n := 1
		for n < len(recs) && recs[n].Kind.Control() == recs[0].Kind.Control() {
			n++
		}
		batch := recs[:n]
		recs = recs[n:]
		for len(batch) > 0 {
			var frame []byte
			frame, batch = encodeRecords(batch[0].Kind.Control(), batch)
			if err := l.put(frame); err != nil {
				return err
			}
		}
	}
	return nil
}

// serve sends the records of an order, letting urgent matters pass between
// batches.
func (l *link) serve(ctx context.Context, w order) error {
	var batch []record.Record
	size := 0
	flush := func() error {
		err := l.putRecords(batch)
		batch, size = batch[:0], 0
		if err != nil {
			return err
		}
		if w.hand {
			l.handed.Store(time.Now().UnixNano())
		}
		return l.writeUrgent()
	}
	add := func(r record.Record) error {
		batch = append(batch, r)
		if size += r.Size(); size < batchBytes {
			return nil
		}
		return flush()
	}
	for _, id := range w.ids {
		if w.hand {
			recs, err := l.hand(ctx, record.ID(id))
			for i := 0; err == nil && i < len(recs); i++ {
				err = add(recs[i])
			}
			if err != nil {
				return err
			}
			continue
		}
		r, err := l.lib.Replica.Record(ctx, record.ID(id), w.control)
		if errors.Is(err, replica.ErrNoRecord) {
			continue // replaced since; its successor is found by the next round
		}
		if err == nil && !w.control {
			r, err = l.visible(ctx, r)
		}
		if err == nil {
			err = add(r)
		}
		if err != nil {
			return err
		}
	}
	if w.all {
		s, _ := l.view()
		for r, err := range l.lib.Replica.RecordsFrom(ctx, w.control, s.Link(), w.from) {
			if err == nil {
				err = add(r)
			}
			if err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	if w.then != nil {
		return l.put(w.then)
	}
	if w.round == 0 {
		return nil
	}
	if w.again {
		l.resync()
	}
	if err := l.put(encodeNumber(frameCaught, w.round)); err != nil || !w.ping {
		return err
	}
	return l.putPing()
}
