package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/overlay"
	"github.com/cansync/cansync/internal/reconcile"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/transport"
)

// Timing of a link.
const (
	reconcileEvery = time.Minute
	pingEvery      = 30 * time.Second
	silence        = 90 * time.Second // without a byte from the peer
	writeWait      = 60 * time.Second // for one batch to be taken by the peer
	soon           = 2 * time.Second  // before reconciling again after a dropped push
	partWait       = 10 * time.Second // for the peer to end a link for which there is no room
)

// applyBatch is how many records are applied at once, or a few more, when more are
// waiting: a few transactions of the store, of which it syncs one while it takes the
// next. readAhead is how many frames wait for that, of [batchBytes] each if they are
// of records.
const (
	applyBatch = 2304
	readAhead  = 8
)

// link replicates one library with one peer over one stream. Three goroutines
// serve it: one reads, decodes and verifies, one applies and decides, one writes.
type link struct {
	lib    *Library
	peer   transport.PeerID
	grant  capability.Grant // the peer's
	stream transport.Stream
	opener bool
	log    *slog.Logger
	jitter func(time.Duration) time.Duration
	now    func() time.Time

	// own and theirs are the views that the two sides told, and viewID stands for
	// what lies in both. told says that theirs has come. mine carries changes of the
	// own view.
	own, theirs filter.View
	told        bool
	heard       chan struct{} // closed when told
	viewID      viewDigest
	mine        chan filter.View

	mu    sync.Mutex    // guards what follows, which the writer and who pushes use too
	sight replica.Sight // what the peer may see
	sees  bool          // it has told its view
	seen  *overlay.Seen // what it has been pushed or has pushed

	asks    asks
	out     *outbox
	in      chan inbound
	again   chan struct{}    // asks for a reconciliation
	synced  atomic.Bool      // an asset round has ended on this link
	settled chan struct{}    // closed when it has
	onRound func(first bool) // after each asset round
	parting chan struct{}    // the link should end for want of room

	pace    *pace // the peer's
	outset  outset
	respite respite
	doubt   doubt
	rests   int // asset rounds after which the peer may ask for a rest
	round   round
	onWay   onWay
	next    uint32
	began   time.Time // when the node began a reconciliation last
	handing handing
	handed  atomic.Int64       // when owed records were written last, in Unix nanoseconds
	offered map[record.ID]bool // what the peer offered and is not kept; whether it came
	asking  *question          // an offer of the peer that waits, and until when
	askingC <-chan time.Time

	query  *query // a question of the peer about contents that waits, and until when
	queryC <-chan time.Time
}

// inbound is a decoded frame.
type inbound struct {
	typ     uint8
	control bool
	round   uint32
	view    viewDigest
	payload []byte
	recs    replica.Checked
	err     error
}

// Why a link ends, beside what its stream and store say.
var (
	errPeer    = errors.New("session: peer broke the protocol")
	errCrowded = errors.New("session: peer has no room for the link")
	errParted  = errors.New("session: no room for the link")
	errStalled = errors.New("session: reconciliation without progress")

	errUnanswered = errors.New("session: offer of records without an answer")
)

// foreign tells what a peer wrote wrong from a stream that failed.
func foreign(err error) error {
	if errors.Is(err, wire.ErrMalformed) {
		return fmt.Errorf("%w: %w", errPeer, err)
	}
	return err
}

