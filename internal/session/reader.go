package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/wire"
)

// apply stores records, together with those that are waiting behind them.
func (l *link) apply(ctx context.Context, m inbound) error {
	parts, count := []replica.Checked{m.recs}, len(m.recs.Records())
	var held *inbound // what came behind the records and is no record
	for more := true; more && count < applyBatch; {
		select {
		case n := <-l.in:
			if n.typ == frameRecords && n.err == nil && n.control == m.control {
				parts, count = append(parts, n.recs), count+len(n.recs.Records())
			} else {
				held, more = &n, false
			}
		default:
			more = false
		}
	}
	recs := replica.Join(parts...)
	res, err := l.lib.Replica.ApplyChecked(ctx, recs, l.peer)
	if err != nil {
		return err
	}
	l.respite.news = l.respite.news || res.New > 0
	if m.control && res.New > 0 {
		l.doubt.end()
	}
	for _, ref := range res.Refused {
		switch {
		case errors.Is(ref.Err, control.ErrUnknownCert):
			if l.doubt.ask() {
				l.resync() // the control set of the peer has it
			}
		case errors.Is(ref.Err, replica.ErrDeferred):
			l.respite.early = true
		case errors.Is(ref.Err, record.ErrSignature), errors.Is(ref.Err, record.ErrInvalid):
			return fmt.Errorf("%w: record %s: %w", errPeer, ref.ID, ref.Err)
		case errors.Is(ref.Err, control.ErrFull):
			l.log.Info("record has no place in the control set", "record", ref.ID.String(), "error", ref.Err)
		default:
			l.log.Warn("record refused", "record", ref.ID.String(), "error", ref.Err)
		}
	}
	l.took(recs.Records(), res.Refused)
	if err := l.correct(ctx, recs.Records(), res.Touched); err != nil {
		return err
	}
	if held == nil {
		return nil
	}
	if (held.typ == frameResync || held.typ == frameView) && held.err == nil {
		l.resync()
	}
	return l.handle(ctx, *held)
}

// read decodes frames, and checks the signatures of records, until the stream fails.
func (l *link) read(ctx context.Context) {
	fr := wire.NewFrameReader(l.stream, 0)
	for {
		_ = l.stream.SetReadDeadline(time.Now().Add(silence))
		typ, body, err := fr.Read()
		m := inbound{typ: typ, err: foreign(err)}
		if err == nil {
			switch typ {
			case frameRecords:
				var recs []record.Record
				m.control, recs, m.err = decodeRecords(body)
				l.saw(recs)
				m.recs = l.lib.Replica.Check(recs)
			case frameReconcile:
				m.control, m.round, m.view, m.payload, m.err = decodeReconcile(body)
				m.payload = bytes.Clone(m.payload)
			case frameView, frameAsk, frameHave, frameLater, frameOffer, frameKept:
				m.payload = bytes.Clone(body)
			case frameCaught:
				m.round, m.err = decodeNumber(body)
			}
			m.err = foreign(m.err)
		}
		select {
		case l.in <- m:
		case <-ctx.Done():
			return
		}
		if m.err != nil {
			return
		}
	}
}
