package memory

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/cansync/cansync/transport"
)

// direction is the way from one host to another: its link, its counters, and when
// it is free again. It outlives connections.
type direction struct {
	n    *Network
	link atomic.Pointer[Link]

	dials, streams, writes, bytes atomic.Uint64
	losses, doubles, overtaken    atomic.Uint64

	mu   sync.Mutex
	free time.Time
	last time.Time // when the latest of what was sent arrives
}

func (d *direction) traffic() Traffic {
	return Traffic{
		Dials: d.dials.Load(), Streams: d.streams.Load(), Writes: d.writes.Load(), Bytes: d.bytes.Load(),
		Lost: d.losses.Load(), Doubled: d.doubles.Load(), Overtaken: d.overtaken.Load(),
	}
}

// arrival reserves the link for size bytes and returns when they arrive; the
// zero time means at once.
func (d *direction) arrival(size int) time.Time {
	l := d.link.Load()
	if l.Latency <= 0 && l.Bandwidth <= 0 && l.Jitter <= 0 {
		return time.Time{}
	}
	var late time.Duration
	if l.Jitter > 0 {
		late = d.n.upTo(l.Jitter)
	}
	at := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if l.Bandwidth > 0 {
		if d.free.After(at) {
			at = d.free
		}
		at = at.Add(time.Duration(float64(size) / float64(l.Bandwidth) * float64(time.Second)))
		d.free = at
	}
	at = at.Add(max(l.Latency, 0) + late)
	if at.Before(d.last) {
		d.overtaken.Add(1)
	} else {
		d.last = at
	}
	return at
}

// lost says whether a write is lost.
func (d *direction) lost() bool {
	if p := d.link.Load().Loss; p <= 0 || !d.n.chance(p) {
		return false
	}
	d.losses.Add(1)
	return true
}

// doubled says whether a write fails that arrives.
func (d *direction) doubled() bool {
	p := d.link.Load().Duplicate
	return p > 0 && d.n.chance(p)
}

// conn is a connection between two hosts. Its fields are guarded by the
// network's mutex.
type conn struct {
	n       *Network
	a, b    *Host // a dialled
	streams map[*stream]struct{}
	closed  bool
}

// connect makes a connection; there is a path. Callers hold n.mu.
func (n *Network) connect(a, b *Host) *conn {
	c := &conn{n: n, a: a, b: b, streams: make(map[*stream]struct{})}
	a.conns[b.id], b.conns[a.id] = c, c
	n.way(a.id, b.id).dials.Add(1)
	a.remember(b.id, n.addrs(b.id))
	b.remember(a.id, n.addrs(a.id))
	a.emit(transport.Event{Kind: transport.Connected, Peer: n.info(b.id)})
	b.emit(transport.Event{Kind: transport.Connected, Peer: n.info(a.id)})
	return c
}

// close breaks the connection. Callers hold n.mu.
func (c *conn) close() {
	if c.closed {
		return
	}
	c.closed = true
	delete(c.a.conns, c.b.id)
	delete(c.b.conns, c.a.id)
	for s := range c.streams {
		s.tear()
	}
	clear(c.streams)
	c.a.emit(transport.Event{Kind: transport.Disconnected, Peer: c.n.info(c.b.id)})
	c.b.emit(transport.Event{Kind: transport.Disconnected, Peer: c.n.info(c.a.id)})
}

// open makes the two ends of a stream. Callers hold n.mu.
func (c *conn) open(from, to *Host, relayed bool) (near, far *stream) {
	out := c.n.way(from.id, to.id)
	back := c.n.way(to.id, from.id)
	p, q := newPipe(c.n.opts.Buffer, out), newPipe(c.n.opts.Buffer, back)
	near = &stream{c: c, peer: to.id, relayed: relayed, in: q, out: p}
	far = &stream{c: c, peer: from.id, relayed: relayed, in: p, out: q}
	near.other, far.other = far, near
	c.streams[near], c.streams[far] = struct{}{}, struct{}{}
	out.streams.Add(1)
	return near, far
}

// stream is one end of a stream.
type stream struct {
	c       *conn
	other   *stream
	peer    transport.PeerID
	relayed bool
	in, out *pipe
	ended   atomic.Bool // closed or reset by this end
}

var _ transport.Stream = (*stream)(nil)

func (s *stream) Read(b []byte) (int, error)         { return s.in.read(b) }
func (s *stream) CloseWrite() error                  { return s.out.closeWrite() }
func (s *stream) SetReadDeadline(t time.Time) error  { s.in.rd.set(t); return nil }
func (s *stream) SetWriteDeadline(t time.Time) error { s.out.wd.set(t); return nil }
func (s *stream) Peer() transport.PeerID             { return s.peer }
func (s *stream) Relayed() bool                      { return s.relayed }

func (s *stream) Write(b []byte) (int, error) {
	if len(b) > 0 && s.out.d.lost() {
		_ = s.Reset()
		return 0, transport.ErrReset
	}
	if len(b) > 0 && s.out.d.doubled() {
		if n, err := s.out.write(b); err != nil {
			return n, err
		}
		s.out.d.doubles.Add(1)
		s.out.cutOff()
		s.in.reset()
		s.ended.Store(true)
		s.forget()
		return 0, transport.ErrReset
	}
	return s.out.write(b)
}

// Close does not wait for the peer: what was written stays in the pipe until it
// is read, or the connection breaks.
func (s *stream) Close() error {
	err := s.out.closeWrite()
	s.in.closeRead()
	s.ended.Store(true)
	if s.other.ended.Load() {
		s.forget()
	}
	return err
}

func (s *stream) Reset() error {
	s.tear()
	s.ended.Store(true)
	s.forget()
	return nil
}

func (s *stream) tear() {
	s.in.reset()
	s.out.reset()
}

// forget takes both ends off the connection's list.
func (s *stream) forget() {
	s.c.n.mu.Lock()
	defer s.c.n.mu.Unlock()
	delete(s.c.streams, s)
	delete(s.c.streams, s.other)
}