// run serves the link until the stream fails or ctx ends. It returns why.
func (l *link) run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer func() { _ = l.stream.Reset() }() // unblocks reader and writer
	wg.Go(func() { l.read(ctx) })
	wg.Go(func() { cancel(l.write(ctx)) })
	l.round.over = true
	defer l.round.end()

	every := time.NewTimer(l.jitter(reconcileEvery))
	defer every.Stop()
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	pending, again := true, false // a round is due; one is due soon
	if err := l.tellView(); err != nil {
		return err
	}
	var soonC, partC, viewC <-chan time.Time
	viewed := time.Now()
	begin := func() error {
		if !l.opener || !l.told || !pending || !l.round.over {
			return nil
		}
		now := time.Now()
		if wait := l.began.Add(roundGap).Sub(now); wait > 0 {
			if !again {
				again, soonC = true, time.After(wait)
			}
			return nil
		}
		pending, l.began = false, now
		l.respite.look(l.lib.Replica.Early)
		every.Reset(l.jitter(reconcileEvery))
		return l.start(ctx, true)
	}
	if err := begin(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-every.C:
			pending = true
			if !l.opener {
				every.Reset(l.jitter(reconcileEvery))
				if l.respite.over(l.lib.Replica.Early) {
					l.resync()
				}
			}
		case <-soonC:
			soonC, again = nil, false
			l.respite.end()
			if l.opener {
				pending = true
			} else if !l.out.frame(wire.AppendFrame(nil, frameResync, nil)) {
				return errPeer
			}
		case <-l.again:
			if !again {
				again, soonC = true, time.After(soon)
			}
		case <-l.parting:
			if partC == nil {
				partC = time.After(partWait)
				if err := l.send(wire.AppendFrame(nil, frameCrowded, nil)); err != nil {
					return err
				}
			}
		case <-partC:
			return errParted
		case <-ping.C:
			if err := l.grant.CheckSession(l.peer, l.now()); err != nil {
				return err
			}
			if l.opener && !l.round.over && time.Since(l.round.moved) > roundStall {
				return errStalled
			}
			if l.unanswered() {
				return errUnanswered
			}
			if !l.out.frame(pingFrame()) {
				return errPeer
			}
		case v := <-l.mine:
			l.own = v
			if viewC == nil {
				viewC = time.After(time.Until(viewed.Add(viewGap)))
			}
		case <-viewC:
			viewC, viewed = nil, time.Now()
			if err := l.tellView(); err != nil {
				return err
			}
			pending = true
		case <-l.askingC:
			if err := l.keepWaiting(ctx); err != nil {
				return err
			}
		case <-l.queryC:
			if err := l.replyWaiting(ctx); err != nil {
				return err
			}
		case m := <-l.in:
			if m.err == nil && (m.typ == frameResync || m.typ == frameView) {
				pending = true
				l.respite.end()
			}
			if err := l.handle(ctx, m); err != nil {
				return err
			}
		}
		if err := begin(); err != nil {
			return err
		}
	}
}

// resync asks for a reconciliation soon.
func (l *link) resync() {
	select {
	case l.again <- struct{}{}:
	default:
	}
}

// part ends the link in good order, since there is no room for it: the peer hears
// why, and ends it.
func (l *link) part() {
	select {
	case l.parting <- struct{}{}:
	default:
	}
}

// start begins a round as the initiator.
func (l *link) start(ctx context.Context, controlSet bool) error {
	snap, err := l.lib.Replica.Snapshot(ctx, controlSet, l.sight.Link())
	if err != nil {
		return err
	}
	s, first, err := reconcile.NewInitiator(snap, l.config())
	if err != nil {
		return err
	}
	l.round.end()
	l.next++
	if !controlSet {
		// One more than its own, since a rest that was asked for after the round before
		// may be on its way.
		l.rests = min(l.rests+1, 2)
	}
	l.round = round{n: l.next, control: controlSet, s: s, moved: time.Now(), records: l.lib.Replica.Counts().Records}
	return l.send(encodeReconcile(controlSet, l.round.n, l.viewID, first))
}

func (l *link) config() reconcile.Config {
	return reconcile.Config{Refused: func(id reconcile.ID) bool { return l.lib.Replica.Refuses(record.ID(id)) }}
}

func (l *link) send(frame []byte) error {
	if !l.out.frame(frame) {
		return fmt.Errorf("%w: it does not read what it asked for", errPeer)
	}
	return nil
}

func (l *link) handle(ctx context.Context, m inbound) error {
	if m.err != nil {
		return m.err
	}
	switch m.typ {
	case frameRecords, frameReconcile, frameCaught:
		l.round.moved = time.Now()
	}
	switch m.typ {
	case frameRecords:
		return l.apply(ctx, m)
	case frameReconcile:
		return l.reconcile(ctx, m)
	case frameResync:
		return allow(&l.outset.resyncs, l.pace.resyncs, "requests to reconcile")
	case frameCaught:
		if m.round == l.round.n && !l.round.over {
			l.round.caught = true
			return l.finish(ctx)
		}
	case frameView:
		if err := allow(&l.outset.views, l.pace.views, "views"); err != nil {
			return err
		}
		if err := l.learnView(m.payload); err != nil {
			return err
		}
		select {
		case <-l.heard:
		default:
			close(l.heard)
		}
	case frameAsk:
		return l.questioned(ctx, m.payload)
	case frameHave:
		seq, bits, err := decodeHave(m.payload)
		if err != nil {
			return foreign(err)
		}
		l.asks.answered(seq, bits)
	case frameOffer:
		return l.asked(ctx, m.payload)
	case frameKept:
		return l.learnKept(ctx, m.payload)
	case framePing:
		return l.send(wire.AppendFrame(nil, framePong, nil))
	case framePong:
		return l.ponged(ctx)
	case frameCrowded:
		return errCrowded
	case frameLater:
		seconds, err := decodeNumber(m.payload)
		if err != nil {
			return foreign(err)
		}
		if !l.opener || l.rests == 0 {
			return fmt.Errorf("%w: a rest that follows no round", errPeer)
		}
		l.rests--
		l.respite.told(time.Duration(seconds) * time.Second)
	}
	return nil
}

func (l *link) reconcile(ctx context.Context, m inbound) error {
	if m.round != l.round.n {
		if l.opener || m.round < l.round.n {
			return nil // of a round given up
		}
		if !l.told || m.view != l.viewID {
			return nil // the view just changed; the opener hears of it and begins again
		}
		if err := allow(&l.outset.rounds, l.pace.rounds, "reconciliations"); err != nil {
			return err
		}
		snap, err := l.lib.Replica.Snapshot(ctx, m.control, l.sight.Link())
		if err != nil {
			return err
		}
		s, err := reconcile.NewResponder(snap, l.config())
		if err != nil {
			return err
		}
		l.round.end()
		l.round = round{n: m.round, control: m.control, s: s, moved: time.Now()}
	}
	if l.round.s == nil || l.round.done {
		return nil
	}
	step, err := l.round.s.Handle(m.payload)
	if err != nil {
		if errors.Is(err, reconcile.ErrProtocol) {
			err = fmt.Errorf("%w: %w", errPeer, err)
		}
		return err
	}
	return l.follow(ctx, step)
}

// follow does what a step of the reconciliation asks for.
func (l *link) follow(ctx context.Context, step reconcile.Step) error {
	r := &l.round
	for {
		for _, msg := range step.Send {
			if err := l.send(encodeReconcile(r.control, r.n, l.viewID, msg)); err != nil {
				return err
			}
		}
		if ids := step.Surplus; len(ids) > 0 {
			r.gave = true
			if !l.out.surplus(order{control: r.control, ids: ids}) {
				r.short = true
			}
		}
		if b := step.Bulk; b != nil {
			r.bulk, r.gave = true, r.gave || b.Push
			if b.Push && !l.out.order(order{control: r.control, all: true, from: b.PushFrom}) {
				return errPeer
			}
		}
		if step.Done {
			r.done = true
			behind := l.opener && r.gave && !r.control
			if behind {
				l.onWay.open++
			}
			if !l.out.order(order{round: r.n, again: r.short, ping: behind}) {
				return errPeer
			}
			return l.finish(ctx)
		}
		if step.Scan == nil {
			return nil
		}
		page, end, err := r.page(ctx, l.lib.Replica, l.sight.Link(), *step.Scan)
		if err != nil {
			return err
		}
		if step, err = r.s.Supply(page, end); err != nil {
			return err
		}
	}
}

// finish goes on when both sides are through with a round.
func (l *link) finish(ctx context.Context) error {
	r := &l.round
	if !r.done || !r.caught || r.over {
		return nil
	}
	// After a bulk, for what changed while it was sent; unless nothing of it could be
	// stored, as when all of it is from the future of a clock that is behind.
	again := r.control || r.bulk && l.lib.Replica.Counts().Records > r.records
	controlSet := r.control
	r.end()
	if !controlSet {
		l.onRound(!l.synced.Swap(true))
		if err := l.offer(ctx); err != nil {
			return err
		}
	}
	if !controlSet {
		if wait := l.respite.ended(); wait > 0 && !l.opener {
			return l.send(encodeNumber(frameLater, uint32(wait/time.Second)))
		}
	}
	if l.opener && again && !l.respite.holds() {
		return l.nextAssets(ctx)
	}
	return nil
}
